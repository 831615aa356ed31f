"""U-Net: how its paper trains it.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, https://arxiv.org/abs/1505.04597

Differs from the paper: labels stay as they are, while the paper first draws a border of background
between touching cells; the loss is divided by the sum of the weights; the paper names no learning
rate, and not how its w_c balance the classes (`class_weights`); it augments by rotation and shift
too; evaluation does not average over rotated photos.
"""

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segment.architectures.unet import MARGIN, UNet
from segment.data.taxonomy import IGNORE
from segment.modules.base import SegmentationModule
from segment.modules.optimization import Schedule


class UNetModule(SegmentationModule):
    """U-Net as in section 3 of its paper: SGD with momentum 0.99, borders between objects weigh.

    Without padding a crop's outer 92 pixels are surroundings only, and it has 16k + 12 pixels.

    Args:
        num_classes: Number of classes C, background included.
        padded: Convolutions pad, and a crop counts up to its edge.
        batch_norm: Batch normalization after 3x3 convolutions.
        width: Channels of the first level.
        backbone: A timm model as the encoder, only with `padded`; null for the paper's own.
        pretrained: ImageNet weights of the backbone: true, false, or a path.
        border_weight: w0, what a pixel at the borders of two objects weighs on top; 0 weighs none.
        border_sigma: Pixels over which that falls off.
        tile: Side of the tiles in which evaluation scores a large photo, 16k + 4 pixels; null
            scores it at once. Only without padding; scores are the same.
        lr: Learning rate; the paper has none. Momentum 0.99 makes it act like a hundred times that.
        momentum: Momentum of `sgd`, high because a batch is one crop.
        weight_decay: L2 penalty; the paper has none.
        schedule: See `SegmentationModule`; the paper has none.
        release: The decoder of the released network, not the paper's: see `UNet`.
        training: See `SegmentationModule`; `class_weights` are the paper's w_c.
    """

    network: UNet

    def __init__(
        self,
        num_classes: int,
        padded: bool = False,
        batch_norm: bool = False,
        width: int = 64,
        backbone: str | None = None,
        pretrained: bool | str = False,
        border_weight: float = 10.0,
        border_sigma: float = 5.0,
        tile: int | None = None,
        lr: float = 1e-4,
        momentum: float = 0.99,
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
        release: bool = False,
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
        if border_weight < 0 or border_sigma <= 0:
            raise ValueError(
                f"model.border_weight is {border_weight} and model.border_sigma {border_sigma}; "
                f"give 0 or more, and more than 0 pixels."
            )
        if tile is not None and (padded or tile < 20 or tile % 16 != 4):
            raise ValueError(
                f"model.tile is {tile}; give 16k + 4 pixels from 20 on, 388 say, and padded: false."
            )
        self.save_hyperparameters()
        self.border_weight, self.border_sigma, self.tile = border_weight, border_sigma, tile
        self.wants_instances = border_weight > 0
        self.wrap(
            UNet(
                num_classes,
                padded=padded,
                batch_norm=batch_norm,
                width=width,
                backbone=backbone,
                pretrained=pretrained,
                release=release,
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel, where configured in tiles.

        Args:
            image: Photos, uint8 RGB (N, 3, H, W), of any size.

        Returns:
            Logits, float (N, C, H, W).
        """
        if self.tile is None:
            return super().forward(image)
        return self.network.score_in_tiles(self.pad(image), self.tile)

    def loss(self, image: Tensor, mask: Tensor, instances: Tensor | None = None) -> Tensor:
        """Cross-entropy, every pixel's term weighted by w_c and by how near two objects are.

        Raises:
            ValueError: There are no instances to weigh borders between, or, without padding, a
                crop is not 16k + 12 pixels.
        """
        borders = self.border_map(mask, instances)
        if self.network.padded:
            logits = self(image)
        else:
            height, width = mask.shape[-2:]
            if any(n < 188 or n % 16 != 12 for n in (height, width)):
                raise ValueError(
                    f"U-Net without padding trains on crops of 16k + 12 pixels from 188 on; got "
                    f"{height}x{width}; set data.crop_size to 572, say, or padded to true."
                )
            logits = self.network.score_inside(self.pad(image))
            inside = (slice(None), slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
            mask, borders = mask[inside], borders[inside]
        labelled = mask != IGNORE
        classes = torch.where(labelled, mask, 0)
        class_weights = self.class_weights
        balance = 1.0 if class_weights is None else class_weights[classes]
        weight = (balance + borders) * labelled
        terms = F.cross_entropy(logits.float(), classes, reduction="none")
        # A crop without any label has no weight, and no loss.
        return (weight * terms).sum() / weight.sum().clamp(min=torch.finfo(torch.float32).tiny)

    def border_map(self, mask: Tensor, instances: Tensor | None) -> Tensor:
        """What every pixel weighs because it lies between two objects (equation 2).

        Args:
            mask: int64 (N, H, W), 255 where unlabelled.
            instances: int64 (N, H, W), a number per object, read where `mask` shows one.

        Returns:
            w0 * exp(-(d1 + d2)^2 / (2 sigma^2)), float32 (N, H, W), 0 to w0.
        """
        if not self.border_weight:
            return torch.zeros(mask.shape, device=mask.device)
        if instances is None:
            raise ValueError(
                f"model.border_weight is {self.border_weight}, and the batch has no `instances` "
                f"to weigh borders between; set it to 0, or train on TrashDataModule."
            )
        background = 0 if self.taxonomy is None else self.taxonomy.background
        # Crowds, ignored objects and what lies beyond the photo are unlabelled, so no objects.
        shown = mask != IGNORE
        if background is not None:
            shown &= mask != background
        maps = [
            border_weights(numbers, self.border_weight, self.border_sigma)
            for numbers in torch.where(shown, instances, 0).cpu().numpy()
        ]
        return torch.from_numpy(np.stack(maps)).to(mask.device)


def border_weights(instances: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """The second term of equation 2; 0 everywhere where there are not two objects.

    Args:
        instances: Integers (H, W), a number per object, 0 where there is none.
        w0: What a pixel on both borders weighs.
        sigma: Pixels over which that falls off.

    Returns:
        Float32 (H, W), w0 * exp(-(d1 + d2)^2 / (2 sigma^2)), d1 and d2 being pixels to the borders
        of the nearest and second nearest object.
    """
    nearest = np.full(instances.shape, np.inf, np.float32)
    second = nearest.copy()
    for number in set(np.unique(instances).tolist()) - {0}:
        instance = (instances == number).astype(np.uint8)
        # A border pixel has a neighbour outside; beyond the crop's edge the object goes on.
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        border = instance - cv2.erode(instance, cross)
        if not border.any():
            continue  # one object fills the crop
        away = cv2.distanceTransform(1 - border, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        second = np.minimum(second, np.maximum(nearest, away))
        nearest = np.minimum(nearest, away)
    return w0 * np.exp(-((nearest + second) ** 2) / np.float32(2 * sigma**2))
