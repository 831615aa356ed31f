"""The native backend held to pydensecrf, whose lattice it shares, to `exact`, and to itself."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from segment.crf import DenseCRF, _native

SETS = _native.instruction_sets()


def photo_like(seed: int, height: int, width: int) -> np.ndarray:
    """Regions of one colour each under a slope of light and sensor noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    centres = rng.uniform(0, 1, (12, 2)) * (height, width)
    nearest = np.argmin([(y - cy) ** 2 + (x - cx) ** 2 for cy, cx in centres], axis=0)
    colours = rng.integers(20, 236, (12, 3))[nearest]
    light = 30 * x / width - 20 * y / height
    noisy = colours + light[..., None] + rng.normal(0, 5, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def probabilities(seed: int, classes: int, height: int, width: int, sharpness: float) -> np.ndarray:
    """Softmax of smooth noise: 1 is unsure everywhere, 8 sure almost everywhere."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, height // 16 + 2, width // 16 + 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (sharpness * smooth[0]).softmax(0).numpy()


def run(photo, p, *, instruction_set="", threads=2, **fields) -> np.ndarray:
    """The extension itself, for choices that DenseCRF does not offer."""
    settings = {
        "iterations": 5,
        "clip": 1e-5,
        "position_px": 3.0,
        "position_weight": 3.0,
        "bilateral_px": 80.0,
        "bilateral_levels": 13.0,
        "bilateral_weight": 10.0,
        "normalization": "symmetric",
        "compatibility": None,
    }
    chosen = {"instruction_set": instruction_set, "threads": threads}
    return _native.mean_field(photo, p, **settings | chosen | fields)


@pytest.mark.parametrize("sharpness", [1.0, 8.0])
@pytest.mark.parametrize(
    ("classes", "fields"),
    [
        (11, {}),
        (2, {"normalization": "after", "bilateral_width_levels": 4.0}),
        (21, {"normalization": "before", "bilateral_width_px": 20.0}),
        (5, {"normalization": "none", "bilateral_weight": 0.01, "position_weight": 0.02}),
        (17, {"compatibility": (1 - np.eye(17) + np.diag([0.5] * 17)).tolist()}),
        (11, {"position_weight": 0.0}),
        (11, {"bilateral_weight": 0.0}),
    ],
)
def test_gives_pydensecrf_s_labels_and_probabilities(classes, fields, sharpness) -> None:
    photo = photo_like(1, 150, 203)  # more than a tile's 32 pixels, and no multiple of it
    p = probabilities(2, classes, 150, 203, sharpness)
    theirs, ours = (DenseCRF(**fields, backend=b)(photo, p) for b in ("pydensecrf", "native"))
    assert (theirs.argmax(0) == ours.argmax(0)).float().mean() >= 0.9999
    assert ((theirs - ours).abs() < 1e-3).float().mean() >= 0.9999
    assert (theirs - torch.from_numpy(p)).abs().mean() > 0.001  # the CRF did something


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("normalization", ["symmetric", "after"])
def test_is_as_near_to_all_pairs_as_pydensecrf_is(normalization, backend) -> None:
    photo, p = photo_like(3, 60, 80), probabilities(4, 4, 60, 80, 2.0)
    truth, theirs, ours = (
        DenseCRF(backend=b, iterations=3, normalization=normalization)(photo, p)
        for b in ("exact", "pydensecrf", backend)
    )
    assert (ours - truth).abs().mean() <= 1.1 * (theirs - truth).abs().mean()
    wrong = [(one.argmax(0) != truth.argmax(0)).sum() for one in (ours, theirs)]
    assert wrong[0] <= 1.1 * wrong[1]


@pytest.mark.parametrize("classes", [1, 3, 4, 5, 8, 9, 16, 17, 33, 65])
@pytest.mark.parametrize("instruction_set", SETS[1:])
def test_every_instruction_set_gives_the_same(classes, instruction_set) -> None:
    photo, p = photo_like(5, 40, 70), probabilities(6, classes, 40, 70, 2.0)
    widest, other = (run(photo, p, instruction_set=one) for one in (SETS[0], instruction_set))
    np.testing.assert_allclose(other, widest, atol=2e-5)


# Scores of 30 and more take another way through the softmax.
@pytest.mark.parametrize("weight", [20.0, 400.0, 1e6, 1e15])
def test_large_weights_do_not_overflow(weight) -> None:
    photo, p = photo_like(23, 90, 100), probabilities(24, 5, 90, 100, 2.0)
    fields = {"bilateral_weight": weight, "position_weight": weight, "iterations": 1}
    theirs, ours = (DenseCRF(**fields, backend=b)(photo, p) for b in ("pydensecrf", "native"))
    assert torch.isfinite(ours).all()
    assert (theirs.argmax(0) == ours.argmax(0)).float().mean() >= 0.999
    costly = (1 - np.eye(5)).tolist()  # Potts written out: every score is far below 0
    dear = DenseCRF(**fields, backend="native", compatibility=costly)(photo, p)
    torch.testing.assert_close(dear.sum(0), torch.ones(90, 100))
    assert (theirs.argmax(0) == dear.argmax(0)).float().mean() >= 0.999
    repelling = [[0.0 if a == b else -1.0 for a in range(5)] for b in range(5)]
    low = DenseCRF(**fields, backend="native", compatibility=repelling)(photo, p)
    theirs = DenseCRF(**fields, backend="pydensecrf", compatibility=repelling)(photo, p)
    assert torch.isfinite(low).all()
    assert (theirs.argmax(0) == low.argmax(0)).float().mean() >= 0.999


def test_says_which_instruction_set_is_missing() -> None:
    with pytest.raises(ValueError, match="no instruction set mmx"):
        run(photo_like(0, 4, 4), probabilities(0, 2, 4, 4, 1.0), instruction_set="mmx")


@pytest.mark.parametrize("threads", [2, 3, 7, 64])
def test_threads_change_nothing_but_rounding(threads) -> None:
    photo, p = photo_like(7, 200, 170), probabilities(8, 6, 200, 170, 2.0)
    np.testing.assert_allclose(run(photo, p, threads=threads), run(photo, p, threads=1), atol=2e-5)
    again = run(photo, p, threads=threads)
    assert np.array_equal(again, run(photo, p, threads=threads))


def test_20_threads_calling_at_once_get_their_own_answers() -> None:
    cases = [(photo_like(n, 90, 70), probabilities(n, 3 + n % 3, 90, 70, 2.0)) for n in range(20)]
    alone = [run(*case) for case in cases]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda case: run(*case), cases))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_python_goes_on_while_it_runs() -> None:
    photo, p = photo_like(25, 200, 300), probabilities(26, 11, 200, 300, 2.0)
    inside, done = [], threading.Event()

    def count() -> None:
        while not done.is_set():
            inside.append(time.perf_counter())

    counter = threading.Thread(target=count)
    counter.start()
    try:
        start = time.perf_counter()
        run(photo, p, iterations=60, threads=1)
        end = time.perf_counter()
    finally:
        done.set()
        counter.join()
    # With Python's lock held, the counter stands still from the first moment to the last.
    seen = [start, *(moment for moment in inside if start < moment < end), end]
    assert max(np.diff(seen)) < 0.6 * (end - start)


@pytest.mark.parametrize("classes", [1, 2, 255])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 50), (50, 1), (33, 31), (32, 32), (2, 65)]
)
def test_any_size_and_number_of_classes(classes, height, width) -> None:
    photo, p = photo_like(9, height, width), probabilities(10, classes, height, width, 2.0)
    theirs, ours = (DenseCRF(backend=b)(photo, p) for b in ("pydensecrf", "native"))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def test_1024_classes_are_the_most() -> None:
    photo = photo_like(11, 6, 5)
    assert run(photo, np.full((1024, 6, 5), 1 / 1024, np.float32)).shape == (1024, 6, 5)
    with pytest.raises(ValueError, match="at most 1024 classes, not 1025; take the backend"):
        DenseCRF(backend="native")(photo, np.full((1025, 6, 5), 1 / 1025, np.float32))


# Below a tenth of a pixel or level a pixel has no neighbour but itself, which changes no label;
# without end, every pixel is everyone's neighbour.
@pytest.mark.parametrize("levels", [0.01, 0.3, 10_000.0])
@pytest.mark.parametrize("pixels", [0.01, 0.3, 10_000.0])
def test_widths_without_measure(pixels, levels) -> None:
    photo, p = photo_like(12, 70, 90), probabilities(13, 3, 70, 90, 2.0)
    fields = {"position_width_px": pixels, "bilateral_width_px": pixels}
    q = DenseCRF(**fields, bilateral_width_levels=levels, backend="native")(photo, p)
    assert torch.isfinite(q).all()
    torch.testing.assert_close(q.sum(0), torch.ones(70, 90))
    if pixels < 0.1:
        assert torch.equal(q.argmax(0), torch.from_numpy(p).argmax(0))
    if pixels == levels == 10_000.0:
        assert len(q.argmax(0).unique()) == 1


def test_permuting_the_classes_permutes_the_result() -> None:
    photo, p = photo_like(14, 50, 60), probabilities(15, 19, 50, 60, 2.0)
    order = np.random.default_rng(16).permutation(19)
    np.testing.assert_allclose(
        run(photo, np.ascontiguousarray(p[order])), run(photo, p)[order], atol=2e-5
    )


# The lattice is not mirror-symmetric: here 1 to 2 % of the labels move, on real photos with noise
# for probabilities 0.03 to 35 % (benchmarks/crf_checks.py mirror).
@pytest.mark.parametrize("axis", [0, 1])
def test_mirroring_nearly_commutes(axis) -> None:
    photo, p = photo_like(17, 90, 120), probabilities(18, 4, 90, 120, 2.0)
    mirrored = run(
        np.ascontiguousarray(np.flip(photo, axis)), np.ascontiguousarray(np.flip(p, axis + 1))
    )
    straight = run(photo, p)
    assert np.abs(np.flip(mirrored, axis + 1) - straight).mean() < 0.01
    assert (np.flip(mirrored, axis + 1).argmax(0) == straight.argmax(0)).mean() > 0.98


def test_any_memory_layout_and_type() -> None:
    photo, p = photo_like(19, 40, 50), probabilities(20, 5, 40, 50, 2.0)
    crf = DenseCRF(backend="native")
    expected = crf(photo, p)
    last = np.ascontiguousarray(p.transpose(1, 2, 0)).transpose(2, 0, 1)
    strided = np.zeros((40, 100, 3), np.uint8)[:, ::2]
    strided[:] = photo
    upside_down = np.ascontiguousarray(photo[::-1])[::-1]
    for one in (photo, np.asfortranarray(photo), strided, upside_down):
        one.flags.writeable = False
        last.flags.writeable = False
        torch.testing.assert_close(crf(one, last), expected, atol=0, rtol=0)
    half = crf(photo, p.astype(np.float16))
    torch.testing.assert_close(half, expected, atol=0.02, rtol=0)


def test_denormal_and_zero_probabilities_are_clipped() -> None:
    photo = photo_like(21, 40, 50)
    p = np.zeros((3, 40, 50), np.float32)
    p[0], p[1] = 1, 1e-42
    q = DenseCRF(backend="native")(photo, p)
    assert torch.isfinite(q).all()
    assert (q[0] > 0.99).all()


# Where the number of pixels is no multiple of 4, pydensecrf fills its lattice up with pixels of
# position and colour 0, whose corners then take part in the blur: those are held to torch.
@pytest.mark.parametrize(("other", "cases"), [("pydensecrf", 100), ("torch", 20)])
def test_shapes_and_settings_at_random(monkeypatch, other, cases) -> None:
    rng = np.random.default_rng(22)
    for _ in range(cases):
        height, width, classes = (int(n) for n in rng.integers(1, (90, 23, 24)))
        height, width = (
            (height, 4 * width) if other == "pydensecrf" else (height | 1, 4 * width + 1)
        )
        fields = {
            "iterations": int(rng.integers(1, 4)),
            "position_width_px": float(10 ** rng.uniform(-1, 2)),
            "position_weight": float(rng.choice([0, 1, 5])),
            "bilateral_width_px": float(10 ** rng.uniform(-1, 3)),
            "bilateral_width_levels": float(10 ** rng.uniform(0, 2.5)),
            "bilateral_weight": float(rng.choice([0, 1, 5])),
            "normalization": str(rng.choice(["symmetric", "after", "before"])),
        }
        if rng.random() < 0.3:
            costs = np.abs(rng.normal(size=(classes, classes)))
            fields["compatibility"] = (costs + costs.T).tolist()
        photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        p = probabilities(int(rng.integers(1000)), classes, height, width, 2.0)
        p = p.astype(rng.choice(["float16", "float32", "float64"]))
        threads = int(rng.integers(1, 4))
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        theirs, ours = (DenseCRF(**fields, backend=b)(photo, p) for b in (other, "native"))
        off = (theirs - ours).abs()
        assert off.max() < 1e-3, (height, width, classes, fields, off.max())
