"""Semantic FPN: how its paper trains it.

Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, https://arxiv.org/abs/1901.02446

Differs from the paper: the rate falls as a polynomial, where the paper drops it by ten twice; crops
are square; no colour changes and no class balancing unless configured.
"""

from typing import Any

from segment.architectures import SemanticFPN
from segment.modules.base import SegmentationModule


class SemanticFPNModule(SegmentationModule):
    """Semantic FPN as on Cityscapes: SGD at 0.01, the backbone's BN frozen, loss at full size.

    Args:
        num_classes: Number of classes C, background included.
        backbone: `resnet50`, `resnet101`, or any timm model with features of strides 4 to 32.
        width: Channels of the pyramid; the head has half as many. A multiple of 64.
        pretrained: ImageNet weights: true (an installed package or a download), false, or a path.
        lr: Learning rate of all layers.
        weight_decay: L2 penalty.
        freeze_batch_norm: Keep the backbone's BN as it is; the head has group normalization, so a
            batch of one trains.
        training: See `SegmentationModule`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        width: int = 256,
        pretrained: bool | str = True,
        lr: float = 0.01,
        weight_decay: float = 1e-4,
        freeze_batch_norm: bool = True,
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes,
            lr=lr,
            weight_decay=weight_decay,
            freeze_batch_norm=freeze_batch_norm,
            **training,
        )
        self.save_hyperparameters()
        self.wrap(SemanticFPN(num_classes, backbone=backbone, width=width, pretrained=pretrained))
