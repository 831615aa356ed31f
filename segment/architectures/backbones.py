"""Networks that see the whole photo first: VGG-16 as DeepLab cuts it, and any timm network.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015, https://arxiv.org/abs/1409.1556; Chen et al., "Semantic Image Segmentation with Deep
Convolutional Nets and Fully Connected CRFs", ICLR 2015, https://arxiv.org/abs/1412.7062

A backbone says where its cells lie, because upsampling by another rule shifts every object by half
a cell. Cell o of a map of stride s is centred on pixel:

* s*o where 3x3 kernels with one pixel of padding stride (ResNet; VGG with DeepLab's 3x3 pools).
  On sizes s*k + 1 `align_corners=True` undoes it exactly.
* s*o where padding is TensorFlow's SAME (timm's `tf_*`), but on sizes 32*k + 1 only.
* s*o + (s - 1)/2 where kernels are as wide as their stride (ConvNeXt, VGG), on multiples of 32.
  `align_corners=False` undoes it.

Networks that mix the two, as ResNet-D's 2x2 average pools do, are taken for the first kind and are
up to a cell off.

Dilating samples the very function that striding does, but for squeeze-and-excite, whose means are
of more cells then: features of RegNetY, MobileNetV3, EfficientNet and MixNet differ between strides
by percents of the largest (tests/architectures/test_backbones.py holds 0.2 to 10).
"""

from collections.abc import Sequence
from typing import Any, Literal

import timm
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.layers import IMAGENET_MEAN, IMAGENET_STD, zero_biases
from segment.architectures.pretrained import load_timm

Alignment = Literal["corner", "same", "half_pixel"]


class VGG16Trunk(nn.Sequential):
    """The 13 convolutions of VGG-16 at an output stride of 8; indices are torchvision's `features`.

    Float (N, 3, H, W) to (N, 512, h, w), h = (H - 1)/8 + 1 rounded down. Pools are 3x3 as released.
    """

    channels = 512
    output_stride = 8
    alignment: Alignment = "corner"
    unit, remainder = 8, 1
    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        previous = 3
        stages = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]  # VGG's table 1, column D
        for stage, (channels, convs) in enumerate(stages, start=1):
            # pool4 no longer strides, so conv5 looks twice as far.
            dilation = 2 if stage == 5 else 1
            for _ in range(convs):
                layers += [
                    nn.Conv2d(previous, channels, 3, padding=dilation, dilation=dilation),
                    nn.ReLU(inplace=True),
                ]
                previous = channels
            stride = 2 if stage <= 3 else 1
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        super().__init__(*layers)
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        zero_biases(self)


class TimmBackbone(nn.Module):
    """The last features of a timm network, its strides beyond `output_stride` made dilations.

    Float (N, 3, H, W) to (N, channels, H', W'), H' = (H - 1) / output_stride + 1 on valid sizes.

    Args:
        name: A timm name, "resnet101" or "tf_efficientnet_lite0.in1k".
        output_stride: Pixels of the photo per cell: 8, 16 or 32.
        pretrained: False, True for ImageNet weights, or the path of a file of weights.
        finer: Strides below `output_stride` whose last features `pyramid` gives as well, rising.

    Attributes:
        channels: Of the last features.
        finer_channels: Of the features of each of `finer`.

    Raises:
        ValueError: timm does not know the network, cannot dilate it, or no weights are to be had.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self,
        name: str,
        output_stride: int = 8,
        pretrained: bool | str = False,
        finer: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {output_stride}; it can be 8, 16 or 32.")
        check_known(name)
        refusal = (
            f"timm's {name} has no form with an output stride of {output_stride}; EfficientNet, "
            f"EfficientNet-Lite, ResNet, RegNet, MobileNetV3, MixNet, ConvNeXt and Xception-65 do, "
            f"for example `tf_efficientnet_lite0` or `resnet101`."
        )
        features: Any
        try:
            features = timm.create_model(
                name,
                features_only=True,
                output_stride=output_stride,
                # Counted from the end, stride 16 is the last but one in every timm network.
                out_indices=[*(stride.bit_length() - 7 for stride in finer), -1],
            )
        # timm refuses by whatever the network happens to raise: AssertionError, TypeError, ...
        except Exception as error:
            raise ValueError(refusal) from error
        # HRNet doubles features inside, which fits multiples of 32 only and shifts its cells.
        doubles = name.startswith("hrnet")
        if doubles or features.feature_info.reduction() != [*finer, output_stride]:
            raise ValueError(refusal)
        if pretrained:
            load_timm(features, name, pretrained)
        self.output_stride, self.finer = output_stride, tuple(finer)
        self.features = features
        *self.finer_channels, self.channels = features.feature_info.channels()
        self.mean = tuple(features.default_cfg["mean"])
        self.std = tuple(features.default_cfg["std"])
        self.alignment = _alignment(features)
        self.unit = output_stride if self.alignment == "corner" else 32
        self.remainder = 0 if self.alignment == "half_pixel" else 1

    def forward(self, image: Tensor) -> Tensor:
        """Features, float (N, channels, H', W'), of a normalized photo, float (N, 3, H, W)."""
        return self.pyramid(image)[-1]

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """The features of every stride in `finer`, then those that `forward` gives."""
        late = self.alignment == "half_pixel" and self.output_stride < 32
        if late:
            # timm pads a 2x2 convolution that lost its stride so that cells lie half a cell late.
            image = F.pad(image, [self.output_stride // 2] * 4)
        features: list[Tensor] = self.features(image)
        if not late:
            return features
        margins = [self.output_stride // 2 // stride for stride in self.finer]
        levels = [level[..., m:-m, m:-m] for level, m in zip(features, margins, strict=False)]
        return [*levels, features[-1][..., :-1, :-1]]


def check_known(name: str) -> None:
    """Refuse a network, or a tag of its weights, that timm does not have.

    Raises:
        ValueError: `name` is one.
    """
    try:
        known = timm.is_model(name) and timm.get_pretrained_cfg(name) is not None
    except RuntimeError:  # "resnet18.nonsense": the network is known, the tag is not
        known = False
    if not known:
        raise ValueError(
            f"timm {timm.__version__} has no network {name!r}; `timm.list_models()` names those it "
            f"has, among them `resnet101` and `tf_efficientnet_lite0`."
        )


def _alignment(network: nn.Module) -> Alignment:
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride[0] > 1]
    # Without a strided convolution it is 2x2 pools that stride, as VGG's.
    if not strided or strided[0].kernel_size == strided[0].stride:
        return "half_pixel"
    return "same" if any(isinstance(m, Conv2dSame) for m in strided) else "corner"
