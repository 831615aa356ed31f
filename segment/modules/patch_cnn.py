"""Sliding window: how its paper trains a classifier of patches.

Ciresan, Giusti, Gambardella and Schmidhuber, "Deep Neural Networks Segment Neuronal Membranes in
Electron Microscopy Images", NIPS 2012, https://papers.nips.cc/paper/4741

Differs from the paper: a step sees patches of a few crops, not one patch; patches are flipped and
scaled as `data` says, not rotated; probabilities are not calibrated back to the classes' true
frequencies, nor smoothed by a median filter; the learning rate is a choice made here.
"""

from typing import Any

import torch
from torch import Tensor

from segment.architectures import PatchCNN
from segment.architectures.patch_cnn import Mode
from segment.data.taxonomy import IGNORE
from segment.modules.base import SegmentationModule
from segment.modules.optimization import Schedule


class PatchCNNModule(SegmentationModule):
    """A patch classifier trained on sampled pixels, as many of each class.

    Args:
        num_classes: Number of classes C, background included.
        mode: How photos are scored: `naive`, `fully_convolutional`, `shift_and_stitch`, `dense`.
        width: Channels of the convolutions.
        patches: Pixels drawn from a batch of crops for one step.
        lr: Learning rate.
        momentum: Momentum of `sgd`; the paper descends without.
        weight_decay: L2 penalty; the paper has none.
        schedule: See `SegmentationModule`.
        training: See `SegmentationModule`.
    """

    network: PatchCNN

    def __init__(
        self,
        num_classes: int,
        mode: Mode = "dense",
        width: int = 48,
        patches: int = 256,
        lr: float = 1e-2,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            schedule=schedule,
            **training,
        )
        if patches < num_classes:
            raise ValueError(
                f"model.patches is {patches}; give at least one per class, {num_classes}."
            )
        self.save_hyperparameters()
        self.patches = patches
        self.wrap(PatchCNN(num_classes, mode=mode, width=width))

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy over the windows of sampled pixels."""
        photo, row, column = balanced_pixels(mask, self.patches)
        windows = self.network.windows(self.pad(image))[photo, :, row, column]
        logits = self.network.classify(windows)
        return self.cross_entropy(logits[..., None, None], mask[photo, row, column, None, None])


def balanced_pixels(mask: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw as many pixels of every class that a batch shows, with replacement.

    Args:
        mask: int64 (N, H, W), 255 where unlabelled.
        count: Most pixels to draw, at least one per class.

    Returns:
        Photos, rows and columns, int64 (M,) each, M at most `count`. Where nothing is labelled they
        are one unlabelled pixel, which has no loss.
    """
    flat = mask.flatten()
    present = [class_id for class_id in flat.unique().tolist() if class_id != IGNORE]
    drawn = [flat.new_zeros(1)]
    if present:
        drawn = []
        for class_id in present:
            places = (flat == class_id).nonzero()[:, 0]
            draw = torch.randint(len(places), (count // len(present),), device=mask.device)
            drawn.append(places[draw])
    photo, row, column = torch.unravel_index(torch.cat(drawn), mask.shape)
    return photo, row, column
