"""The textbook's ways back to full size, on one small network.

Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016,
https://arxiv.org/abs/1603.07285; max unpooling from Zeiler and Fergus, "Visualizing and
Understanding Convolutional Networks", ECCV 2014, https://arxiv.org/abs/1311.2901; dilation instead
of downsampling from Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions",
ICLR 2016, https://arxiv.org/abs/1511.07122

Differs from the papers: the network is nobody's; it is small, has no skips, and is the same for
every form, so that forms can be compared.
"""

from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.layers import SegmentationNetwork, check_positive, he_normal, zero_biases

Upsampling = Literal[
    "nearest",
    "bed_of_nails",
    "max_unpooling",
    "transposed_convolution",
    "bilinear",
    "bicubic",
    "dilation",
]


class Block(nn.Sequential):
    """A 3x3 convolution that keeps height and width, BN, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Interpolate(nn.Module):
    """Nearest, bilinear or bicubic, pixels taken as squares (`align_corners=False`)."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Float (N, C, h, w) to (N, C, 2h, 2w)."""
        return F.interpolate(x, scale_factor=2, mode=self.mode)


class BedOfNails(nn.Module):
    """Each value to the top left of its 2x2 pixels, 0 to the other three."""

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Float (N, C, h, w) to (N, C, 2h, 2w)."""
        nails = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        nails[..., ::2, ::2] = x
        return nails


class MaxUnpooling(nn.Module):
    """Each value to where the maximum of its 2x2 pixels was, 0 to the other three."""

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Float (N, C, h, w), and the pool's int64 indices of that shape, to (N, C, 2h, 2w)."""
        return F.max_unpool2d(x, indices, [2, 2])


class TransposedConvolution(nn.Module):
    """A learnt 4x4 kernel of stride 2, which starts as bilinear interpolation.

    Its side is a multiple of its stride, so every pixel has as many taps (no checkerboard).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
        weight = torch.zeros(channels, channels, 4, 4)
        weight[torch.arange(channels), torch.arange(channels)] = taps[:, None] * taps
        self.convolution.weight = nn.Parameter(weight)
        zero_biases([self.convolution])

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Float (N, C, h, w) to (N, C, 2h, 2w)."""
        return self.convolution(x)


class UpsamplingNet(SegmentationNetwork):
    """Three stages that halve the photo, and three that double it by the chosen form.

    Every form has the same 3x3 convolutions. With `dilation` none halves or doubles; a convolution
    dilates by as many pixels as its cells would have been wide.

    `bed_of_nails` puts a cell that is centred on pixel 8k + 3.5 on pixel 8k; the convolutions after
    it may learn to undo the shift. All other forms lie right from the start.

    Args:
        num_classes: Number of classes C, background included.
        upsampling: `nearest`, `bed_of_nails`, `max_unpooling`, `transposed_convolution`,
            `bilinear`, `bicubic` or `dilation`.
        width: Channels of the first stage; each stage down doubles them.

    Raises:
        ValueError: `upsampling` is none of these, or `num_classes` or `width` is below 1.
    """

    score_names = ("score",)
    unit, least = 8, 16

    def __init__(
        self, num_classes: int, upsampling: Upsampling = "nearest", width: int = 32
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        if upsampling not in get_args(Upsampling):
            forms = ", ".join(map(repr, get_args(Upsampling)))
            raise ValueError(f"upsampling is {upsampling!r}; it can be {forms}.")
        self.upsampling = upsampling
        self.pools = upsampling != "dilation"
        if not self.pools:
            self.unit = 1
        # Pixels per cell that each level's convolutions dilate by, where cells stay pixels.
        rates = [1] * 4 if self.pools else [1, 2, 4, 8]
        widths = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(
            nn.Sequential(Block(a, b, rate), Block(b, b, rate))
            for (a, b), rate in zip(pairwise([3, *widths]), rates, strict=False)
        )
        self.pool = nn.MaxPool2d(2, 2, return_indices=True)
        self.middle = Block(widths[-1], widths[-1], rates[-1])
        self.up = nn.ModuleList(_upsampling(upsampling, channels) for channels in widths[::-1])
        # Max unpooling needs as many channels as its pool had.
        self.mix = nn.ModuleList(
            Block(a, b, rate)
            for (a, b), rate in zip(pairwise([*widths[::-1], width]), rates[2::-1], strict=True)
        )
        self.score = nn.Conv2d(width, num_classes, 1)
        he_normal(self.modules())

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W multiples of 8 from 16 on, with
                `dilation` any from 16 on.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: H or W is not of these.
        """
        self.check_size(image)
        x, switches = image, []
        for stage in self.down:
            x = stage(x)
            if self.pools:
                x, indices = self.pool(x)
                switches.append(indices)
        x = self.middle(x)
        for up, mix in zip(self.up, self.mix, strict=True):
            x = mix(up(x, switches.pop()) if self.pools else x)
        return self.score(x)


def _upsampling(form: Upsampling, channels: int) -> nn.Module:
    if form == "transposed_convolution":
        return TransposedConvolution(channels)
    if form == "max_unpooling":
        return MaxUnpooling()
    if form == "bed_of_nails":
        return BedOfNails()
    return nn.Identity() if form == "dilation" else Interpolate(form)
