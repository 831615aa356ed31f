"""U-Net.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, https://arxiv.org/abs/1505.04597

Differs from the paper: photos have three channels; as in the released network, and not in the text,
features double in size by a transposed convolution and dropout comes before the skip of its level;
tiles overlap by 4 pixels, without which pooling cells of neighbouring tiles do not coincide and
tiles give other scores than one pass. `padded`, `batch_norm` and `backbone` are no part of it;
`release` is what its authors published, but for the weights' start, which is the paper's.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from segment.architectures.backbones import TimmBackbone, check_known
from segment.architectures.layers import SegmentationNetwork, check_positive, zero_biases
from segment.architectures.patch_cnn import mirror_pad

MARGIN = 92  # pixels that unpadded convolutions take off each side: 572 in, 388 out, figure 1


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each with a ReLU; float (N, in_channels, H, W) to (N, channels, h, w).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        padding: 1 keeps height and width, 0 takes 2 pixels off each side.
        batch_norm: Whether batch normalization replaces the biases.
        dropout: Probability with which an output is dropped.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        padding: int,
        batch_norm: bool,
        dropout: float = 0.0,
    ) -> None:
        layers: list[nn.Module] = []
        for before in (in_channels, channels):
            layers.append(nn.Conv2d(before, channels, 3, padding=padding, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


class UNet(SegmentationNetwork):
    """Levels down, each at half the size, and levels up, each seeing its twin on the way down.

    Args:
        num_classes: Number of classes C, background included.
        padded: Whether convolutions pad, so that a photo of 16k pixels is scored as it is. Else, as
            in the paper, 92 pixels are lost on each side, and photos are mirrored there beforehand.
        batch_norm: Whether batch normalization replaces the biases of 3x3 convolutions.
        width: Channels of the first level; every level down doubles them.
        backbone: None for the paper's encoder, or a timm name, whose features at strides 4 to 32
            follow two levels of U-Net's own; only `padded`.
        pretrained: Weights of the backbone: False, True for ImageNet's, or the path of a file.
        release: Whether, as in the released network, transposed convolutions have a ReLU, and the
            last of them gives as many channels as the level below has.

    Raises:
        ValueError: The choices exclude each other, `num_classes` or `width` is below 1, or
            there is no such backbone.
    """

    def __init__(
        self,
        num_classes: int,
        padded: bool = False,
        batch_norm: bool = False,
        width: int = 64,
        backbone: str | None = None,
        pretrained: bool | str = False,
        release: bool = False,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        if backbone is None and pretrained:
            raise ValueError(
                "U-Net's own encoder has no pretrained weights; set pretrained to false, or name a "
                "timm backbone."
            )
        if backbone is not None:
            check_known(backbone)
        if backbone is not None and not padded:
            raise ValueError(f"the backbone {backbone} pads its convolutions; set padded to true.")
        self.padded, self.release = padded, release
        corners = False
        self.backbone: TimmBackbone | None = None
        if backbone is None:
            widths = [width * 2**level for level in range(5)]  # 64 to 1024, figure 1
            own = encoder = widths
        else:
            self.backbone = TimmBackbone(backbone, 32, pretrained, finer=(4, 8, 16))
            self.mean, self.std = self.backbone.mean, self.backbone.std
            corners = self.backbone.alignment != "half_pixel"
            widths = [width * 2**level for level in range(6)]
            own = widths[:2]
            encoder = [*own, *self.backbone.finer_channels, self.backbone.channels]
            self.head_names = ("down", "up", "fuse", "score")
        padding = int(padded)
        self.down = nn.ModuleList(
            # Dropout "at the end of the contracting path": the release has it on two levels.
            DoubleConv(a, b, padding, batch_norm, dropout=0.5 if level >= 3 and not padded else 0.0)
            for level, (a, b) in enumerate(pairwise([3, *own]))
        )
        # On corner pixels cells lie where 3x3 kernels put them, else where 2x2 kernels do.
        self.pool = nn.MaxPool2d(3, 2, padding=1) if corners else nn.MaxPool2d(2)
        kernel = (3, 2, 1) if corners else (2, 2, 0)
        below = [*widths[1:-1], encoder[-1]]
        doubled = [width * 2 if release else width, *widths[1:-1]]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, *kernel) for a, b in zip(doubled, below, strict=True)
        )
        self.fuse = nn.ModuleList(
            DoubleConv(skip + up, a, padding, batch_norm)
            for skip, up, a in zip(encoder[:-1], doubled, widths[:-1], strict=True)
        )
        self.score = nn.Conv2d(width, num_classes, 1)
        self.score_names = ("score",)
        self._set_sizes(corners, batch_norm)
        for part in (self.down, self.up, self.fuse, self.score):
            zero_biases(part.modules())
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    _he_normal(layer)

    def _set_sizes(self, corners: bool, batch_norm: bool) -> None:
        if self.backbone is not None:
            self.unit, self.remainder = 32, int(corners)
            self.least = 32 + self.remainder
        elif self.padded:
            # Batch normalization cannot train on a single cell, which 16 pixels end as.
            self.unit, self.least = 16, 32 if batch_norm else 16

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W); any size, if `padded` a `valid_size`.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: `padded`, and (H, W) is not a `valid_size`.
        """
        if self.padded:
            self.check_size(image)
            return self._score(image)
        height, width = image.shape[-2:]
        # 16k + 12 pixels from 92 before the photo to at least 92 behind it
        below, right = (_inside_length(n) - n - MARGIN for n in (height, width))
        logits = self.score_inside(mirror_pad(image, MARGIN, below, MARGIN, right))
        return logits[..., :height, :width]

    def score_inside(self, image: Tensor) -> Tensor:
        """Score the pixels whose whole surroundings are seen: row and column p + 92 at p.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W are 16k + 12 pixels, 188 or more.

        Returns:
            Logits, float (N, C, H - 184, W - 184).

        Raises:
            ValueError: The network is `padded`, or (H, W) is another size.
        """
        self._check_unpadded()
        height, width = image.shape[-2:]
        if any(n < 188 or n % 16 != 12 for n in (height, width)):
            raise ValueError(
                f"U-Net without padding takes heights and widths of 16k + 12 from 188 on; got "
                f"{height}x{width}."
            )
        return self._score(image)

    def score_in_tiles(self, image: Tensor, tile: int = 388) -> Tensor:
        """Score every pixel as `forward` does, one tile after the other (figure 2).

        Args:
            image: Normalized RGB, float (N, 3, H, W) of any size.
            tile: Side of a tile's scores: 16k + 4 pixels, 20 or more. It sees 92 more on each side.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: The network is `padded`, or `tile` is another size.
        """
        self._check_unpadded()
        if tile < 20 or tile % 16 != 4:
            raise ValueError(f"tile is {tile}; it can be 16k + 4 pixels from 20 on, 388 say.")
        height, width = image.shape[-2:]
        step = tile - 4  # a multiple of 16, so that pooling cells lie as in one pass
        tops, lefts = range(0, height, step), range(0, width, step)
        below, right = tops[-1] + tile - height, lefts[-1] + tile - width
        surroundings = mirror_pad(image, MARGIN, below + MARGIN, MARGIN, right + MARGIN)
        seen = tile + 2 * MARGIN
        logits = []
        for top in tops:
            row = [
                self._score(surroundings[..., top : top + seen, left : left + seen])[..., :step]
                for left in lefts
            ]
            logits.append(torch.cat(row, dim=-1)[..., :step, :])
        return torch.cat(logits, dim=-2)[..., :height, :width]

    def _check_unpadded(self) -> None:
        if self.padded:
            raise ValueError(
                "a padded U-Net scores whole photos only; set padded to false for tiles."
            )

    def _score(self, image: Tensor) -> Tensor:
        levels = [self.down[0](image)]
        for block in self.down[1:]:
            levels.append(block(self.pool(levels[-1])))
        if self.backbone is not None:
            levels += self.backbone.pyramid(image)
        x = levels.pop()
        for up, fuse, skip in zip(self.up[::-1], self.fuse[::-1], levels[::-1], strict=True):
            x = up(x).relu() if self.release else up(x)
            x = fuse(torch.cat([_centre(skip, x), x], dim=1))
        return self.score(x)


def _inside_length(length: int) -> int:
    """The least 16k + 12 whose inside holds `length` pixels."""
    return math.ceil((length + 2 * MARGIN - 12) / 16) * 16 + 12


def _centre(skip: Tensor, like: Tensor) -> Tensor:
    """The middle of `skip`, as large as `like`: 4, 16, 40 and 88 pixels go on each side."""
    height, width = like.shape[-2:]
    top, left = (skip.shape[-2] - height) // 2, (skip.shape[-1] - width) // 2
    return skip[..., top : top + height, left : left + width]


def _he_normal(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Draw weights with standard deviation sqrt(2 / N), N the inputs of one output (section 3)."""
    inputs = layer.in_channels * math.prod(layer.kernel_size)
    if isinstance(layer, nn.ConvTranspose2d):
        inputs //= math.prod(layer.stride)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
