"""What goes in, what is refused, what comes out."""

import re
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segment.crf import PRESETS, DenseCRF, dense
from segment.crf.guard import check


def example(seed: int = 0, classes: int = 3, height: int = 12, width: int = 9):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    p = rng.dirichlet(np.ones(classes), (height, width)).transpose(2, 0, 1)
    return image, np.ascontiguousarray(p, dtype=np.float32)


def two_tone(edge: int, height: int = 48, width: int = 64):
    """A photo that changes tone at column `edge`, and the two-class mask of it."""
    noise = np.random.default_rng(9).integers(0, 8, (height, width, 3))
    right = np.broadcast_to(np.arange(width) >= edge, (height, width))
    image = np.where(right[..., None], (190, 170, 60), (60, 90, 120)) + noise
    return image.astype(np.uint8), torch.from_numpy(right.astype(np.int64))


def noisy(edge: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Uncertain probabilities of two classes that change at column `edge`."""
    p = np.where(np.arange(width) >= edge, 0.7, 0.3)
    p = p + np.random.default_rng(8).normal(0, 0.12, (height, width))
    p = p.clip(0.05, 0.95).astype(np.float32)
    return np.stack([1 - p, p])


BACKENDS = ("exact", "pydensecrf", "native", "torch")


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


# What it is for


def test_pulls_a_boundary_to_the_edge_of_its_own_photo_only() -> None:
    image, mask = two_tone(32)
    p = noisy(38)  # 6 columns too far right
    accuracy = {"before": (torch.from_numpy(p).argmax(0) == mask).float().mean().item()}
    for name, photo in {"own": image, "mirrored": two_tone(44)[0]}.items():
        accuracy[name] = (DenseCRF()(photo, p).argmax(0) == mask).float().mean().item()
    assert accuracy["before"] < 0.9
    assert accuracy["own"] > 0.99
    assert accuracy["mirrored"] < 0.9


def test_without_weights_or_iterations_nothing_changes() -> None:
    image, p = example()
    assert p.min() > 1e-5
    for backend in BACKENDS:
        for crf in (
            DenseCRF(position_weight=0, bilateral_weight=0, backend=backend),
            DenseCRF(iterations=0, backend=backend),
        ):
            same(crf(image, p), torch.from_numpy(p))


def test_clips_as_pydensecrf_does() -> None:
    p = np.zeros((2, 2, 3), np.float32)
    p[0] = 1
    q = DenseCRF(iterations=0, clip=0.01)(np.zeros((2, 3, 3), np.uint8), p)
    assert q[1].flatten().tolist() == pytest.approx([0.01 / 1.01] * 6)


def test_permuting_the_classes_permutes_the_result() -> None:
    image, p = example(1, classes=5)
    order = [3, 0, 4, 1, 2]
    for backend in BACKENDS:
        crf = DenseCRF(backend=backend, iterations=3, bilateral_weight=2)
        same(crf(image, p[order]), crf(image, p)[order])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_constant_photo_of_one_answer_is_its_own_neighbour(backend) -> None:
    """All pixels alike: every message is the same, and by hand that of one pixel to itself.

    With D^-1 K each kernel's messages sum to 1, so a step adds weight * Q_l to the score of l.
    """
    image = np.full((9, 11, 3), 77, np.uint8)
    p = np.broadcast_to(np.array([0.5, 0.3, 0.2], np.float32)[:, None, None], (3, 9, 11))
    q = p[:, 0, 0].astype(np.float64)
    for _ in range(2):
        scores = np.log(p[:, 0, 0]) + (0.7 + 0.4) * q
        q = np.exp(scores) / np.exp(scores).sum()
    crf = DenseCRF(
        iterations=2,
        normalization="after",
        position_weight=0.7,
        bilateral_weight=0.4,
        backend=backend,
    )
    expected = torch.tensor(q, dtype=torch.float32)[:, None, None].expand(3, 9, 11)
    torch.testing.assert_close(crf(image, p), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("classes", [2, 255])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 24), (24, 1), (5, 8)])
def test_the_least_photos_and_most_classes_agree(height, width, classes) -> None:
    """Kernels so wide that the lattice is near all pairs, on shapes with a side of one pixel."""
    image, p = example(8, classes, height, width)
    image, p = image // 16, p / 2
    p[-1] += 0.5  # else the last of 255 would hardly have a say
    fields = {"iterations": 2, "position_weight": 0.5, "bilateral_weight": 0.5}
    exact, *others = (
        DenseCRF(backend=backend, normalization="after", **fields)(image, p) for backend in BACKENDS
    )
    assert (exact - torch.from_numpy(p)).abs().max() > 0.05
    for q in others:
        torch.testing.assert_close(q.sum(0), torch.ones(height, width))
        torch.testing.assert_close(q, exact, atol=0.01, rtol=0)


def test_61_classes_sum_to_one() -> None:
    image, p = example(2, classes=61)
    q = DenseCRF(iterations=2)(image, p)
    assert (q.shape, q.dtype) == ((61, 12, 9), torch.float32)
    same(q.sum(0), torch.ones(12, 9))


def test_one_class_is_certain() -> None:
    q = DenseCRF()(example()[0], np.ones((1, 12, 9), np.float32))
    # The native backend multiplies by 1 / sum, which rounds.
    torch.testing.assert_close(q, torch.ones(1, 12, 9), atol=2e-7, rtol=0)


# Layouts and types


def test_every_layout_and_type_gives_the_same() -> None:
    image, p = example(3)
    expected = DenseCRF()(image, p)
    read_only = image.copy(), p.copy()
    for array in read_only:
        array.flags.writeable = False
    pt = torch.from_numpy(p)
    pairs = [
        (np.ascontiguousarray(image.transpose(2, 0, 1)), p),
        (image.transpose(2, 0, 1), pt.double()),
        (torch.from_numpy(image), pt),
        (torch.from_numpy(image).permute(2, 0, 1), pt.requires_grad_()),
        read_only,
        (np.asfortranarray(image), np.asfortranarray(p)),
        (image[::-1].copy()[::-1], p[:, :, ::-1].copy()[:, :, ::-1]),  # negative strides
        (np.repeat(image, 2, 1)[:, ::2], np.repeat(p, 2, 2)[:, :, ::2].astype(">f4")),
    ]
    for photo, probabilities in pairs:
        q = DenseCRF()(photo, probabilities)
        assert torch.equal(q, expected)
        assert not q.requires_grad


@pytest.mark.parametrize(("dtype", "off"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_accepts_what_half_precision_rounds(dtype, off) -> None:
    torch.manual_seed(0)
    p = torch.randn(61, 12, 9).mul(2).softmax(0)
    crf = DenseCRF(iterations=1, position_weight=1, bilateral_weight=1)
    q = crf(example()[0], p.to(dtype))
    assert q.dtype == torch.float32
    assert (q - crf(example()[0], p)).abs().max() < off
    with pytest.raises(ValueError, match=r"sum to 1.*float32 rounds"):
        crf(example()[0], p * 1.002)


def test_leaves_its_inputs_alone() -> None:
    image, p = example(4)
    p[:, 0, 0] = [1, 0, 0]  # would be clipped
    before = image.copy(), p.copy()
    DenseCRF(max_side=6)(image, p)
    DenseCRF()(torch.from_numpy(image), torch.from_numpy(p))
    assert (image == before[0]).all()
    assert (p == before[1]).all()


def test_a_batch_is_its_photos_one_by_one() -> None:
    pairs = [example(seed) for seed in (5, 6)]
    images, maps = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*pairs, strict=True))
    expected = torch.stack([DenseCRF()(*pair) for pair in pairs])
    assert torch.equal(DenseCRF()(images, maps), expected)
    assert torch.equal(DenseCRF()(images.permute(0, 3, 1, 2), maps), expected)


def test_the_probabilities_say_which_axis_is_the_channels() -> None:
    image = np.arange(45, dtype=np.uint8).reshape(3, 5, 3)
    assert (check(image, np.full((2, 3, 5), 0.5))[0][0] == image).all()
    assert (check(image, np.full((2, 5, 3), 0.5))[0][0] == image.transpose(1, 2, 0)).all()
    cube = image[:, :3]
    assert (check(cube, np.full((2, 3, 3), 0.5))[0][0] == cube).all()


# What is refused

IMAGE, P = example(7)


def spoiled(value: float) -> np.ndarray:
    p = P.copy()
    p[0, 1, 2] = value
    return p


@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        (IMAGE / np.float32(255), P, r"photo is float32, as after normalization; pass the uint8"),
        (torch.from_numpy(IMAGE).half(), P, r"photo is float16, as after normalization"),
        (IMAGE.astype(np.int64), P, r"photo is int64; pass it as uint8"),
        (IMAGE > 9, P, r"photo is bool; pass it as uint8"),
        (IMAGE.tolist(), P, r"takes the photo as a numpy array or a tensor, got list"),
        (IMAGE[..., 0], P, r"3 channels and shape \(H, W, 3\) .* got \(12, 9\); convert a grey"),
        (IMAGE[..., [0, 1, 2, 2]], P, r"3 channels, first or last, got shape \(12, 9, 4\)"),
        (IMAGE[None], P, r"got \(1, 12, 9, 3\).*batch axis or neither"),
        (IMAGE, P[None], r"shape \(N, H, W, 3\) or \(N, 3, H, W\), got \(12, 9, 3\)"),
        (IMAGE[None], np.stack([P, P]), r"1 photos but 2 probability maps"),
        (IMAGE.transpose(1, 0, 2), P, r"swapped: the photo is 9x12 .* 12x9; transpose"),
        (IMAGE.transpose(2, 1, 0), P, r"swapped: the photo is 9x12"),
        (IMAGE[:-1], P, r"photo is 11x9 .* probabilities 12x9; resize"),
        (IMAGE, spoiled(np.nan), r"NaN or infinity"),
        (IMAGE, spoiled(np.inf), r"NaN or infinity"),
        (IMAGE, spoiled(-np.inf), r"NaN or infinity"),
        (IMAGE, spoiled(-0.5), r"down to -0.5, so they look like logits; apply softmax"),
        (IMAGE, P * 7, r"sum to 1, but one is off by 6.*apply softmax"),
        (IMAGE, P * 1.01, r"sum to 1, but one is off by 0.01"),
        (IMAGE, np.log(P), r"look like logits; apply softmax"),
        (IMAGE, P.argmax(0), r"as floats, got int64; apply softmax to the logits"),
        (IMAGE, P[0], r"\(C, H, W\) or \(N, C, H, W\), none of them 0, got \(12, 9\)"),
        (IMAGE[:0], P[:, :0], r"none of them 0, got \(3, 0, 9\)"),
        (IMAGE, P[:0], r"none of them 0, got \(0, 12, 9\)"),
        (IMAGE, np.ma.masked_less(P, 0.1), r"takes the probabilities without a mask"),
        (np.ma.masked_less(IMAGE, 9), P, r"takes the photo without a mask"),
        (IMAGE, torch.from_numpy(P).to_sparse(), r"the probabilities as a dense tensor"),
        (IMAGE, torch.from_numpy(P).to("meta"), r"the probabilities is a meta tensor"),
    ],
)
def test_refuses(image, probabilities, message) -> None:
    with pytest.raises(ValueError, match=message):
        DenseCRF()(image, probabilities)


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("iterations", -1, "0 or more"),
        ("iterations", 2.5, "whole number"),
        ("iterations", True, "whole number"),
        ("iterations", 2**40, "at most 1000"),
        ("position_width_px", 0.0, "from 0.0001 on"),
        ("bilateral_width_px", 1e-30, "from 0.0001 on"),  # this one crashed the lattice
        ("bilateral_width_px", float("nan"), "finite"),
        ("bilateral_width_levels", -13.0, "from 0.0001 on"),
        ("position_weight", -3.0, "0 or more"),
        ("bilateral_weight", float("inf"), "finite"),
        ("normalization", "sym", "one of symmetric, after, before, none"),
        ("backend", "gpu", "one of auto, native, pydensecrf, torch, exact"),
        ("clip", 0.0, "in"),
        ("max_side", 0, "1 or more, or null"),
        ("compatibility", [[0.0, 1.0], [2.0, 0.0]], "symmetric"),
        ("compatibility", [[0.0, 1.0]], "C x C"),
        ("compatibility", [1.0, 2.0], "C x C"),
        ("compatibility", 1 - np.eye(2), "a list of lists"),
        ("compatibility", 1 - torch.eye(2), "a list of lists"),
        ("compatibility", [[0.0, float("nan")], [float("nan"), 0.0]], "finite"),
    ],
)
def test_refuses_a_setting(field, value, remedy) -> None:
    with pytest.raises(ValueError, match=rf"crf: {field} is .*; make it .*{remedy}"):
        DenseCRF(**{field: value})


def test_refuses_settings_that_do_not_fit_the_classes() -> None:
    with pytest.raises(ValueError, match=r"compatibility is for 2 classes .* have 3"):
        DenseCRF(compatibility=[[0, 1], [1, 0]])(IMAGE, P)
    with pytest.raises(ValueError, match=r"clip is 0.4, .* 3 classes; make it far below 0.333"):
        DenseCRF(clip=0.4)(IMAGE, P)
    with pytest.raises(ValueError, match=r"position_weight is 1e\+38, which overflows"):
        DenseCRF(position_weight=1e38, bilateral_weight=3e38, normalization="none")(IMAGE, P)
    with pytest.raises(ValueError, match=r"times 1e\+20, the largest of comp.*; lower compatib"):
        DenseCRF(compatibility=(1e20 * (1 - np.eye(3))).tolist())(IMAGE, P)
    for sizes in ({"reference_size": 10**9}, {"max_side": 1, "position_width_px": 5e-4}):
        with pytest.raises(
            ValueError, match=r"for this photo becomes .* reference_size .*max_side"
        ):
            DenseCRF(**sizes)(IMAGE, P)


# Large photos


def test_working_size_keeps_the_ratio_and_the_bound() -> None:
    crf = DenseCRF()
    assert crf.working_size(3000, 4000) == (960, 1280)
    assert crf.working_size(4000, 3000) == (1280, 960)
    assert crf.working_size(1280, 7) == (1280, 7)
    assert crf.working_size(2, 100_000) == (1, 1280)
    assert DenseCRF(max_side=None).working_size(3000, 4000) == (3000, 4000)


def test_runs_at_the_working_size_with_widths_scaled_along(monkeypatch) -> None:
    seen = []

    def mean_field(photo, p, crf, threads):
        seen.append((photo.shape, p.shape, crf.position_width_px, crf.bilateral_width_px))
        return p

    monkeypatch.setattr(dense.native, "mean_field", mean_field)
    q = DenseCRF(max_side=16)(two_tone(32)[0], noisy(32))
    assert seen == [((12, 16, 3), (2, 12, 16), 0.75, 20.0)]  # a quarter of 3 and 80
    assert q.shape == (2, 48, 64)
    same(q.sum(0), torch.ones(48, 64))


def test_scaled_follows_a_resized_photo_in_pixels_only() -> None:
    crf = DenseCRF(iterations=4).scaled(0.5)
    assert crf == DenseCRF(iterations=4, position_width_px=1.5, bilateral_width_px=40.0)


def test_auto_is_native_and_falls_back_with_a_word(monkeypatch) -> None:
    assert DenseCRF().backend_used == "native"
    assert DenseCRF(backend="exact").backend_used == "exact"
    expected = DenseCRF(backend="pydensecrf")(*example())
    monkeypatch.setattr(dense.native, "_native", None)
    monkeypatch.setattr(dense.native, "AVAILABLE", False)
    dense.native.warn_missing.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert DenseCRF().backend_used == "pydensecrf"
        assert not DenseCRF().releases_lock
        assert torch.equal(DenseCRF()(*example()), expected)
    assert len(told) == 1
    assert re.search(r"refined by `pydensecrf`.*install a C\+\+ compiler", str(told[0].message))
    dense.native.warn_missing.cache_clear()
    with pytest.raises(ImportError, match=r"native backend was not built.*or take the backend"):
        DenseCRF(backend="native")(*example())


def test_reduced_result_is_close_to_the_full_one() -> None:
    image, _ = two_tone(32)
    p = noisy(38)
    full = DenseCRF(bilateral_width_px=30)(image, p)
    reduced = DenseCRF(bilateral_width_px=30, max_side=32)(image, p)
    assert (full.argmax(0) == reduced.argmax(0)).float().mean() > 0.97
    assert (full - reduced).abs().mean() < 0.03
    assert (full - torch.from_numpy(p)).abs().mean() > 0.2  # so being close says something


def test_callers_can_stay_at_the_working_size() -> None:
    image, _ = two_tone(32)
    p = torch.from_numpy(noisy(38))
    crf = DenseCRF(max_side=32)
    size = crf.working_size(48, 64)
    photo = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    photo = F.interpolate(photo, size, mode="area").round().byte()[0]
    small = crf.at_working_size(48, 64)(photo, F.interpolate(p[None], size, mode="area")[0])
    assert small.shape == (2, 24, 32)
    same(F.interpolate(small[None], (48, 64), mode="bilinear")[0], crf(image, p))


# Published parameters

TABLE = {  # bilateral weight, px, levels; position weight, px
    "deeplab_v1": (5, 50, 10, 3, 3),
    "deeplab_v1_msc": (3, 95, 3, 3, 3),
    "deeplab_v1_largefov": (4, 121, 5, 3, 3),
    "deeplab_v1_msc_largefov": (4, 83, 5, 3, 3),
    "deeplab_v1_coco": (5, 67, 3, 3, 3),
    "deeplab_v1_coco_largefov": (5, 69, 5, 3, 3),
    "deeplab_v1_msc_coco_largefov": (4, 59, 5, 3, 3),
    "deeplab_v2": (4, 49, 5, 3, 3),
    "deeplab_v2_vgg16": (4, 65, 3, 2, 2),
    "deeplab_v2_resnet101": (4, 67, 3, 3, 1),
    "edeconvnet": (5, 20, 3, 3, 3),
    "pydensecrf": (10, 80, 13, 3, 3),
}


def test_presets_are_the_published_table() -> None:
    assert set(PRESETS) == set(TABLE)
    for name, row in TABLE.items():
        crf = DenseCRF.preset(name)
        assert row == (
            crf.bilateral_weight,
            crf.bilateral_width_px,
            crf.bilateral_width_levels,
            crf.position_weight,
            crf.position_width_px,
        )
        assert crf.iterations == 10
        assert crf.normalization == ("symmetric" if name == "pydensecrf" else "after")


def test_a_preset_takes_changes_and_names_its_choices() -> None:
    assert DenseCRF.preset("edeconvnet", iterations=5).iterations == 5
    assert DenseCRF.preset("edeconvnet", iterations=5).bilateral_width_px == 20
    with pytest.raises(ValueError, match=r"called 'deeplab'; choose from deeplab_v1, .*pydensecrf"):
        DenseCRF.preset("deeplab")


# The probabilities and the answer are 2.9 GB each; the rest works at 1280x960 or on one map.
PEAK_MB = 8000


def test_a_12_megapixel_photo_with_60_classes_fits_in_memory() -> None:
    code = """
import resource
import subprocess
import sys

import numpy as np
from segment.crf import DenseCRF
generator = np.random.default_rng(0)
image = np.kron(
    generator.integers(0, 256, (30, 40, 3), dtype=np.uint8), np.ones((100, 100, 1), np.uint8)
)
refined = DenseCRF(iterations=1)(image, np.full((61, 3000, 4000), 1 / 61, np.float32))
assert refined.shape == (61, 3000, 4000)
assert abs(refined.sum(dim=0) - 1).max() < 1e-5
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(f"peak: {int(done.stdout)} MiB")  # README's figure
    assert int(done.stdout) < PEAK_MB, done.stdout


# Many photos


@pytest.mark.parametrize("backend", ["native", "pydensecrf"])
def test_map_gives_the_same_two_at_a_time_in_order_and_reads_no_further_than_needed(
    backend,
) -> None:
    crf = DenseCRF(iterations=2, backend=backend)
    pairs = [example(seed, height=60 if seed == 0 else 12) for seed in range(7)]  # first is slowest
    read = []

    def photos():
        for n, pair in enumerate(pairs):
            read.append(n)
            yield pair

    inline = list(crf.map(pairs, workers=0))
    results = crf.map(photos(), workers=2)
    first = next(results)
    assert len(read) == 4
    parallel = [first, *results]
    assert len(parallel) == len(inline) == 7
    assert all(torch.equal(a, b) for a, b in zip(parallel, inline, strict=True))


def test_map_inline_reads_one_at_a_time_and_refuses_negative_workers() -> None:
    source = iter([example(0), example(1)])
    assert next(DenseCRF(iterations=1).map(source, workers=0)).shape == (3, 12, 9)
    assert len(list(source)) == 1
    with pytest.raises(ValueError, match=r"workers is -1; make it a whole number, 0 or more"):
        DenseCRF().map([], workers=-1)


# Classes that keep their pixels, widths that follow the photo


def test_a_kept_class_keeps_its_pixels_and_gets_no_others() -> None:
    image, p = example(5, height=40)
    free, kept = DenseCRF(), DenseCRF(keep_classes=[1])
    raw, refined, gated = p.argmax(0), free(image, p).argmax(0).numpy(), kept(image, p)
    assert ((refined == 1) != (raw == 1)).any()  # left alone, it would change
    labels = gated.argmax(0).numpy()
    assert np.array_equal(labels == 1, raw == 1)
    touched = (raw == 1) | (refined == 1)
    assert np.array_equal(labels[~touched], refined[~touched])
    torch.testing.assert_close(gated.sum(0), torch.ones(40, 9))
    with pytest.raises(ValueError, match="names train id 3, but there are 3 classes"):
        DenseCRF(keep_classes=[3])(image, p)


def test_a_kept_class_keeps_its_pixels_of_a_photo_above_max_side() -> None:
    image, p = example(5, height=40)
    free, kept = DenseCRF(max_side=20), DenseCRF(max_side=20, keep_classes=[1])
    raw = p.argmax(0)
    assert ((free(image, p).argmax(0).numpy() == 1) != (raw == 1)).any()
    assert np.array_equal(kept(image, p).argmax(0).numpy() == 1, raw == 1)


def test_costs_beyond_a_float_s_sums_are_refused() -> None:
    for costs in ([[0.0, 1e39], [1e39, 0.0]], 5):
        with pytest.raises(ValueError, match=r"compatibility is .*none beyond 1e20"):
            DenseCRF(compatibility=costs)
    with pytest.raises(ValueError, match="keep_classes is 5; make it a list"):
        DenseCRF(keep_classes=5)


def test_widths_follow_the_photo_s_size() -> None:
    image, p = example(6, height=40)  # 40x9: the longer side is 40
    fields = {"position_width_px": 2.0, "bilateral_width_px": 10.0}
    twice = {name: 2 * width for name, width in fields.items()}
    followed = DenseCRF(**fields, reference_size=20)(image, p)
    assert torch.equal(followed, DenseCRF(**twice)(image, p))
    assert not torch.equal(followed, DenseCRF(**fields)(image, p))
    # Reduced to half by max_side, the widths are those of a photo of 20 pixels.
    small = DenseCRF(**fields, reference_size=20, max_side=20)
    assert small.at_working_size(40, 9) == DenseCRF(**fields, max_side=20)


@pytest.mark.parametrize("backend", ["native", "pydensecrf", "torch", "exact"])
def test_classes_that_are_nowhere_are_left_out(backend) -> None:
    image, p = example(7, classes=3, height=30)
    many = np.concatenate([p[:1], np.full((4, 30, 9), 1e-4, np.float32), p[1:]])
    many /= many.sum(0)
    matrix = (1 - np.eye(7)).tolist()
    matrix[0][6] = matrix[6][0] = 3.0  # between two classes that stay
    crf = DenseCRF(backend=backend, compatibility=matrix)
    every = crf(image, many)
    few = replace(crf, leave_out_below=0.01)(image, many)
    assert (few[1:5] == 0).all()
    torch.testing.assert_close(few.sum(0), torch.ones(30, 9))
    assert torch.equal(few.argmax(0), every.argmax(0))
    torch.testing.assert_close(few, every, atol=0.01, rtol=0)
    three = [[matrix[a][b] for b in (0, 5, 6)] for a in (0, 5, 6)]
    alone = DenseCRF(backend=backend, compatibility=three)(image, p)
    torch.testing.assert_close(few[[0, 5, 6]], alone, atol=1e-4, rtol=0)
