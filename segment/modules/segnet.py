"""SegNet and SegNet-Basic: how their paper trains them.

Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation", PAMI 2017, https://arxiv.org/abs/1511.00561

Differs from the paper: no dropout in the deeper blocks, as released; BN statistics are counted over
the training crops instead of whole photos; `class_weights: median_frequency` divides by the pixels
of the photos that show the class (Eigen and Fergus), not by those of all photos.
"""

from typing import Any

from segment.architectures import SegNet, SegNetBasic
from segment.modules.batch_norm import RecomputedBatchNorm
from segment.modules.optimization import Schedule


class SegNetModule(RecomputedBatchNorm):
    """SegNet as in section 4 of its paper: SGD at a fixed 1e-3, momentum 0.9.

    Args:
        num_classes: Number of classes C, background included.
        pretrained: ImageNet weights of the encoder: true (a download of VGG-16), false, or a path.
        width: Channels of the first convolution; 64 in the paper.
        recompute_batch_norm: Count BN's statistics over the training set before each validation.
        lr: Learning rate.
        schedule: See `SegmentationModule`.
        training: See `SegmentationModule`; the paper balances classes with `class_weights`.
    """

    def __init__(
        self,
        num_classes: int,
        pretrained: bool | str = True,
        width: int = 64,
        recompute_batch_norm: bool = True,
        lr: float = 1e-3,
        schedule: Schedule = "constant",
        **training: Any,
    ) -> None:
        super().__init__(num_classes, lr=lr, schedule=schedule, **training)
        self.save_hyperparameters()
        self.use_recomputed_batch_norm(recompute_batch_norm)
        self.wrap(SegNet(num_classes, pretrained=pretrained, width=width))


class SegNetBasicModule(RecomputedBatchNorm):
    """SegNet-Basic as in its paper: from scratch, SGD at a fixed 0.1, momentum 0.9.

    Args:
        num_classes: Number of classes C, background included.
        width: Channels of every convolution; 64 in the paper.
        recompute_batch_norm: Count BN's statistics over the training set before each validation.
        lr: Learning rate.
        schedule: See `SegmentationModule`.
        training: See `SegmentationModule`; the paper balances classes with `class_weights`.
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 64,
        recompute_batch_norm: bool = True,
        lr: float = 0.1,
        schedule: Schedule = "constant",
        **training: Any,
    ) -> None:
        super().__init__(num_classes, lr=lr, schedule=schedule, **training)
        self.save_hyperparameters()
        self.use_recomputed_batch_norm(recompute_batch_norm)
        self.wrap(SegNetBasic(num_classes, width=width))
