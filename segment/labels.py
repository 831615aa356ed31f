"""Probabilities at the network's size -> labels at the photo's, on any device."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

STRIP_ROWS = 256  # rows of the photo whose probabilities exist at full size at one time


class Labels(NamedTuple):
    """Train ids uint8 (H, W) and the probability of each, float32 (H, W)."""

    ids: Tensor
    confidence: Tensor


def labels_of(probabilities: Tensor, size: tuple[int, int]) -> Labels:
    """The most probable class per pixel of the photo.

    Probabilities are upsampled bilinearly in strips, so that a 12-megapixel photo with 60 classes
    never exists as (C, H, W), which would be 2.9 GB.

    Args:
        probabilities: Float32 (C, h, w), C at most 255.
        size: Height and width of the photo in pixels.
    """
    height, width = size
    rows, device = probabilities.shape[1], probabilities.device
    ids = torch.empty(size, dtype=torch.uint8, device=device)
    confidence = torch.empty(size, dtype=torch.float32, device=device)
    # Half-pixel coordinates, as F.interpolate(align_corners=False) has them.
    centres = (torch.arange(height, device=device) + 0.5) * rows / height - 0.5
    centres = centres.clamp(0, rows - 1)
    above = centres.floor().long()
    below = (above + 1).clamp(max=rows - 1)
    part = (centres - above)[:, None]
    for start in range(0, height, STRIP_ROWS):
        strip = slice(start, min(start + STRIP_ROWS, height))
        if rows == height:
            band = probabilities[:, strip]
        else:
            upper, lower = probabilities[:, above[strip]], probabilities[:, below[strip]]
            band = torch.lerp(upper, lower, part[strip])
        if probabilities.shape[2] != width:
            band = F.interpolate(band[None], (band.shape[1], width), mode="bilinear")[0]
        best, index = band.max(0)
        ids[strip], confidence[strip] = index.to(torch.uint8), best
    return Labels(ids, confidence)


def with_kept(raw: Labels, refined: Labels, keep_classes: Sequence[int] | None) -> Labels:
    """Refined labels, but raw ones where either is of a class that is kept (`DenseCRF`).

    At the photo's own size, to which refined probabilities were resized.
    """
    if not keep_classes:
        return refined
    classes = torch.tensor(keep_classes, device=raw.ids.device)
    kept = torch.isin(raw.ids, classes) | torch.isin(refined.ids, classes)
    return Labels(*(torch.where(kept, own, new) for own, new in zip(raw, refined, strict=True)))
