"""Mean field in torch: on any device, for batches, with gradient.

Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015,
https://arxiv.org/abs/1502.03240
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segment.crf.guard import check_batch
from segment.crf.permutohedral import Lattice

if TYPE_CHECKING:
    from segment.crf.dense import DenseCRF


class CRFLayer(nn.Module):
    """The dense CRF as a network's last layer, whose weights are learnt with it.

    What is learnt: the weights of both kernels and the compatibility of labels. Widths are fixed.

    Args:
        num_classes: Number of classes C.
        crf: Where learning starts, and what stays: widths, iterations, normalization. `clip`,
            `max_side`, `reference_size` and `keep_classes` are of `DenseCRF` alone: with sure
            scores and its default `clip`, `dense_crf()` gives other probabilities than the layer.

    Raises:
        ValueError: `crf.compatibility` is for another number of classes.
    """

    def __init__(self, num_classes: int, crf: DenseCRF) -> None:
        super().__init__()
        self.crf = crf
        self.position_weight = nn.Parameter(torch.tensor(float(crf.position_weight)))
        self.bilateral_weight = nn.Parameter(torch.tensor(float(crf.bilateral_weight)))
        if crf.compatibility is not None and len(crf.compatibility) != num_classes:
            raise ValueError(
                f"crf: compatibility is for {len(crf.compatibility)} classes but there are "
                f"{num_classes}; give a matrix of {num_classes} x {num_classes}, or none."
            )
        potts = 1 - torch.eye(num_classes)
        given = potts if crf.compatibility is None else torch.tensor(crf.compatibility)
        self.compatibility = nn.Parameter(given.float())

    def forward(self, photos: Tensor, scores: Tensor) -> Tensor:
        """Refine the scores of a batch.

        Args:
            photos: RGB, uint8 (N, 3, H, W).
            scores: Logits, float (N, C, H, W).

        Returns:
            Scores whose softmax is Q, float (N, C, H, W).

        Raises:
            ValueError: The photos are not uint8, or the shapes are not these.
        """
        check_batch(photos, scores, len(self.compatibility))
        mu = ((self.compatibility + self.compatibility.T) / 2).to(scores.dtype)
        weights = self.position_weight, self.bilateral_weight
        return mean_field(photos, scores.log_softmax(1), self.crf, weights, mu)

    @torch.no_grad()
    def clamp_weights(self) -> None:
        """Take kernel weights that a step of the optimizer made negative back to 0."""
        for weight in (self.position_weight, self.bilateral_weight):
            weight.clamp_(min=0)

    def dense_crf(self) -> DenseCRF:
        """What was learnt, for the fast backends and for `crf.yaml`."""
        mu = self.compatibility.detach().double()
        return replace(
            self.crf,
            position_weight=max(0.0, self.position_weight.item()),
            bilateral_weight=max(0.0, self.bilateral_weight.item()),
            compatibility=((mu + mu.T) / 2).tolist(),
        )


def mean_field(
    photos: Tensor,
    scores: Tensor,
    crf: DenseCRF,
    weights: tuple[Tensor | float, Tensor | float] | None = None,
    compatibility: Tensor | None = None,
) -> Tensor:
    """Mean-field steps on a batch, on its own device.

    Args:
        photos: RGB, uint8 (N, 3, H, W), 8-bit levels.
        scores: Log probabilities, float (N, C, H, W).
        crf: Widths, iterations and normalization; weights and compatibility where not given.
        weights: Of the position and the bilateral kernel.
        compatibility: mu, symmetric (C, C).

    Returns:
        Scores whose softmax is Q, float (N, C, H, W); `scores` itself after 0 iterations.
    """
    wide, near = kernels(photos, crf)
    position_weight, bilateral_weight = weights or (crf.position_weight, crf.bilateral_weight)
    if compatibility is None:
        potts = 1 - torch.eye(scores.shape[1], dtype=scores.dtype, device=scores.device)
        given = crf.compatibility
        compatibility = potts if given is None else scores.new_tensor(given)
    refined = scores
    for _ in range(crf.iterations):
        q = refined.softmax(1)
        message = position_weight * near(q) + bilateral_weight * wide(q)
        refined = scores - torch.einsum("ab,nbhw->nahw", compatibility, message)
    return refined


def refine(
    photo: NDArray[np.uint8], unary: NDArray[np.float32], crf: DenseCRF, device: torch.device
) -> NDArray[np.float32]:
    """Refine one photo on a device; arguments and result as in `exact.mean_field`, float32."""
    pixels = torch.tensor(np.ascontiguousarray(photo), device=device).permute(2, 0, 1)[None]
    scores = -torch.from_numpy(unary).to(device)[None]
    with torch.inference_mode():
        return mean_field(pixels, scores, crf)[0].softmax(0).cpu().numpy()


def kernels(photos: Tensor, crf: DenseCRF) -> tuple[Kernel, Kernel]:
    """The bilateral and the position kernel of photos (N, 3, H, W)."""
    n, _, height, width = photos.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=photos.device),
        torch.arange(width, device=photos.device),
        indexing="ij",
    )
    position = torch.stack([x, y], 2).flatten(0, 1).float()
    colour = photos.permute(0, 2, 3, 1).reshape(-1, 3).float() / crf.bilateral_width_levels
    wide = torch.cat([(position / crf.bilateral_width_px).repeat(n, 1), colour], 1)
    return (
        Kernel(wide, n, crf.normalization),
        Kernel(position / crf.position_width_px, 1, crf.normalization),
    )


class Kernel:
    """A normalized Gaussian kernel between all pixels of a photo.

    Args:
        features: In widths, (G * H * W, F).
        groups: G, the number of photos; 1 where it is the same for all photos.
        normalization: See `DenseCRF`.
    """

    def __init__(self, features: Tensor, groups: int, normalization: str) -> None:
        self.groups = groups
        number = torch.arange(groups, device=features.device)
        self.lattice = Lattice(features, number.repeat_interleave(len(features) // groups))
        n = self.lattice.filter(features.new_ones(len(features), 1))
        scale = {"symmetric": n.rsqrt(), "none": torch.ones_like(n)}.get(normalization, 1 / n)
        self.before = scale if normalization in ("symmetric", "before") else None
        self.after = scale if normalization in ("symmetric", "after") else None

    def __call__(self, q: Tensor) -> Tensor:
        """Filter maps, float (N, C, H, W)."""
        n, classes, height, width = q.shape
        # A point's values stand in a row: its classes, and where photos share the kernel, theirs.
        rows = q.reshape(self.groups, n // self.groups * classes, -1).transpose(1, 2).flatten(0, 1)
        if self.before is not None:
            rows = self.before.to(q.dtype) * rows
        rows = self.lattice.filter(rows)
        if self.after is not None:
            rows = self.after.to(q.dtype) * rows
        rows = rows.unflatten(0, (self.groups, height * width)).transpose(1, 2)
        return rows.reshape(n, classes, height, width)
