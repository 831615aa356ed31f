"""Losses over labelled pixels; 255 in a mask is no label."""

import torch
from torch import Tensor
from torch.nn import functional as F

from segment.data.taxonomy import IGNORE


def cross_entropy(logits: Tensor, mask: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over labelled pixels; 0 where a batch has none.

    Args:
        logits: Float (N, C, H, W).
        mask: int64 (N, H, W), 255 where unlabelled.
        weight: Of each class, float (C,); None weighs all alike.
    """
    total = F.cross_entropy(
        logits.float(), mask, weight=weight, ignore_index=IGNORE, reduction="sum"
    )
    labelled = mask != IGNORE
    # PyTorch's own mean is NaN for a crop without any label, and NaN ends a training.
    count = labelled.sum() if weight is None else weight[mask[labelled]].sum()
    return total / count.clamp(min=torch.finfo(torch.float32).tiny)
