"""UpsamplingNet: one training recipe for every form, since no paper has the comparison.

Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016,
https://arxiv.org/abs/1603.07285

Differs from the papers: they differ among themselves; forms are only comparable if trained alike.
"""

from typing import Any

from segment.architectures import UpsamplingNet
from segment.architectures.upsampling import Upsampling
from segment.modules.base import SegmentationModule
from segment.modules.optimization import OptimizerName


class UpsamplingNetModule(SegmentationModule):
    """A small network from scratch: AdamW, the rate lowered to 0 by the end.

    Args:
        num_classes: Number of classes C, background included.
        upsampling: How the decoder gets back to full size.
        width: Channels of the first stage.
        optimizer: See `SegmentationModule`.
        lr: Learning rate at the first step.
        weight_decay: See `SegmentationModule`.
        training: See `SegmentationModule`.
    """

    def __init__(
        self,
        num_classes: int,
        upsampling: Upsampling = "nearest",
        width: int = 32,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes, optimizer=optimizer, lr=lr, weight_decay=weight_decay, **training
        )
        self.save_hyperparameters()
        self.wrap(UpsamplingNet(num_classes, upsampling=upsampling, width=width))
