"""DeepLab v1, the LargeFOV network.

Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image Segmentation with Deep Convolutional
Nets and Fully Connected CRFs", ICLR 2015, https://arxiv.org/abs/1412.7062

Differs from the paper: weights are torchvision's VGG-16, so photos are RGB, scaled by mean and
standard deviation; sizes are 8k + 1, on which Caffe's rounding of pools has nothing to round.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.backbones import VGG16Trunk
from segment.architectures.layers import SegmentationNetwork, zero_biases
from segment.architectures.pretrained import (
    Weights,
    first_that_works,
    matching,
    read_weights,
)


class LargeFOV(nn.Sequential):
    """VGG-16's fully connected layers as convolutions, thinned to 1024 channels, and the scores.

    Float (N, 512, h, w) to logits (N, C, h, w).

    Args:
        num_classes: Number of classes C, background included.
        dilation: Cells between the taps of fc6.
    """

    def __init__(self, num_classes: int, dilation: int) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=dilation, dilation=dilation)
        self.relu6 = nn.ReLU(inplace=True)
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.relu7 = nn.ReLU(inplace=True)
        self.drop7 = nn.Dropout(0.5)
        self.fc8 = nn.Conv2d(1024, num_classes, 1)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.fc8.weight, std=0.01)
        zero_biases(self)


class DeepLabV1(SegmentationNetwork):
    """VGG-16 with its last two strides made dilations, and scores for every eighth pixel.

    Args:
        num_classes: Number of classes C, background included.
        variant: "largefov", a 3x3 fc6 of dilation 12 ("input stride" in table 2).
        pretrained: False, True for ImageNet weights, or the path of a file of weights.
    """

    score_names = ("head.fc8",)
    unit, remainder, least = 8, 1, 9
    corners = True  # cells sit on pixels 8 * o, the outermost on the photo's corners

    def __init__(
        self,
        num_classes: int,
        variant: Literal["largefov"] = "largefov",
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        if variant != "largefov":
            raise ValueError(f"variant is {variant!r}; DeepLab v1 is built as 'largefov' only.")
        self.backbone = VGG16Trunk()
        self.pool5a = nn.AvgPool2d(3, stride=1, padding=1)
        self.head = LargeFOV(num_classes, dilation=12)
        if pretrained:
            load_vgg16(self, self.backbone, [self.head], pretrained)

    def score_scales(self, image: Tensor) -> list[Tensor]:
        """Score every eighth pixel, `image[..., ::8, ::8]`, as the paper's loss wants it.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W are 8k + 1 pixels.

        Returns:
            One tensor of logits, float (N, C, (H - 1)/8 + 1, (W - 1)/8 + 1).

        Raises:
            ValueError: H or W is not 8k + 1.
        """
        self.check_size(image)
        return [self.head(self.pool5a(self.backbone(image)))]

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W are 8k + 1 pixels.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: H or W is not 8k + 1.
        """
        logits = self.score_scales(image)[-1]
        return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=True)


def load_vgg16(
    network: nn.Module,
    trunk: VGG16Trunk,
    heads: Iterable[nn.Module],
    pretrained: bool | str,
) -> None:
    """Fill VGG-16's convolutions, and fc6 and fc7 of every head; fc8 stays as it is.

    Args:
        network: The network all this belongs to, whose own names a file may use.
        trunk: Its convolutions.
        heads: Its `LargeFOV`s.
        pretrained: True for torchvision's ImageNet weights, or the path of a file of weights:
            torchvision's, or those of an earlier run of this network.

    Raises:
        ValueError: There are no such weights, or they are another network's.
    """
    if isinstance(pretrained, str):
        source = pretrained
        weights = read_weights(pretrained)
        if any(key.startswith("backbone.") for key in weights):
            own = network.state_dict()
            scores = [key for key in own if ".fc8." in key]
            weights = {k: v for k, v in weights.items() if k not in scores}
            network.load_state_dict(matching(weights, own, source, scores), strict=False)
            return
    else:
        source = "torchvision's vgg16"
        published = torchvision.models.VGG16_Weights.IMAGENET1K_V1
        weights = first_that_works(
            "vgg16", {published.url: lambda: published.get_state_dict(check_hash=True)}
        )
    with torch.device("meta"):
        whole = torchvision.models.vgg16().state_dict()
    unused = ["classifier.6.weight", "classifier.6.bias"]
    weights = matching(weights, whole, source, unused)
    convolutions = {k: v for k, v in weights.items() if k.startswith("features.")}
    trunk.load_state_dict({k.removeprefix("features."): v for k, v in convolutions.items()})
    for head in heads:
        head.load_state_dict(decimate(weights), strict=False)


def decimate(weights: Mapping[str, Tensor]) -> Weights:
    """Thin VGG-16's first two fully connected layers to 3x3 and 1x1 convolutions (section 3.2).

    Every fourth neuron is kept, and of the 7x7 positions every third.

    Args:
        weights: torchvision's VGG-16, of which `classifier.0` and `classifier.3` are used.

    Returns:
        `fc6.weight` (1024, 512, 3, 3), `fc7.weight` (1024, 1024, 1, 1), and their biases (1024,).
    """
    fc6 = weights["classifier.0.weight"].view(4096, 512, 7, 7)
    fc7 = weights["classifier.3.weight"].view(4096, 4096, 1, 1)
    return {
        "fc6.weight": fc6[::4, :, ::3, ::3],
        "fc6.bias": weights["classifier.0.bias"][::4],
        "fc7.weight": fc7[::4, ::4],
        "fc7.bias": weights["classifier.3.bias"][::4],
    }
