"""DeepLab v1: VGG-16 with a large field of view.

Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image Segmentation with Deep
Convolutional Nets and Fully Connected CRFs", ICLR 2015, https://arxiv.org/abs/1412.7062

Differs from the paper: torchvision's ImageNet weights and normalization, not Caffe's.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.backbones import VGG16Trunk, valid_length
from segment.architectures.pretrained import State, vgg16_state


class LargeFOV(nn.Sequential):
    """fc6, fc7 and fc8 as convolutions; fc6 is 3x3 with holes.

    Args:
        num_classes: Number of classes C.
        dilation: Of fc6: 12 in v1, one of the ASPP rates in v2.
    """

    def __init__(self, num_classes: int, dilation: int) -> None:
        super().__init__(
            nn.Conv2d(512, 1024, 3, padding=dilation, dilation=dilation),  # fc6
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(1024, 1024, 1),  # fc7
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(1024, num_classes, 1),  # fc8
        )
        init_score(self[6])

    def load(self, state: State) -> None:
        """Take every 4th unit and every 3rd tap of VGG-16's fc6 and fc7 (section 3.2)."""
        fc6, fc7 = self[0], self[3]
        assert isinstance(fc6, nn.Conv2d)
        assert isinstance(fc7, nn.Conv2d)
        with torch.no_grad():
            fc6.weight.copy_(state["classifier.0.weight"].view(4096, 512, 7, 7)[::4, :, ::3, ::3])
            fc6.bias.copy_(state["classifier.0.bias"][::4])  # type: ignore[union-attr]
            fc7.weight.copy_(state["classifier.3.weight"].view(4096, 4096, 1, 1)[::4, ::4])
            fc7.bias.copy_(state["classifier.3.bias"][::4])  # type: ignore[union-attr]


def init_score(layer: nn.Module) -> None:
    """N(0, 0.01) and a bias of 0, as in the released networks."""
    assert isinstance(layer, nn.Conv2d)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


class DeepLabV1(nn.Module):
    """VGG-16 at output stride 8, an average pool, and a 3x3 fc6 dilated by 12.

    Args:
        num_classes: Number of classes C, background included.
        variant: `largefov`, the paper's best single network (table 2).
        pretrained: ImageNet weights of torchvision's VGG-16: true, false, or a path.
    """

    corner_aligned = True

    def __init__(
        self,
        num_classes: int,
        variant: Literal["largefov"] = "largefov",
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        if variant != "largefov":
            raise ValueError(f"DeepLabV1 variant is {variant!r}; choose largefov.")
        self.backbone = VGG16Trunk()
        self.pool5a = nn.AvgPool2d(3, 1, padding=1)
        self.head = LargeFOV(num_classes, dilation=12)
        self.mean, self.std = self.backbone.mean, self.backbone.std
        state = vgg16_state(pretrained)
        if state is not None:
            self.backbone.load(state)
            self.head.load(state)

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """The smallest size of 8k + 1 pixels that holds a photo of height x width."""
        return valid_length(height, 8, True), valid_length(width, 8, True)

    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        """Those that VGG-16 gives: all but fc8."""
        yield from self.backbone.parameters()
        yield from self.head[:6].parameters()

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """fc8's."""
        yield from self.head[6].parameters()

    def score_layers(self) -> list[str]:
        """Names of the layers whose shape depends on the number of classes."""
        return ["head.6"]

    def score_scales(self, image: Tensor) -> list[Tensor]:
        """The score map on the coarse grid, which the paper's loss is taken on: [(N, C, h, w)]."""
        check_size(self, image)
        return [self.head(self.pool5a(self.backbone(image)))]

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W of 8k + 1 pixels.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: H or W is not 8k + 1.
        """
        return F.interpolate(
            self.score_scales(image)[-1], image.shape[-2:], mode="bilinear", align_corners=True
        )


def check_size(network: "nn.Module", image: Tensor) -> None:
    """Refuse a size at which features would not sit on exact pixels.

    Raises:
        ValueError: H or W is not the network's `valid_size`.
    """
    height, width = image.shape[-2:]
    valid = network.valid_size(height, width)  # type: ignore[operator]
    if valid != (height, width):
        raise ValueError(
            f"{type(network).__name__} got {height}x{width} pixels; pad to {valid[0]}x{valid[1]} "
            f"(see valid_size), as SegmentationModule.forward does."
        )
