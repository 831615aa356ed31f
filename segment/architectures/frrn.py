"""FRRN: full-resolution residual networks.

Pohlen, Hermans, Mathias and Leibe, "Full-Resolution Residual Networks for Semantic Segmentation in
Street Scenes", CVPR 2017, https://arxiv.org/abs/1611.08323

Differs from the paper: nothing in the layers, which are those of the released code. Photos are
scaled by ImageNet's mean and standard deviation; `checkpointing` recomputes whole stages, where the
release splits the network by hand.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segment.architectures.layers import SegmentationNetwork, check_positive, zero_biases

# (pooling, units, multiple of the base width) of every stage, down and up again
STAGES = {
    "A": ((2, 3, 2), (4, 4, 4), (8, 2, 8), (16, 2, 8), (8, 2, 4), (4, 2, 4), (2, 2, 2)),
    "B": (
        *((2, 3, 2), (4, 4, 4), (8, 2, 8), (16, 2, 8), (32, 2, 8)),
        *((16, 2, 4), (8, 2, 4), (4, 2, 4), (2, 2, 2)),
    ),
}


class ConvBN(nn.Sequential):
    """A convolution without bias, batch normalization, and unless `relu` is False a ReLU."""

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int, relu: bool = True
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(channels),
            *([nn.ReLU(inplace=True)] if relu else []),
        )


class ResidualUnit(nn.Module):
    """RU: two 3x3 convolutions and a shortcut, nothing after the sum."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(in_channels, channels, 3)
        self.conv2 = ConvBN(channels, channels, 3, relu=False)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, in_channels, H, W) to (N, channels, H, W)."""
        return self.conv2(self.conv1(x)) + self.shortcut(x)


class FullResolutionUnit(nn.Module):
    """FRRU: reads the pooled residual stream z beside y, and adds to z what it found.

    Args:
        in_channels: Channels of y.
        channels: Channels of the new y.
        lanes: Channels of z.
        pooling: Pixels of z per cell of y.
    """

    def __init__(self, in_channels: int, channels: int, lanes: int, pooling: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(pooling)
        self.conv1 = ConvBN(in_channels + lanes, channels, 3)
        self.conv2 = ConvBN(channels, channels, 3)
        self.residual = nn.Conv2d(channels, lanes, 1)
        self.unpool = nn.Upsample(scale_factor=pooling, mode="nearest")

    def forward(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """New y, float (N, channels, H/p, W/p), and z, (N, lanes, H, W), p being the pooling."""
        y = self.conv2(self.conv1(torch.cat([y, self.pool(z)], dim=1)))
        return y, z + self.unpool(self.residual(y))


class Stage(nn.Module):
    """Units at one resolution, behind a change of y's resolution by a factor of two."""

    def __init__(
        self, in_channels: int, channels: int, lanes: int, pooling: int, units: int, up: bool
    ) -> None:
        super().__init__()
        self.resize = upsample() if up else nn.MaxPool2d(2)
        self.units = nn.ModuleList(
            FullResolutionUnit(before, channels, lanes, pooling)
            for before in [in_channels] + [channels] * (units - 1)
        )

    def forward(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """New y, at half or twice the resolution, and z, as large as before."""
        y = self.resize(y)
        for unit in self.units:
            y, z = unit(y, z)
        return y, z


def upsample() -> nn.Upsample:
    """Twice the resolution, bilinearly, as y has it; z goes by the nearest cell."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


class Head(nn.Module):
    """Joins both streams at full resolution: three RUs and the scores."""

    def __init__(self, in_channels: int, lanes: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.resize = upsample()
        self.units = nn.Sequential(
            ResidualUnit(in_channels + lanes, width),
            ResidualUnit(width, width),
            ResidualUnit(width, width),
        )
        self.score = nn.Conv2d(width, num_classes, 1)

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """Logits, float (N, C, H, W)."""
        return self.score(self.units(torch.cat([self.resize(y), z], dim=1)))


class FRRN(SegmentationNetwork):
    """A stream of residuals z at full resolution, and a stream y that is pooled and unpooled.

    Args:
        num_classes: Number of classes C, background included.
        variant: "A", pooled to 1/16, or "B", pooled to 1/32.
        width: Base channels, of which stages have a multiple; z has two thirds of them.
        checkpointing: In training, keep only what passes between stages, and compute the rest
            again for the gradient: less memory, more time, the same gradient.

    Raises:
        ValueError: There is no such variant, `width` is not a multiple of 3, or `num_classes` is
            below 1.
    """

    score_names = ("head.score",)

    def __init__(
        self,
        num_classes: int,
        variant: Literal["A", "B"] = "A",
        width: int = 48,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes)
        if variant not in STAGES:
            raise ValueError(f"variant is {variant!r}; FRRN can be 'A' or 'B'.")
        if width < 3 or width % 3:
            raise ValueError(f"width is {width}; it can be a multiple of 3, 48 in the paper.")
        self.checkpointing = checkpointing
        lanes = width * 2 // 3  # 32 of 48
        self.stem = nn.Sequential(
            ConvBN(3, width, 5), *(ResidualUnit(width, width) for _ in range(3))
        )
        self.split = ConvBN(width, lanes, 1, relu=False)
        self.stages = nn.ModuleList()
        before, last = width, 1
        for pooling, units, multiple in STAGES[variant]:
            channels = multiple * width
            self.stages.append(Stage(before, channels, lanes, pooling, units, up=pooling < last))
            before, last = channels, pooling
        self.head = Head(before, lanes, width, num_classes)
        # Batch normalization cannot train on a single cell, so the coarsest map has four.
        self.unit = max(pooling for pooling, _, _ in STAGES[variant])
        self.least = 2 * self.unit
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        zero_biases(self.modules())

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W multiples of 16 ("A") or 32 ("B")
                pixels, and at least two of them.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: (H, W) is not a `valid_size`.
        """
        self.check_size(image)
        y = self._run(self.stem, image)
        z = self.split(y)
        for stage in self.stages:
            y, z = self._run(stage, y, z)
        return self._run(self.head, y, z)

    def _run(self, part: nn.Module, *streams: Tensor) -> Any:
        if not (self.checkpointing and self.training):
            return part(*streams)
        return checkpoint(
            part,
            *streams,
            use_reentrant=False,
            # The second time the same batch must not count again in the running statistics.
            context_fn=lambda: (nullcontext(), _without_counting(part)),
        )


@contextmanager
def _without_counting(part: nn.Module) -> Iterator[None]:
    """Normalize by the batch, as in training, but leave the running statistics alone."""
    norms = [layer for layer in part.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    counts = [b for name, b in part.named_buffers() if name.endswith("num_batches_tracked")]
    kept = [count.clone() for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for count, value in zip(counts, kept, strict=True):
            count.copy_(value)
