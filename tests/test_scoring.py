import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segment.cli_errors import user_errors
from segment.crf import DenseCRF
from segment.crf.pool import WorkerPool
from segment.labels import labels_of
from segment.runs import checkpoint_of
from segment.scoring import Job, refine, score


def maps(*shape: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    values = generator.random(shape, dtype=np.float32) ** 4
    return values / values.sum(0)


def test_refines_at_the_photo_s_own_size_however_small_the_network_saw_it() -> None:
    # Dark to the left of column 29, light to the right; the network's 8 x 8 map puts the edge, very
    # blurred, at 33.
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 29:] = 220
    right = np.clip((np.arange(8) * 8 + 4 - 33) / 40 + 0.5, 0.05, 0.95).astype(np.float32)
    right = np.tile(right, (8, 1))
    blurred = np.stack([1 - right, right])
    refined, seconds = refine(image, blurred, DenseCRF(bilateral_width_px=40))
    assert refined.shape == (2, 64, 64)
    assert seconds > 0
    truth = np.zeros((64, 64), np.uint8)
    truth[:, 29:] = 1
    assert np.array_equal(ids_of(refined, (64, 64)), truth)
    assert not np.array_equal(ids_of(blurred, (64, 64)), truth)


def test_max_side_bounds_what_a_large_photo_costs() -> None:
    image = np.zeros((400, 300, 3), np.uint8)
    refined, _ = refine(image, maps(3, 20, 15), DenseCRF(max_side=100, iterations=1))
    assert refined.shape == (3, 100, 75)


def test_refines_large_photos_exactly_as_the_crf_itself_does() -> None:
    # Evaluation never upsamples all classes; DenseCRF does, as its last step.
    generator = np.random.default_rng(1)
    image = generator.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    probabilities = maps(4, 120, 160)
    crf = DenseCRF(max_side=40, iterations=2)
    refined, _ = refine(image, probabilities, crf)
    whole = F.interpolate(torch.from_numpy(refined)[None], (120, 160), mode="bilinear")[0]
    assert torch.allclose(whole / whole.sum(0), crf(image, probabilities), atol=1e-5)


def job(tmp_path: Path, number: int, crf: DenseCRF | None) -> Job:
    generator = np.random.default_rng(number)
    probabilities = maps(4, 10, 12)
    ids, confidence = labels_of(torch.from_numpy(probabilities), (40, 50))
    return Job(
        generator.integers(0, 256, (40, 50, 3), dtype=np.uint8),
        generator.integers(0, 4, (40, 50)).astype(np.uint8),
        ids.numpy(),
        confidence.numpy(),
        None if crf is None else probabilities,
        number,
        f"a/{number}.jpg",
        4,
        crf,
        tmp_path,
        f"a/{number}.jpg.png",
    )


def test_a_kept_class_keeps_its_pixels_also_where_the_crf_works_on_less(tmp_path: Path) -> None:
    labels = {}
    for kept in (None, [1]):
        score(job(tmp_path / str(kept), 0, DenseCRF(max_side=25, keep_classes=kept)))
        labels[kept is None] = cv2.imread(str(tmp_path / str(kept) / "refined/a/0.jpg.png"), -1)
    raw = cv2.imread(str(tmp_path / "None/raw/a/0.jpg.png"), -1)
    assert ((labels[True] == 1) != (raw == 1)).any()  # left alone, it changes
    assert np.array_equal(labels[False] == 1, raw == 1)


def ids_of(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return labels_of(torch.from_numpy(probabilities), size).ids.numpy()


@pytest.mark.parametrize("threads", [True, False])
def test_workers_give_what_one_process_gives_in_order(tmp_path: Path, threads: bool) -> None:
    crf = DenseCRF(iterations=1)
    results = {}
    for workers in (0, 2):
        pool = WorkerPool(score, workers, threads)
        found = []
        for number in range(6):
            found += pool.submit(job(tmp_path / str(workers), number, crf))
        found += pool.drain()
        pool.close()
        results[workers] = found
    assert [scored.image_id for scored in results[2]] == list(range(6))
    for one, other in zip(results[0], results[2], strict=True):
        assert one.raw.to_json() == other.raw.to_json()
        assert one.refined is not None
        assert other.refined is not None
        assert one.refined.to_json() == other.refined.to_json()
    written = cv2.imread(str(tmp_path / "2" / "raw" / "a" / "3.jpg.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written, ids_of(maps(4, 10, 12), (40, 50)))


def refuse_or_die(number: int) -> None:
    if number:
        os._exit(1)
    checkpoint_of(Path("nowhere"))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "nowhere: no checkpoint 'best'; the run has not written one yet."),
        (1, "a worker process died, likely out of memory; use --score_workers 0"),
    ],
)
def test_what_a_worker_refuses_reaches_the_user(
    number: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = WorkerPool(refuse_or_die, 1, threads=False)
    with pytest.raises(SystemExit) as stopped:
        user_errors(lambda: [*pool.submit(number), *pool.drain()])
    pool.close()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {words}")


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="workers is -1; give 0 or more"):
        WorkerPool(score, -1, threads=True)


def test_without_a_crf_only_raw_labels_are_scored(tmp_path: Path) -> None:
    scored = score(job(tmp_path, 0, None))
    assert scored.refined is None
    assert scored.crf_seconds is None
    assert not (tmp_path / "refined").exists()


# What the network gives at native size is 2.9 GB: 61 maps of 4000x3000. Beside it: the photo 36 MB,
# labels and confidences 60 MB each, the CRF at 1280x960 with 300 MB for each of its maps, and torch
# itself with 0.6 GB. Measured 6.7 GB; a second copy of the 2.9 GB would break the limit.
PEAK_MB = 7500


SCORED = """
truth = np.kron(generator.integers(0, 61, (30, 40)).astype(np.uint8), blocks)
ids, confidence = labels_of(maps, (3000, 4000))
job = Job(image, truth, ids.numpy(), confidence.numpy(), small, 1, "a.jpg", 61, crf, out, "a.png")
assert score(job).refined.confusion.sum() == 12_000_000
"""
PREDICTED = """
from segment.data.taxonomy import Taxonomy
from segment.prediction import Job, Source, write_prediction
source = Source(out / "a.jpg", "a.jpg", 1)
del maps
job = Job(image, small, source, out, crf, Taxonomy.load("taco60"), False, True)
assert sum(write_prediction(job).areas.values()) == 12_000_000
"""


@pytest.mark.parametrize("verb", [SCORED, PREDICTED], ids=["scored", "predicted"])
def test_a_12_megapixel_photo_with_60_classes_fits_in_memory(tmp_path: Path, verb: str) -> None:
    code = f"""
import resource, sys
from pathlib import Path
import numpy as np
import torch
from segment.crf import DenseCRF
from segment.labels import labels_of
from segment.modules import DeepLabV2Module
from segment.scoring import Job, at_most, score
torch.manual_seed(0)
module = DeepLabV2Module(61, "tf_efficientnet_lite0", output_stride=16, pretrained=False).eval()
crf = DenseCRF(iterations=1)
generator = np.random.default_rng(0)
blocks = np.ones((100, 100), np.uint8)
image = np.kron(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8), blocks[..., None])
with torch.inference_mode():
    maps = module.probabilities(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
assert maps.shape == (61, 3000, 4000)
small = at_most(maps, crf.working_size(3000, 4000)).numpy()
out = Path({str(tmp_path)!r})
{verb}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < PEAK_MB
