"""Mean field over all pairs of pixels, in float64: slow, obvious, and what the fast one is held to.

Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011, https://arxiv.org/abs/1210.5644

Differs from the paper, as the released code does: a pixel is also its own neighbour, and the
kernels are normalized.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from segment.crf.dense import DenseCRF

MAX_PIXELS = 10_000  # one kernel matrix is then 0.8 GB, and three are alive at once


def gaussian(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kernel exp(-|f_i - f_j|^2 / 2) between all pairs, (N, N), from features (N, F)."""
    distance = np.zeros((len(features), len(features)))
    for feature in features.T:  # one at a time: (N, N, F) at once would be five times the memory
        distance += (feature[:, None] - feature[None, :]) ** 2
    return np.exp(-distance / 2)


def normalize(kernel: NDArray[np.float64], how: str) -> NDArray[np.float64]:
    """Scale K by n_i = sum_j K_ij: before filtering, after it, half and half, or not at all."""
    n = kernel.sum(axis=1)
    if how == "symmetric":
        return kernel / np.sqrt(n[:, None] * n[None, :])  # D^-1/2 K D^-1/2
    if how == "after":
        return kernel / n[:, None]  # D^-1 K
    if how == "before":
        return kernel / n[None, :]  # K D^-1
    return kernel


def softmax(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the first axis."""
    exp = np.exp(score - score.max(axis=0))
    return exp / exp.sum(axis=0)


def check_size(height: int, width: int) -> None:
    """Refuse a photo, its sides in pixels, whose pairs of pixels memory would not hold.

    Raises:
        ValueError: The photo has more than 10,000 pixels.
    """
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"The exact CRF holds a matrix over all pairs of pixels, and {height}x{width} pixels "
            f"would take {(height * width) ** 2 * 8 / 1e9:.0f} GB for each; use the backend "
            f"`native`, or at most {MAX_PIXELS} pixels (a `max_side` of "
            f"{math.isqrt(MAX_PIXELS)} or less)."
        )


def mean_field(
    photo: NDArray[np.uint8], unary: NDArray[np.float32], crf: DenseCRF
) -> NDArray[np.float64]:
    """Refine one photo.

    Args:
        photo: RGB, uint8 (H, W, 3), 8-bit levels.
        unary: -log of the clipped probabilities, (C, H, W).
        crf: Widths, weights and iterations.

    Returns:
        Probabilities Q, float64 (C, H, W); each pixel sums to 1.

    Raises:
        ValueError: The photo has more than 10,000 pixels.
    """
    classes, height, width = unary.shape
    check_size(height, width)
    y, x = np.divmod(np.arange(height * width), width)
    position = np.stack([x, y], axis=1).astype(np.float64)
    colour = photo.reshape(-1, 3).astype(np.float64)
    smoothness = gaussian(position / crf.position_width_px)
    appearance = gaussian(
        np.hstack(
            [position / crf.bilateral_width_px, colour / crf.bilateral_width_levels],
        )
    )
    k = crf.position_weight * normalize(smoothness, crf.normalization)
    k += crf.bilateral_weight * normalize(appearance, crf.normalization)
    mu = 1 - np.eye(classes) if crf.compatibility is None else np.array(crf.compatibility)

    u = unary.reshape(classes, -1).astype(np.float64)
    q = softmax(-u)
    for _ in range(crf.iterations):
        message = q @ k.T  # message[l, i] = sum_j k[i, j] q[l, j]
        q = softmax(-u - mu @ message)  # algorithm 1 of the paper
    return q.reshape(classes, height, width)
