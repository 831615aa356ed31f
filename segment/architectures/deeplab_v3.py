"""DeepLab v3: features from several fields of view and the whole photo, concatenated.

Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017, https://arxiv.org/abs/1706.05587

Differs from the paper: ResNet strides in its 3x3 convolutions, because torchvision's and timm's
weights were trained so; without multi-grid the first block of a dilated stage therefore keeps the
dilation before it. Image pooling is over the whole photo at any size, where the release pools
windows of the training crop. Dropout of 0.1 is the release's, not the paper's. Scores are upsampled
corner to corner on sizes 16k + 1, so that cells lie on pixels.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.backbones import TimmBackbone
from segment.architectures.layers import SegmentationNetwork, check_positive, zero_biases

RATES = (6, 12, 18)  # section 3.3, at an output stride of 16


class ConvBNReLU(nn.Sequential):
    """A convolution without bias that keeps height and width, batch normalization, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, dilation: int = 1
    ) -> None:
        padding = dilation * (kernel // 2)
        convolution = nn.Conv2d(
            in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False
        )
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        super().__init__(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3, and the photo's mean (figure 5).

    Float (N, channels, h, w) to (N, width, h, w).

    Args:
        channels: Of the features.
        rates: Dilations of the 3x3 branches.
        width: Channels of each branch, and of what comes out.
        conv: Makes a 3x3 branch from its channels in, channels out and `dilation`.
    """

    def __init__(
        self,
        channels: int,
        rates: Sequence[int],
        width: int = 256,
        conv: Callable[..., nn.Module] = ConvBNReLU,
    ) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.point = ConvBNReLU(channels, width, 1)
        self.atrous = nn.ModuleList(conv(channels, width, dilation=rate) for rate in rates)
        self.pool = ConvBNReLU(channels, width, 1)
        self.project = ConvBNReLU((len(self.rates) + 2) * width, width, 1)
        self.drop = nn.Dropout(0.1)
        self._warned: set[tuple[int, int]] = set()

    def forward(self, features: Tensor) -> Tensor:
        """Look at the features from all branches.

        Raises:
            ValueError: A single photo in training, while the image pooling's norm is not frozen.
        """
        norm = self.pool[1]
        # SyncBatchNorm, which is no BatchNorm2d, sees the other devices' photos.
        if len(features) == 1 and isinstance(norm, nn.BatchNorm2d) and norm.training:
            raise ValueError(
                "Image pooling leaves one value per photo and channel, and batch normalization in "
                "training needs two: give data.batch_size 2 or more, or freeze batch "
                "normalization on the `weights` of an earlier run."
            )
        size = features.shape[-2:]
        if not torch.compiler.is_compiling():
            self._warn(*size)
        mean = self.pool(features.mean((2, 3), keepdim=True)).expand(-1, -1, *size)
        branches = [self.point(features), *(branch(features) for branch in self.atrous), mean]
        return self.drop(self.project(torch.cat(branches, dim=1)))

    def _warn(self, height: int, width: int) -> None:
        """Say once per size where 3x3 kernels have degenerated (section 3.3, figure 4)."""
        if (height, width) in self._warned:
            return
        self._warned.add((height, width))
        few = {r: n for r in self.rates if (n := valid_taps(r, height, width)) < 9}
        if few:
            taps = ", ".join(f"rate {rate}: {count} of 9" for rate, count in few.items())
            remedy = "larger photos have all nine"
            if self.training:  # the others would be noise on photos larger than the crops
                remedy = (
                    "the others stay random, and larger photos will use them: give a larger "
                    f"data.crop_size, or model.rates below {min(height, width)} times "
                    "output_stride / 16"
                )
            warnings.warn(
                f"The feature map has {height}x{width} cells, so 3x3 kernels of a larger atrous "
                f"rate have few taps that ever lie on it ({taps}); {remedy}.",
                stacklevel=2,
            )


def valid_taps(rate: int, height: int, width: int) -> int:
    """How many taps of a 3x3 kernel lie on a map for at least one of its cells: 9, 3 or 1.

    Args:
        rate: Cells between the taps.
        height: Of the map, in cells.
        width: Likewise.
    """
    rows, columns = (3 if rate < length else 1 for length in (height, width))
    return rows * columns


class DeepLabV3(SegmentationNetwork):
    """A backbone at stride 16 or 8, ASPP, and scores; all strides take the same weights.

    Args:
        num_classes: Number of classes C, background included.
        backbone: "resnet50", "resnet101", or any other timm name that can be dilated.
        output_stride: Pixels per cell, 16 or 8; at 8 the rates are doubled (section 3.3).
        multi_grid: By what the dilations of the units of a ResNet's last stage are multiplied,
            (1, 2, 4) in the paper; None dilates as the backbone's own striding implies.
        extra_conv: Whether torchvision's 3x3 convolution stands between ASPP and scores.
        width: Channels of the ASPP's branches.
        rates: Dilations of the ASPP's 3x3 branches at stride 16.
        pretrained: False, True for ImageNet weights, or the path of a file of weights.

    Raises:
        ValueError: `num_classes` or `width` is below 1, or the backbone, its stride, multi-grid
            or weights are not to be had.
    """

    score_names = ("score",)
    head_names = ("aspp", "extra", "score")

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        output_stride: int = 16,
        multi_grid: Sequence[int] | None = (1, 2, 4),
        extra_conv: bool = False,
        width: int = 256,
        rates: Sequence[int] = RATES,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        check_output_stride("DeepLab v3", output_stride)
        self.backbone = TimmBackbone(backbone, output_stride, pretrained)
        if multi_grid is not None:
            set_multi_grid(self.backbone, backbone, multi_grid)
        self.aspp = ASPP(self.backbone.channels, rates_at(output_stride, rates), width)
        self.extra = ConvBNReLU(width, width) if extra_conv else nn.Identity()
        self.score = score_layer(width, num_classes)
        self.mean, self.std = self.backbone.mean, self.backbone.std
        self.unit, self.remainder = self.backbone.unit, self.backbone.remainder
        self.least = self.unit + self.remainder
        # Whether the outermost cells sit on the photo's corner pixels.
        self.corners = self.backbone.alignment != "half_pixel"

    def score_cells(self, image: Tensor) -> Tensor:
        """Score every cell of the feature map.

        Args:
            image: Normalized RGB, float (N, 3, H, W) of a valid size.

        Returns:
            Logits, float (N, C, h, w); 513 pixels give 33 cells at stride 16 and 65 at stride 8.

        Raises:
            ValueError: (H, W) is not a `valid_size`, or a single photo is given in training.
        """
        self.check_size(image)
        return self.score(self.extra(self.aspp(self.backbone(image))))

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W) of a valid size.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: (H, W) is not a `valid_size`, or a single photo is given in training.
        """
        scores = self.score_cells(image)
        return F.interpolate(scores, image.shape[-2:], mode="bilinear", align_corners=self.corners)


def check_output_stride(paper: str, output_stride: int) -> None:
    """Refuse the strides that the paper has no rates for."""
    if output_stride not in (8, 16):
        raise ValueError(f"output_stride is {output_stride}; {paper} takes 8 or 16.")


def rates_at(output_stride: int, rates: Sequence[int] = RATES) -> list[int]:
    """The ASPP's dilations, so that branches reach as many pixels at any stride."""
    if not rates or min(rates) < 1:
        raise ValueError(f"rates is {list(rates)}; give one dilation or more, each at least 1.")
    return [rate * 16 // output_stride for rate in rates]


def score_layer(channels: int, num_classes: int) -> nn.Conv2d:
    """The 1x1 convolution to class scores, small at first."""
    score = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(score.weight, std=0.01)
    zero_biases([score])
    return score


def set_multi_grid(backbone: TimmBackbone, name: str, multi_grid: Sequence[int]) -> None:
    """Multiply the dilations of a ResNet's last stage, (2, 4, 8) at stride 16 (section 3.2.1).

    Raises:
        ValueError: The backbone has no bottleneck units, or another number of them.
    """
    names = [key for key, _ in backbone.features.named_children()]
    units = list(backbone.features["layer4"]) if "layer4" in names else []
    if not units or not all(hasattr(unit, "conv3") for unit in units):
        raise ValueError(
            f"multi_grid is of ResNets with bottleneck units, such as resnet50 or resnet101; give "
            f"null with {name}."
        )
    if len(multi_grid) != len(units) or min(multi_grid) < 1:
        raise ValueError(
            f"multi_grid is {list(multi_grid)}; the last stage of {name} has {len(units)} units, "
            f"so give as many factors from 1 on."
        )
    for unit, factor in zip(units, multi_grid, strict=True):
        rate = 32 // backbone.output_stride * factor
        unit.conv2.dilation = unit.conv2.padding = (rate, rate)
