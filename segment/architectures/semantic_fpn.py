"""Semantic FPN: a feature pyramid, whose levels a light head brings to stride 4 and sums.

Kirillov, Girshick, He and Dollar, "Panoptic Feature Pyramid Networks", CVPR 2019,
https://arxiv.org/abs/1901.02446; the pyramid is that of Lin et al., "Feature Pyramid Networks for
Object Detection", CVPR 2017, https://arxiv.org/abs/1612.03144

Differs from the paper: on backbones whose cells lie on the photo's corners (ResNet) sizes are
32k + 1 and levels are doubled corner to corner, which leaves every cell where it lies; a cell half
way between two coarser ones, both nearest, takes their mean. detectron2 doubles n cells to 2n
there, which moves coarse features by up to 15.5 pixels. On others (ConvNeXt) it is as published.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.backbones import TimmBackbone
from segment.architectures.layers import SegmentationNetwork, check_positive, zero_biases


class ConvGNReLU(nn.Sequential):
    """A 3x3 convolution without bias, group normalization in 32 groups, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(convolution, nn.GroupNorm(32, out_channels), nn.ReLU(inplace=True))


class SemanticFPN(SegmentationNetwork):
    """A backbone's features of strides 4, 8, 16 and 32, merged top-down and scored at stride 4.

    Args:
        num_classes: Number of classes C, background included.
        backbone: "resnet50", "resnet101", or any other timm name with features of these strides.
        width: Channels of the pyramid; the head has half as many. A multiple of 64.
        pretrained: False, True for ImageNet weights, or the path of a file of weights.

    Raises:
        ValueError: The backbone or the width is not to be had, or the weights are not.
    """

    score_names = ("score",)
    head_names = ("lateral", "output", "levels", "score")

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        width: int = 256,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes)
        if width < 64 or width % 64:
            raise ValueError(
                f"width is {width}; give a multiple of 64, as half of it is normalized in 32 "
                f"groups."
            )
        self.backbone = TimmBackbone(backbone, 32, pretrained, finer=(4, 8, 16))
        channels = [*self.backbone.finer_channels, self.backbone.channels]
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        # One step per doubling down to stride 4, each of them a convolution and then the doubling;
        # stride 4 itself has the convolution alone (section 3, figure 3).
        self.levels = nn.ModuleList(
            nn.ModuleList(
                ConvGNReLU(width if step == 0 else width // 2, width // 2)
                for step in range(max(1, doublings))
            )
            for doublings in range(len(channels))
        )
        self.score = nn.Conv2d(width // 2, num_classes, 1)
        for layer in [*self.lateral, *self.output]:
            nn.init.kaiming_uniform_(layer.weight, a=1)  # detectron2's c2_xavier_fill
        nn.init.kaiming_normal_(self.score.weight, mode="fan_out", nonlinearity="relu")
        zero_biases([*self.lateral, *self.output, self.score])
        self.mean, self.std = self.backbone.mean, self.backbone.std
        self.unit, self.remainder = self.backbone.unit, self.backbone.remainder
        # Whether the outermost cells sit on the photo's corner pixels.
        self.corners = self.backbone.alignment != "half_pixel"
        # Group normalization cannot take the mean of a single value, so the coarsest map has 2x2.
        self.least = self.unit + (self.remainder or self.unit)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """P2 to P5: features of strides 4, 8, 16 and 32, each float (N, width, h, w)."""
        features = self.backbone.pyramid(image)
        merged: list[Tensor] = []
        for lateral, level in zip(self.lateral[::-1], features[::-1], strict=True):
            x = lateral(level)
            if merged:
                x = x + self._double(merged[-1], "nearest")
            merged.append(x)
        return [output(x) for output, x in zip(self.output, merged[::-1], strict=True)]

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W) of a valid size.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: (H, W) is not a `valid_size`.
        """
        self.check_size(image)
        scored = []
        for doublings, (steps, x) in enumerate(zip(self.levels, self.pyramid(image), strict=True)):
            for step in steps.children():
                x = step(x)
                if doublings:
                    x = self._double(x, "bilinear")
            scored.append(x)
        logits = self.score(torch.stack(scored).sum(dim=0))
        return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=self.corners)

    def _double(self, x: Tensor, mode: str) -> Tensor:
        """Twice the resolution: n cells to 2n, or corner to corner to 2n - 1."""
        if self.corners:
            size = [2 * length - 1 for length in x.shape[-2:]]
            return F.interpolate(x, size, mode="bilinear", align_corners=True)
        return F.interpolate(x, scale_factor=2, mode=mode)
