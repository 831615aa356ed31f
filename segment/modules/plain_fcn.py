"""PlainFCN: how we train it, as no paper says.

Differs from the papers: Yu and Koltun train their context module on top of another network.
"""

from typing import Any, Literal

from segment.architectures import PlainFCN
from segment.modules.base import SegmentationModule
from segment.modules.optimization import OptimizerName


class PlainFCNModule(SegmentationModule):
    """A network that never downsamples, from random weights, its loss at full size.

    Args:
        num_classes: Number of classes C, background included.
        variant: `plain`, a stack of 3x3 convolutions; `context`, with growing dilation.
        depth: Convolutions of the plain stack.
        width: Channels of the plain stack.
        optimizer: Adam, because there are no weights to start from and no norms.
        lr: Learning rate.
        training: See `SegmentationModule`.
    """

    def __init__(
        self,
        num_classes: int,
        variant: Literal["plain", "context"] = "plain",
        depth: int = 8,
        width: int = 64,
        optimizer: OptimizerName = "adam",
        lr: float = 1e-3,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, optimizer=optimizer, lr=lr, **training)
        self.save_hyperparameters()
        self.wrap(PlainFCN(num_classes, variant=variant, depth=depth, width=width))
