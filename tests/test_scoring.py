import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from segment.crf import DenseCRF
from segment.labels import labels_of
from segment.scoring import Job, Photo, WorkerPool, refine, score


def maps(*shape: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    values = generator.random(shape, dtype=np.float32) ** 4
    return values / values.sum(0)


def test_refines_at_the_photo_s_own_size_however_small_the_network_saw_it() -> None:
    # Left half dark, right half light; the network's map is 8 x 8 and blurred across the edge.
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 29:] = 220
    right = np.clip((np.arange(8) * 8 + 4 - 29) / 40 + 0.5, 0.05, 0.95).astype(np.float32)
    right = np.tile(right, (8, 1))
    photo = Photo(image, np.stack([1 - right, right]))
    refined, seconds = refine(photo, DenseCRF(bilateral_width_px=40))
    assert refined.shape == (2, 64, 64)
    assert seconds > 0
    truth = np.zeros((64, 64), np.uint8)
    truth[:, 29:] = 1
    raw_errors = (ids_of(photo.probabilities, (64, 64)) != truth).sum()
    assert (ids_of(refined, (64, 64)) != truth).sum() <= raw_errors
    assert (refined[1, :, 31:] > 0.9).all()


def test_max_side_bounds_what_a_large_photo_costs() -> None:
    photo = Photo(np.zeros((400, 300, 3), np.uint8), maps(3, 20, 15))
    refined, _ = refine(photo, DenseCRF(max_side=100, iterations=1))
    assert refined.shape == (3, 100, 75)


def ids_of(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return labels_of(torch.from_numpy(probabilities), size).ids.numpy()


def job(tmp_path: Path, number: int, crf: DenseCRF | None) -> Job:
    generator = np.random.default_rng(number)
    return Job(
        Photo(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8), maps(4, 10, 12)),
        generator.integers(0, 4, (40, 50)).astype(np.uint8),
        number,
        f"a/{number}.jpg",
        crf,
        tmp_path,
        f"a/{number}.png",
    )


def test_workers_give_what_one_process_gives_in_order(tmp_path: Path) -> None:
    crf = DenseCRF(iterations=1)
    results = {}
    for workers in (0, 2):
        pool = WorkerPool(score, workers)
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
    written = cv2.imread(str(tmp_path / "2" / "raw" / "a" / "3.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written, ids_of(maps(4, 10, 12), (40, 50)))


def test_without_a_crf_only_raw_labels_are_scored(tmp_path: Path) -> None:
    scored = score(job(tmp_path, 0, None))
    assert scored.refined is None
    assert scored.crf_seconds is None
    assert not (tmp_path / "refined").exists()


# Photo 36 MB, truth and labels 12 MB each, confidences 48 MB, the CRF at 1280x960 with 61
# classes: 300 MB for each of pydensecrf's unaries, Q and scratch. torch itself takes 0.6 GB.
PEAK_MB = 4200


def test_a_12_megapixel_photo_with_60_classes_fits_in_memory(tmp_path: Path) -> None:
    code = f"""
import resource, sys
from pathlib import Path
import numpy as np
from segment.crf import DenseCRF
from segment.scoring import Job, Photo, score
generator = np.random.default_rng(0)
maps = generator.random((61, 375, 500), dtype=np.float32)
blocks = np.ones((100, 100), np.uint8)
image = np.kron(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8), blocks[..., None])
truth = np.kron(generator.integers(0, 61, (30, 40)).astype(np.uint8), blocks)
job = Job(Photo(image, maps / maps.sum(0)), truth, 1, "a.jpg", DenseCRF(iterations=1),
          Path({str(tmp_path)!r}), "a.png")
scored = score(job)
assert scored.refined.confusion.sum() == 12_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < PEAK_MB
