"""VGG-16 and AlexNet with their fully connected layers turned into convolutions.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015, https://arxiv.org/abs/1409.1556; Krizhevsky, "One weird trick for parallelizing
convolutional neural networks", 2014, https://arxiv.org/abs/1404.5997 (torchvision's AlexNet);
turned into convolutions as in Long, Shelhamer and Darrell, section 3.1,
https://arxiv.org/abs/1411.4038

Differs from the papers: the photo may be padded by 100 pixels, as FCN does.
"""

from typing import Literal

import torch
import torchvision
from torch import Tensor, nn

from segment.architectures.layers import he_normal
from segment.architectures.pretrained import Weights, matching, torchvision_weights

Padding = Literal["original", "same"]


class VGG16(nn.Module):
    """VGG-16 up to fc7, as convolutions; `features` are torchvision's, index for index.

    Args:
        padding: "original" pads the photo by 100 and rounds pools up, so that any size works;
            "same" keeps every map centred on multiples of 32 pixels.
        width: Channels of conv1; the paper's 64 become 512, and 4096 in fc6 and fc7.
    """

    fully_connected = ("classifier.0", "classifier.3")  # torchvision's names of fc6 and fc7
    alignment = "half_pixel"

    def __init__(self, padding: Padding, width: int) -> None:
        super().__init__()
        original = padding == "original"
        layers: list[nn.Module] = []
        previous = 3
        for factor, convs in [(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)]:  # VGG's table 1, column D
            for _ in range(convs):
                margin = 1 if layers or not original else 100
                layers += [
                    nn.Conv2d(previous, factor * width, 3, padding=margin),
                    nn.ReLU(inplace=True),
                ]
                previous = factor * width
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=original))
        self.features = nn.Sequential(*layers)
        self.head = Head(8 * width, 64 * width, kernel=7, padding=0 if original else 3)
        self.finer_channels, self.channels = [4 * width, 8 * width], 64 * width
        he_normal(self.modules())

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """pool3, pool4 and fc7, float (N, channels, h, w) at strides 8, 16 and 32."""
        pool3 = self.features[:17](image)
        pool4 = self.features[17:24](pool3)
        return [pool3, pool4, self.head(self.features[24:](pool4))]


class AlexNet(nn.Module):
    """AlexNet as torchvision has it, up to fc7, as convolutions; `features` index for index.

    Args:
        padding: "original" pads the photo by 100 and rounds pools up, so that any size works;
            "same" keeps every map centred on multiples of 32 pixels.
        width: Channels of conv1, 64 in torchvision's, where fc6 and fc7 have 4096.
    """

    fully_connected = ("classifier.1", "classifier.4")
    alignment = "corner"

    def __init__(self, padding: Padding, width: int) -> None:
        super().__init__()
        original = padding == "original"
        margin = 0 if original else 1
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 11, stride=4, padding=100 if original else 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, margin, ceil_mode=original),
            nn.Conv2d(width, 3 * width, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, margin, ceil_mode=original),
            nn.Conv2d(3 * width, 6 * width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(6 * width, 4 * width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, margin, ceil_mode=original),
        )
        self.head = Head(4 * width, 64 * width, kernel=6, padding=0 if original else 3)
        self.finer_channels: list[int] = []
        self.channels = 64 * width
        he_normal(self.modules())

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """fc7 alone, float (N, channels, h, w) at stride 32."""
        return [self.head(self.features(image))]


class Head(nn.Sequential):
    """fc6 and fc7 as convolutions, each with dropout of single elements (not of channels)."""

    def __init__(self, in_channels: int, channels: int, kernel: int, padding: int) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(in_channels, channels, kernel, padding=padding)
        self.relu6 = nn.ReLU(inplace=True)
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = nn.Conv2d(channels, channels, 1)
        self.relu7 = nn.ReLU(inplace=True)
        self.drop7 = nn.Dropout(0.5)


def convolutional(weights: Weights, fc6: str, fc7: str, kernel: int) -> Weights:
    """Turn the first two fully connected layers of a classifier into convolutions.

    Args:
        weights: Of torchvision's VGG-16 or AlexNet; flattened features are in the order C, H, W.
        fc6: Name of the first fully connected layer.
        fc7: Name of the second.
        kernel: Height and width of the features that the first one sees.
    """
    converted = {k: v for k, v in weights.items() if k.startswith("features.")}
    first, second = weights[f"{fc6}.weight"], weights[f"{fc7}.weight"]
    converted["head.fc6.weight"] = first.view(len(first), -1, kernel, kernel)
    converted["head.fc7.weight"] = second[..., None, None]
    converted["head.fc6.bias"] = weights[f"{fc6}.bias"]
    converted["head.fc7.bias"] = weights[f"{fc7}.bias"]
    return converted


def load_torchvision(backbone: VGG16 | AlexNet, name: str, pretrained: bool | str) -> None:
    """Fill convolutions, fc6 and fc7.

    Args:
        backbone: Of this file.
        name: Its name in torchvision.
        pretrained: True for torchvision's ImageNet weights, or the path of a file of weights:
            torchvision's, or those of an `FCN`.

    Raises:
        ValueError: There are no such weights, or they are another network's.
    """
    own = backbone.state_dict()
    ours = "backbone."
    weights, source = torchvision_weights(name, pretrained)
    if any(key.startswith(ours) for key in weights):
        mine = {k.removeprefix(ours): v for k, v in weights.items() if k.startswith(ours)}
        backbone.load_state_dict(matching(mine, own, source))
        return
    with torch.device("meta"):
        whole = torchvision.models.get_model(name).state_dict()
    weights = matching(weights, whole, source, ["classifier.6.weight", "classifier.6.bias"])
    kernel = own["head.fc6.weight"].shape[-1]
    converted = convolutional(weights, *backbone.fully_connected, kernel)
    backbone.load_state_dict(matching(converted, own, source))
