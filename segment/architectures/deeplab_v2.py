"""DeepLab v2: atrous spatial pyramid pooling.

Chen, Papandreou, Kokkinos, Murphy and Yuille, "DeepLab: Semantic Image Segmentation with Deep
Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", PAMI 2018,
https://arxiv.org/abs/1606.00915

Differs from the paper: torchvision's or timm's ImageNet weights and normalization, not Caffe's;
ResNet-101 keeps its strides in the 3x3 convolutions, where torchvision's weights have them;
backbones other than VGG-16 and ResNet-101 take ResNet's form of the head.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.backbones import TimmBackbone, VGG16Trunk, valid_length
from segment.architectures.deeplab_v1 import LargeFOV, check_size, init_score
from segment.architectures.pretrained import vgg16_state

RATES = {"small": (2, 4, 8, 12), "large": (6, 12, 18, 24)}  # ASPP-S and ASPP-L, figure 7
SCALES = (1.0, 0.75, 0.5)  # section 4.1.2


class ASPP(nn.ModuleList):
    """Four branches side by side, each with its own dilation; their class scores are summed."""

    def forward(self, features: Tensor) -> Tensor:
        """Sum of the branches' scores, float (N, C, h, w)."""
        scores = self[0](features)
        for branch in self[1:]:
            scores = scores + branch(features)
        return scores


class DeepLabV2(nn.Module):
    """A backbone at output stride 8 and four classifiers of different reach, summed.

    Args:
        num_classes: Number of classes C, background included.
        backbone: `vgg16` (fc6, fc7 and fc8 in every branch), `resnet101`, or any timm model that
            takes the output stride (one 3x3 convolution in every branch).
        aspp: Dilations of the branches: `small` 2, 4, 8, 12; `large` 6, 12, 18, 24.
        output_stride: Pixels per cell: 8 as in the paper; at 16 the dilations are halved, so that
            the branches reach as far.
        multi_scale: Run scales 1, 0.75 and 0.5 with shared weights and take the maximum of the
            scores.
        pretrained: ImageNet weights: true, false, or a path.
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
        if aspp not in RATES:
            raise ValueError(f"aspp is {aspp!r}; choose one of {', '.join(RATES)}.")
        if output_stride not in (8, 16):
            raise ValueError(f"output_stride is {output_stride}; DeepLab v2 takes 8 or 16.")
        rates = [rate * 8 // output_stride for rate in RATES[aspp]]
        self.scales = SCALES if multi_scale else (1.0,)
        self.backbone: VGG16Trunk | TimmBackbone
        if backbone == "vgg16":
            if output_stride != 8:
                raise ValueError(f"output_stride is {output_stride}; with vgg16 it must be 8.")
            self.backbone = VGG16Trunk()
            heads = [LargeFOV(num_classes, rate) for rate in rates]
            state = vgg16_state(pretrained)
            if state is not None:
                self.backbone.load(state)
                for head in heads:
                    head.load(state)
            self.aspp = ASPP(heads)
        else:
            self.backbone = TimmBackbone(backbone, output_stride, pretrained)
            channels = self.backbone.channels
            self.aspp = ASPP(
                nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in rates
            )
            for branch in self.aspp:
                init_score(branch)
        self.mean, self.std = self.backbone.mean, self.backbone.std
        self.corner_aligned = self.backbone.corner_aligned

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """The smallest size, at least height x width, whose cells sit on exact pixels."""
        return self._valid(height), self._valid(width)

    def _valid(self, length: int) -> int:
        return valid_length(length, self.backbone.output_stride, self.corner_aligned)

    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        """Those that ImageNet's network gives; with VGG-16 also fc6 and fc7."""
        head = {id(parameter) for parameter in self.head_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in head)

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """Those of the score layers."""
        for name in self.score_layers():
            yield from self.get_submodule(name).parameters()

    def score_layers(self) -> list[str]:
        """Names of the layers whose shape depends on the number of classes."""
        last = ".6" if isinstance(self.backbone, VGG16Trunk) else ""
        return [f"aspp.{branch}{last}" for branch in range(4)]

    def score_scales(self, image: Tensor) -> list[Tensor]:
        """Score maps on the coarse grid of scale 1.

        Args:
            image: Normalized RGB, float (N, 3, H, W), of a valid size.

        Returns:
            One map (N, C, h, w); with `multi_scale` one per scale and, last, their maximum, which
            are the terms of the paper's loss.
        """
        check_size(self, image)
        maps = [self._score(image, scale) for scale in self.scales]
        maps = [maps[0], *(self._resize(scores, maps[0].shape[-2:]) for scores in maps[1:])]
        return maps if len(maps) == 1 else [*maps, torch.stack(maps).amax(0)]

    def _score(self, image: Tensor, scale: float) -> Tensor:
        if scale != 1:
            size = [self._valid(round(length * scale)) for length in image.shape[-2:]]
            image = self._resize(image, size)
        return self.aspp(self.backbone(image))

    def _resize(self, maps: Tensor, size: "torch.Size | list[int]") -> Tensor:
        return F.interpolate(maps, size, mode="bilinear", align_corners=self.corner_aligned)

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W), of a valid size.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: H or W is not as `valid_size` says.
        """
        return self._resize(self.score_scales(image)[-1], image.shape[-2:])
