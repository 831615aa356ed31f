"""Aligned Xception-65, as DeepLab v3+ modifies it.

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017,
https://arxiv.org/abs/1610.02357; Chen et al., "Encoder-Decoder with Atrous Separable Convolution
for Semantic Image Segmentation", ECCV 2018, https://arxiv.org/abs/1802.02611, figure 4

Differs from the paper: as in its release, only the last block has a ReLU behind its depthwise
convolutions, where the paper says that all have. Layers have timm's names, so that weights fit.
"""

from torch import Tensor, nn

from segment.architectures.backbones import Alignment, check_known
from segment.architectures.pretrained import load_timm

# Channels of the three convolutions of each block, and whether the third one strides (figure 4).
ENTRY = [((128, 128, 128), True), ((256, 256, 256), True), ((728, 728, 728), True)]
MIDDLE = [((728, 728, 728), False)] * 16
EXIT = [((728, 1024, 1024), True), ((1536, 1536, 2048), False)]
EPSILON = 1e-3  # the release's, of every norm


class ConvBN(nn.Module):
    """A convolution and batch normalization, with `relu` a ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=EPSILON)
        self.act = nn.ReLU(inplace=True) if relu else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, in_channels, h, w) to (N, out_channels, h', w'), h' = (h - 1)/stride + 1."""
        return self.act(self.bn(self.conv(x)))


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 one across channels, both with BN.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        stride: Of the 3x3 convolution.
        dilation: Of the 3x3 convolution.
        relu: Whether a ReLU follows each norm.
        eps: Of the norms.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        relu: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(
            in_channels,
            in_channels,
            3,
            stride,
            padding=dilation,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        )
        self.bn_dw = nn.BatchNorm2d(in_channels, eps=eps)
        self.act_dw = nn.ReLU(inplace=True) if relu else nn.Identity()
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn_pw = nn.BatchNorm2d(out_channels, eps=eps)
        self.act_pw = nn.ReLU(inplace=True) if relu else nn.Identity()
        for convolution in (self.conv_dw, self.conv_pw):
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, in_channels, h, w) to (N, out_channels, h', w'), h' = (h - 1)/stride + 1."""
        x = self.act_dw(self.bn_dw(self.conv_dw(x)))
        return self.act_pw(self.bn_pw(self.conv_pw(x)))


class Block(nn.Module):
    """Three separable convolutions, each behind a ReLU, and a shortcut around them.

    Args:
        in_channels: Channels that come in.
        widths: Channels of the three convolutions.
        stride: Of the third convolution.
        dilation: Of all three.
        last: Whether this is the last block, with ReLUs inside its convolutions and no shortcut.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, int, int],
        stride: int,
        dilation: int,
        last: bool = False,
    ) -> None:
        super().__init__()
        self.residual = not last
        self.relu = nn.Identity() if last else nn.ReLU()  # not in place: others look at its input
        self.shortcut = None
        if not last and (stride > 1 or in_channels != widths[-1]):
            self.shortcut = ConvBN(in_channels, widths[-1], 1, stride, relu=False)
        steps = [(in_channels, widths[0], 1), (*widths[:2], 1), (*widths[1:], stride)]
        self.stack = nn.ModuleDict(
            {
                f"conv{i}": SeparableConv(given, made, step, dilation, relu=last, eps=EPSILON)
                for i, (given, made, step) in enumerate(steps, start=1)
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, in_channels, h, w) to (N, widths[-1], h', w'), h' = (h - 1)/stride + 1."""
        return self.rest(x, self.second(x))

    def second(self, x: Tensor) -> Tensor:
        """What the second convolution gives, (N, widths[1], h, w), before the third's ReLU."""
        for name in ("conv1", "conv2"):
            x = self.stack[name](self.relu(x))
        return x

    def rest(self, x: Tensor, second: Tensor) -> Tensor:
        """The block's output for its input `x`, given what `second` made of it."""
        made = self.stack["conv3"](self.relu(second))
        if not self.residual:
            return made
        return made + (x if self.shortcut is None else self.shortcut(x))


class Xception65(nn.Module):
    """Aligned Xception-65 without its classifier, its strides beyond `output_stride` dilations.

    Float (N, 3, H, W) to (N, 2048, H', W'), H' = (H - 1) / output_stride + 1.

    Args:
        output_stride: Pixels of the photo per cell: 8, 16 or 32.
        pretrained: False, True for ImageNet weights, or the path of a file of weights: timm's, or
            those of an earlier run with this backbone.
        name: timm's name of the ImageNet weights; `tf_in1k` are the authors'.

    Raises:
        ValueError: The stride is another, timm has no such name, or no weights are to be had.
    """

    channels = 2048
    finer_channels = (256,)
    alignment: Alignment = "corner"
    remainder = 1
    mean = std = (0.5, 0.5, 0.5)  # x * 2 / 255 - 1, as released

    def __init__(
        self,
        output_stride: int = 16,
        pretrained: bool | str = False,
        name: str = "xception65.tf_in1k",
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {output_stride}; it can be 8, 16 or 32.")
        check_known(name)
        self.output_stride = self.unit = output_stride
        blocks = []
        channels, stride, dilation = 64, 2, 1
        table = [*ENTRY, *MIDDLE, *EXIT]
        for place, (widths, strided) in enumerate(table, start=1):
            step = 2 if strided and stride < output_stride else 1
            blocks.append(Block(channels, widths, step, dilation, last=place == len(table)))
            channels, stride = widths[-1], stride * step
            if strided and step == 1:
                dilation *= 2  # of the blocks after the one that lost its stride
        stem = nn.Sequential(ConvBN(3, 32, 3, stride=2), ConvBN(32, 64, 3))
        self.features = nn.ModuleDict({"stem": stem, "blocks": nn.Sequential(*blocks)})
        if pretrained:
            load_timm(self.features, name, pretrained)

    def forward(self, image: Tensor) -> Tensor:
        """Features, float (N, 2048, H', W'), of a normalized photo, float (N, 3, H, W)."""
        return self.pyramid(image)[-1]

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Features of stride 4, (N, 256, (H - 1)/4 + 1, ...), and those that `forward` gives.

        The finer ones are the second block's before its last convolution and before any ReLU, as
        the release taps them (`entry_flow/block2`).
        """
        x = tap = self.features["stem"](image)
        for place, block in enumerate(self.features["blocks"].children(), start=1):
            assert isinstance(block, Block)
            second = block.second(x)
            x = block.rest(x, second)
            if place == 2:
                tap = second
        return [tap, x]
