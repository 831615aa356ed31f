"""DeepLab v2: scores from several fields of view, summed.

Chen, Papandreou, Kokkinos, Murphy and Yuille, "DeepLab: Semantic Image Segmentation with Deep
Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", PAMI 2018,
https://arxiv.org/abs/1606.00915

Differs from the paper: ResNet strides in its 3x3 convolutions and dilates accordingly, because
torchvision's and timm's weights were trained so; sizes are 8k + 1, on which Caffe's rounding of
pools has nothing to round; scales are resized corner to corner, so that cells lie on cells.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.backbones import TimmBackbone, VGG16Trunk
from segment.architectures.deeplab_v1 import LargeFOV, load_vgg16
from segment.architectures.layers import SegmentationNetwork, check_positive

RATES = {"small": (2, 4, 8, 12), "large": (6, 12, 18, 24)}  # ASPP-S and ASPP-L, figure 7
SCALES = (1.0, 0.75, 0.5)  # section 4.1


class DeepLabV2(SegmentationNetwork):
    """A backbone, and four branches of growing dilation whose class scores are summed (ASPP).

    On "vgg16" a branch is fc6, fc7 and fc8; on other backbones one 3x3 convolution.

    Args:
        num_classes: Number of classes C, background included.
        backbone: "vgg16", "resnet101", or any other timm name that can be dilated.
        aspp: Dilations 2, 4, 8, 12 ("small") or 6, 12, 18, 24 ("large").
        output_stride: Pixels per cell, 8 as in the paper or 16 (not VGG). At 16 dilations are
            halved, so each branch sees as many pixels as at 8.
        multi_scale: Whether the photo is scored at scales 1, 0.75 and 0.5, keeping the maximum.
        pretrained: False, True for ImageNet weights, or the path of a file of weights.

    Raises:
        ValueError: The backbone or its stride is not to be had, or the weights are not.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg16",
        aspp: Literal["small", "large"] = "large",
        output_stride: int = 8,
        multi_scale: bool = False,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes)
        if aspp not in RATES:
            raise ValueError(f"aspp is {aspp!r}; it can be 'small' or 'large'.")
        strides = (8,) if backbone == "vgg16" else (8, 16)
        if output_stride not in strides:
            raise ValueError(
                f"output_stride is {output_stride}; DeepLab v2 on {backbone} takes "
                f"{' or '.join(map(str, strides))}."
            )
        self.multi_scale = multi_scale
        rates = [rate * 8 // output_stride for rate in RATES[aspp]]
        self.backbone: VGG16Trunk | TimmBackbone
        if backbone == "vgg16":
            self.backbone = VGG16Trunk()
            self.aspp = nn.ModuleList(LargeFOV(num_classes, rate) for rate in rates)
            self.score_names = tuple(f"aspp.{i}.fc8" for i in range(len(rates)))
            if pretrained:
                load_vgg16(self, self.backbone, self.aspp, pretrained)
        else:
            self.backbone = TimmBackbone(backbone, output_stride, pretrained)
            channels = self.backbone.channels
            self.aspp = nn.ModuleList(
                nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in rates
            )
            self.score_names = tuple(f"aspp.{i}" for i in range(len(rates)))
            for name, parameter in self.aspp.named_parameters():
                nn.init.normal_(parameter, std=0.0 if name.endswith("bias") else 0.01)
        self.mean, self.std = self.backbone.mean, self.backbone.std
        # Scaled by 0.75 and 0.5, a side of 4k cells still has whole cells.
        self.unit = max(self.backbone.unit, 4 * output_stride if multi_scale else 0)
        self.remainder = self.backbone.remainder
        self.least = self.unit + self.remainder

    def score_scales(self, image: Tensor) -> list[Tensor]:
        """Score every cell, at every scale: what the paper's loss sums over (section 4.1).

        Args:
            image: Normalized RGB, float (N, 3, H, W) of a valid size.

        Returns:
            Logits, float (N, C, h, w), the last being what `forward` upsamples. One tensor, or with
            `multi_scale` four: scales 1, 0.75 and 0.5, each in its own size, and their maximum in
            the size of scale 1. At stride 8, 321 pixels give 41, 31, 21 and 41 cells.

        Raises:
            ValueError: (H, W) is not a `valid_size`.
        """
        self.check_size(image)
        if not self.multi_scale:
            return [self._score(image)]
        edge = 1 if self.corners else 0
        scores = []
        for scale in SCALES:
            size = [round((side - edge) * scale) + edge for side in image.shape[-2:]]
            scores.append(self._score(self._resize(image, size)))
        same = [self._resize(score, scores[0].shape[-2:]) for score in scores]
        return [*scores, torch.stack(same).amax(dim=0)]

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W) of a valid size.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: (H, W) is not a `valid_size`.
        """
        return self._resize(self.score_scales(image)[-1], image.shape[-2:])

    @property
    def corners(self) -> bool:
        """Whether the outermost cells sit on the photo's corner pixels."""
        return self.backbone.alignment != "half_pixel"

    def _resize(self, x: Tensor, size: Iterable[int]) -> Tensor:
        return F.interpolate(x, tuple(size), mode="bilinear", align_corners=self.corners)

    def _score(self, image: Tensor) -> Tensor:
        features = self.backbone(image)
        return torch.stack([branch(features) for branch in self.aspp]).sum(dim=0)
