"""Numbers worked by hand, and laws the mean field obeys whatever the numbers are."""

import numpy as np
import pytest
import torch

from segment.crf import DenseCRF
from segment.crf.exact import gaussian

POSITION_ONLY = {
    "iterations": 1,
    "position_width_px": 1.0,
    "position_weight": 1.0,
    "bilateral_weight": 0.0,
    "backend": "exact",
}


def row(*first_class: float) -> np.ndarray:
    """Probabilities (2, 1, W) of one row of pixels."""
    p = np.array(first_class)
    return np.stack([p, 1 - p])[:, None]


def example(seed: int, classes: int = 3, height: int = 8, width: int = 11):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.stack([20 * x, 25 * y, 90 + x - y], -1) + rng.integers(0, 8, (height, width, 3))
    p = rng.dirichlet(np.ones(classes), (height, width)).transpose(2, 0, 1)
    return image.clip(0, 255).astype(np.uint8), p.astype(np.float32)


# Two pixels side by side, P(class 0) = 0.8 and 0.4, width 1 px: k = exp(-1/2) = 0.606531 between
# them and 1 to itself, so n = 1.606531 for both and every normalization divides by it:
#   weights 1/n = 0.622459 (itself), k/n = 0.377541 (the other).
#   pixel 0: (KQ)_0 = 0.622459*0.8 + 0.377541*0.4 = 0.648984, (KQ)_1 = 1 - that, difference 0.297967
#     log(0.8/0.2) + 0.297967 = 1.684261, Q = 1/(1 + exp(-1.684261)) = 0.843468
#   pixel 1: 0.377541*0.8 + 0.622459*0.4 = 0.551016, difference 0.102033
#     log(0.4/0.6) + 0.102033 = -0.303432, Q = 0.424719
# Unscaled: (KQ)_0 = 0.8 + 0.606531*0.4 = 1.042612, (KQ)_1 = 0.2 + 0.606531*0.6 = 0.563919,
#     1.386294 + 0.478694 = 1.864988, Q = 0.865877
@pytest.mark.parametrize("normalization", ["symmetric", "after", "before"])
def test_two_pixels_by_hand(normalization) -> None:
    crf = DenseCRF(**POSITION_ONLY, normalization=normalization)
    q = crf(np.zeros((1, 2, 3), np.uint8), row(0.8, 0.4))
    assert q[0, 0].tolist() == pytest.approx([0.843468, 0.424719], abs=3e-6)


def test_two_pixels_by_hand_without_normalization() -> None:
    crf = DenseCRF(**POSITION_ONLY, normalization="none")
    q = crf(np.zeros((1, 2, 3), np.uint8), row(0.8, 0.4))
    assert q[0, 0, 0].item() == pytest.approx(0.865877, abs=3e-6)


# Three pixels, P(class 0) = 0.8, 0.4, 0.8: k = exp(-1/2) = 0.606531, exp(-4/2) = 0.135335, so
# n = 1.741866 at the ends, 2.213061 in the middle, sqrt of their product 1.963379. The middle:
#   after:     ((KQ)_0, (KQ)_1) = (2*k*0.8 + 0.4, 2*k*0.2 + 0.6) / 2.213061 = (0.619256, 0.380744)
#   symmetric: (0.970449/1.963379 + 0.4/2.213061, 0.242612/1.963379 + 0.6/2.213061)
#              = (0.675020, 0.394687)
#   before:    (0.970449/1.741866 + 0.180745, 0.242612/1.741866 + 0.271118) = (0.737877, 0.410401)
# and Q = 1/(1 + exp(0.405465 - difference)).
@pytest.mark.parametrize(
    ("normalization", "middle"),
    [("after", 0.458358), ("symmetric", 0.468758), ("before", 0.480513)],
)
def test_three_pixels_by_hand_tell_the_normalizations_apart(normalization, middle) -> None:
    crf = DenseCRF(**POSITION_ONLY, normalization=normalization)
    q = crf(np.zeros((1, 3, 3), np.uint8), row(0.8, 0.4, 0.8))
    assert q[0, 0, 1].item() == pytest.approx(middle, abs=3e-6)


