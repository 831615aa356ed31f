"""DeepLab v3+: v3's encoder, and a small decoder that looks at stride 4 again.

Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution for
Semantic Image Segmentation", ECCV 2018, https://arxiv.org/abs/1802.02611

Differs from the paper: ResNet has torchvision's stem, where the release's "beta" has three 3x3
convolutions, and strides in its 3x3 convolutions; dropout of 0.1 is the release's. Everything is
resized corner to corner on sizes 16k + 1, so that cells lie on pixels.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.backbones import TimmBackbone
from segment.architectures.deeplab_v3 import (
    ASPP,
    RATES,
    ConvBNReLU,
    check_output_stride,
    rates_at,
    score_layer,
    set_multi_grid,
)
from segment.architectures.layers import SegmentationNetwork, check_positive
from segment.architectures.xception import SeparableConv, Xception65

LOW_CHANNELS = 48  # table 1


class DeepLabV3Plus(SegmentationNetwork):
    """A backbone at stride 16 or 8, ASPP, and a decoder at stride 4 (figure 2).

    Args:
        num_classes: Number of classes C, background included.
        backbone: "xception65", "resnet50", "resnet101", or any other timm name that can be
            dilated and has features of stride 4.
        output_stride: Pixels per cell of the encoder, 16 or 8; at 8 the rates are doubled.
        separable: Whether the 3x3 convolutions of ASPP and decoder are depthwise separable.
        multi_grid: By what the dilations of the units of a ResNet's last stage are multiplied, as
            in v3; None, as the paper has it with Xception, does not.
        width: Channels of the ASPP's branches and of the decoder.
        rates: Dilations of the ASPP's 3x3 branches at stride 16.
        pretrained: False, True for ImageNet weights, or the path of a file of weights.

    Raises:
        ValueError: `num_classes` or `width` is below 1, or the backbone, its stride, multi-grid
            or weights are not to be had.
    """

    score_names = ("score",)
    head_names = ("aspp", "low", "decoder", "score")

    def __init__(
        self,
        num_classes: int,
        backbone: str = "xception65",
        output_stride: int = 16,
        separable: bool = True,
        multi_grid: Sequence[int] | None = None,
        width: int = 256,
        rates: Sequence[int] = RATES,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        check_output_stride("DeepLab v3+", output_stride)
        self.backbone: Xception65 | TimmBackbone
        if backbone.split(".")[0] == "xception65":
            if multi_grid is not None:
                raise ValueError(f"multi_grid is of ResNets; give null with {backbone}.")
            self.backbone = Xception65(output_stride, pretrained, backbone)
        else:
            self.backbone = TimmBackbone(backbone, output_stride, pretrained, finer=(4,))
            if multi_grid is not None:
                set_multi_grid(self.backbone, backbone, multi_grid)
        conv: Callable[..., nn.Module] = SeparableConv if separable else ConvBNReLU
        self.aspp = ASPP(self.backbone.channels, rates_at(output_stride, rates), width, conv)
        self.low = ConvBNReLU(self.backbone.finer_channels[0], LOW_CHANNELS, 1)
        # Two 3x3 convolutions are better than one or three (table 2).
        self.decoder = nn.Sequential(conv(width + LOW_CHANNELS, width), conv(width, width))
        self.score = score_layer(width, num_classes)
        self.mean, self.std = self.backbone.mean, self.backbone.std
        self.unit, self.remainder = self.backbone.unit, self.backbone.remainder
        self.least = self.unit + self.remainder
        # Whether the outermost cells sit on the photo's corner pixels.
        self.corners = self.backbone.alignment != "half_pixel"

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W) of a valid size; 513 pixels give 33 cells to
                the encoder at stride 16, and 129 to the decoder.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: (H, W) is not a `valid_size`, or a single photo is given in training.
        """
        self.check_size(image)
        low, features = self.backbone.pyramid(image)
        context = self._resize(self.aspp(features), low.shape[-2:])
        decoded = self.decoder(torch.cat([context, self.low(low)], dim=1))
        return self._resize(self.score(decoded), image.shape[-2:])

    def _resize(self, x: Tensor, size: Iterable[int]) -> Tensor:
        return F.interpolate(x, tuple(size), mode="bilinear", align_corners=self.corners)
