"""DeconvNet: how its paper trains and applies it.

Noh, Hong and Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015,
https://arxiv.org/abs/1505.04366

Differs from the paper: BN's affine maps have the biases' rate; one crop per photo and epoch
instead of one per object; stage 2's crops are random boxes around objects, and inference takes
regular overlapping windows, where the paper has object proposals (edge boxes).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from segment.architectures import DeconvNet
from segment.data.transforms import evaluation_image
from segment.modules.batch_norm import RecomputedBatchNorm
from segment.modules.optimization import Schedule

PATCH = 224  # pixels that the network sees of a window, whatever its size
SMALLEST = 112  # the release skips boxes with a shorter side


class DeconvNetModule(RecomputedBatchNorm):
    """DeconvNet as released: SGD 0.01, a tenth of it every 9000 steps, biases at twice the rate.

    The curriculum is two runs: stage 1 on `data.crop: object`, stage 2 on `data.crop: proposal`,
    with `weights` naming stage 1's checkpoint and a `step_size` of 10000.

    Args:
        num_classes: Number of classes C, background included.
        pretrained: ImageNet weights of the encoder: true (a download of VGG-16), false, or a path.
        width: Channels of the first convolution; 64 in the paper.
        inference: `patches` scores overlapping windows and keeps each pixel's maximum; `whole`
            passes the photo once, at its own size.
        recompute_batch_norm: Count BN's statistics over the training set before each validation.
        lr: Learning rate.
        schedule: See `SegmentationModule`.
        step_size: Steps between the drops of the rate.
        bias_lr_factor: Rate of biases and norms over that of the weights.
        training: See `SegmentationModule`.

    Raises:
        ValueError: `inference` is neither word.
    """

    def __init__(
        self,
        num_classes: int,
        pretrained: bool | str = True,
        width: int = 64,
        inference: Literal["whole", "patches"] = "patches",
        recompute_batch_norm: bool = True,
        lr: float = 0.01,
        schedule: Schedule = "step",
        step_size: int = 9000,
        bias_lr_factor: float = 2.0,
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes,
            lr=lr,
            schedule=schedule,
            step_size=step_size,
            bias_lr_factor=bias_lr_factor,
            **training,
        )
        if inference not in ("whole", "patches"):
            raise ValueError(f"model.inference is {inference!r}; it can be 'whole' or 'patches'.")
        self.save_hyperparameters()
        self.inference = inference
        self.use_recomputed_batch_norm(recompute_batch_norm)
        self.wrap(DeconvNet(num_classes, pretrained=pretrained, width=width))

    def probabilities(self, image: Tensor) -> Tensor:
        """As in `SegmentationModule`; with `patches` from the best score of any window.

        Scores below 0 count as 0, as released; softmax comes after the maximum.
        """
        if self.inference == "whole":
            return super().probabilities(image)
        image = evaluation_image(image, self.short_side)
        return best_scores(self, image, self.num_classes).softmax(1)


def best_scores(score: Callable[[Tensor], Tensor], image: Tensor, num_classes: int) -> Tensor:
    """The best score that any window gives a pixel, and 0 where none is above it.

    Args:
        score: Maps photos, (N, 3, 224, 224) from 0 to 255, to logits (N, C, 224, 224).
        image: Photos, uint8 RGB (N, 3, H, W).
        num_classes: Number of classes C.

    Returns:
        Float32 (N, C, H, W), 0 or more.
    """
    size = image.shape[-2:]
    best = torch.zeros(len(image), num_classes, *size, device=image.device)
    for top, left, height, width in windows(size[0], size[1]):
        rows, columns = slice(top, top + height), slice(left, left + width)
        patch = image[..., rows, columns].float()
        patch = F.interpolate(patch, (PATCH, PATCH), mode="bilinear", antialias=True)
        scores = F.interpolate(score(patch).float(), (height, width), mode="bilinear")
        best[..., rows, columns] = torch.maximum(best[..., rows, columns], scores)
    return best


def windows(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """The whole photo, squares as wide as its shorter side, and squares half as wide.

    Neighbouring squares overlap by half or more.

    Returns:
        Top, left, height and width of each in pixels; squares below 112 pixels are left out.
    """
    found = {(0, 0, height, width): None}  # a dict keeps order and knows what it has
    for side in (min(height, width), min(height, width) // 2):
        if side >= SMALLEST:
            for top in _starts(height, side):
                found.update({(top, left, side, side): None for left in _starts(width, side)})
    return list(found)


def _starts(length: int, side: int) -> list[int]:
    steps = -(-2 * (length - side) // side)
    return [round(step * (length - side) / max(1, steps)) for step in range(steps + 1)]