def test_two_colours_by_hand() -> None:
    # 1 px apart at width 2 px and 13 levels of red apart at width 13: k = exp(-1/8 - 1/2) =
    # 0.535261, n = 1.535261; pixel 0 gets (0.8 + k*0.4)/n = 0.660542, difference 0.321084,
    # 1.386294 + 2 * 0.321084 = 2.028462, Q = 0.883753.
    image = np.array([[[100, 50, 50], [113, 50, 50]]], np.uint8)
    crf = DenseCRF(
        iterations=1,
        position_weight=0,
        bilateral_width_px=2,
        bilateral_width_levels=13,
        bilateral_weight=2,
        backend="exact",
    )
    assert crf(image, row(0.8, 0.4))[0, 0, 0].item() == pytest.approx(0.883753, abs=3e-6)


def test_constant_photo_makes_the_bilateral_kernel_a_spatial_gaussian() -> None:
    _, p = example(0)
    flat = np.full((8, 11, 3), 77, np.uint8)
    spatial = DenseCRF(
        position_width_px=4, position_weight=2, bilateral_weight=0, backend="exact", iterations=3
    )
    bilateral = DenseCRF(
        bilateral_width_px=4, bilateral_weight=2, position_weight=0, backend="exact", iterations=3
    )
    torch.testing.assert_close(bilateral(flat, p), spatial(flat, p))
    assert (bilateral(example(0)[0], p) - spatial(flat, p)).abs().max() > 0.01


@pytest.mark.parametrize("axis", [0, 1])
def test_mirroring_commutes(axis) -> None:
    image, p = example(1)
    crf = DenseCRF(backend="exact", iterations=3, bilateral_width_px=5, bilateral_weight=2)
    mirrored = crf(np.flip(image, axis), np.flip(p, axis + 1))
    torch.testing.assert_close(mirrored, crf(image, p).flip(axis + 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalization", ["symmetric", "after", "before", "none"])
def test_rewarding_a_label_equals_penalising_the_others(normalization) -> None:
    image, p = example(2)
    crf = {"backend": "exact", "normalization": normalization, "bilateral_weight": 1.0}
    penalise = DenseCRF(**crf, compatibility=(1 - np.eye(3)).tolist())(image, p)
    reward = DenseCRF(**crf, compatibility=(-np.eye(3)).tolist())(image, p)
    torch.testing.assert_close(reward, penalise, atol=1e-5, rtol=0)


# A 10x10, 3-class example at 3 px and weight 3 was measured to move by 0.026 and 0.055.
def test_normalization_matters_as_much_as_measured() -> None:
    _, p = example(3, height=10, width=10)
    flat = np.zeros((10, 10, 3), np.uint8)
    crf = DenseCRF(bilateral_weight=0, iterations=5, backend="exact")
    symmetric, after = crf(flat, p), DenseCRF(**{**vars(crf), "normalization": "after"})(flat, p)
    assert 0.01 < (symmetric - after).abs().max() < 0.2


def test_normalizations_coincide_where_every_pixel_has_the_same_neighbours() -> None:
    _, p = example(4, height=17, width=17)
    flat = np.zeros((17, 17, 3), np.uint8)
    q = {
        how: DenseCRF(
            iterations=1,
            position_width_px=1,
            bilateral_weight=0,
            normalization=how,
            backend="exact",
        )(flat, p)
        for how in ("symmetric", "after")
    }
    off = (q["symmetric"] - q["after"]).abs().amax(0)
    assert off[8, 8] < 1e-5  # 8 widths from the border, its neighbours as well
    assert off[0].max() > 1e-3


def test_kernel_counts_the_pixel_itself() -> None:
    assert gaussian(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == pytest.approx(
        np.array([[1, np.exp(-12.5)], [np.exp(-12.5), 1]])
    )


def test_refuses_a_photo_whose_pairs_would_not_fit_in_memory() -> None:
    p = np.full((2, 100, 101), 0.5, np.float32)
    with pytest.raises(ValueError, match=r"100x101 pixels would take 1 GB.*`native`"):
        DenseCRF(backend="exact")(np.zeros((100, 101, 3), np.uint8), p)
