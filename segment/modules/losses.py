"""Losses over labelled pixels; 255 in a mask is no label."""

import math

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


def weights_of(class_weights: list[float] | None, num_classes: int) -> Tensor | None:
    """Class weights as configured, float (C,).

    Raises:
        ValueError: There are not C of them, or they are no weights.
    """
    if class_weights is None:
        return None
    if len(class_weights) != num_classes:
        raise ValueError(
            f"model.class_weights has {len(class_weights)} numbers for {num_classes} classes; "
            f"give one per class, background included."
        )
    if not all(0 <= weight < math.inf for weight in class_weights) or not any(class_weights):
        raise ValueError(
            f"model.class_weights is {class_weights}; give finite numbers, 0 or more, and at least "
            f"one above 0."
        )
    return torch.tensor(class_weights)
