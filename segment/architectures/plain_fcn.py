"""Fully convolutional networks that never downsample: a plain stack, and a dilated one.

The plain stack is nobody's: what a fully convolutional network is before any trick. The other is
the basic context module of Yu and Koltun, "Multi-Scale Context Aggregation by Dilated
Convolutions", ICLR 2016, https://arxiv.org/abs/1511.07122

Differs from the paper: the module sees the photo itself, through a 1x1 convolution to one map per
class, not the scores of another network at stride 8.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from segment.architectures.layers import SegmentationNetwork, check_positive, zero_biases

DILATIONS = (1, 1, 2, 4, 8, 16, 1)  # table 1, of the 3x3 convolutions


class PlainFCN(SegmentationNetwork):
    """3x3 convolutions with a ReLU each, then a 1x1 convolution, all at the photo's own size.

    Args:
        num_classes: Number of classes C, background included.
        variant: "plain", or "context": seven dilated 3x3 convolutions of C maps which, with the
            last, hand on what they are given until they have learnt better.
        depth: Convolutions of the plain stack, 2 or more; a pixel sees 2 * depth - 1 squared.
        width: Channels of the plain stack.

    Raises:
        ValueError: There is no such variant, or none of that depth, width or number of classes.
    """

    def __init__(
        self,
        num_classes: int,
        variant: Literal["plain", "context"] = "plain",
        depth: int = 8,
        width: int = 64,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        if variant not in ("plain", "context"):
            raise ValueError(f"variant is {variant!r}; it can be 'plain' or 'context'.")
        if variant == "context" and (depth, width) != (8, 64):
            raise ValueError(
                "depth and width are for variant 'plain'; 'context' has 8 layers of one map per "
                "class."
            )
        if depth < 2:
            raise ValueError(f"depth is {depth}; give at least 2.")
        self.score: nn.Conv2d | ContextModule
        if variant == "plain":
            self.layers = nn.Sequential()
            for layer in range(depth - 1):
                self.layers.append(nn.Conv2d(width if layer else 3, width, 3, padding=1))
                self.layers.append(nn.ReLU(inplace=True))
            self.score = nn.Conv2d(width, num_classes, 1)
            self.score_names = ("score",)
            drawn = [*self.layers, self.score]
        else:
            # Not negative, so that ReLUs at first change nothing.
            self.layers = nn.Sequential(nn.Conv2d(3, num_classes, 1), nn.ReLU(inplace=True))
            self.score = ContextModule(num_classes)
            self.score_names = ("layers", "score")
            drawn = [*self.layers]
        for module in drawn:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        zero_biases(self.modules())

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W) of any size.

        Returns:
            Logits, float (N, C, H, W).
        """
        return self.score(self.layers(image))


class ContextModule(nn.Sequential):
    """Seven dilated 3x3 convolutions with a ReLU each, and a 1x1 convolution (table 1, basic).

    Float (N, C, H, W) to the same. At first the identity on what is not negative.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        for dilation in DILATIONS:
            layer = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
            self.append(layer)
            self.append(nn.ReLU(inplace=True))
        self.append(nn.Conv2d(channels, channels, 1))
        for module in self:
            if isinstance(module, nn.Conv2d):
                identity(module)
        zero_biases(self)


def identity(layer: nn.Conv2d) -> None:
    """Have every channel hand on itself: centre tap 1, all else 0 (section 3, equation 4)."""
    with torch.no_grad():
        layer.weight.zero_()
        centre = layer.kernel_size[0] // 2
        layer.weight[:, :, centre, centre] = torch.eye(layer.out_channels)
