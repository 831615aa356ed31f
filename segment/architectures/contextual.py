"""Deep contextual network.

Chen, Qi, Cheng and Heng, "Deep Contextual Networks for Neuronal Structure Segmentation", AAAI 2016,
https://doi.org/10.1609/aaai.v30i1.10141

Differs from the paper: photos have three channels and C classes, and a branch has C channels; new
layers but the scores are drawn by He's rule, because N(0, 0.01) three layers in a row leaves next
to nothing of a signal; contours are not refined by watersheds. The layers follow a
re-implementation, without its batch normalization.
"""

import torch
import torchvision
from torch import Tensor, nn

from segment.architectures.layers import SegmentationNetwork, check_positive, zero_biases
from segment.architectures.pretrained import matching, torchvision_weights

LAYERS = 23  # of torchvision's `features`: VGG-16 up to conv4_3's ReLU


class Branch(nn.Sequential):
    """Scores from one level: enlarged to the photo's size, refined, classified.

    Float (N, in_channels, H / s, W / s) to logits (N, C, H, W), s being the stride.
    """

    def __init__(self, in_channels: int, num_classes: int, stride: int) -> None:
        super().__init__()
        # As wide as two strides and padded by half of one, it is centred on its cell.
        self.up = nn.ConvTranspose2d(in_channels, num_classes, 2 * stride, stride, stride // 2)
        self.conv = nn.Conv2d(num_classes, num_classes, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.score = nn.Conv2d(num_classes, num_classes, 1)
        # A pixel sees 2x2 cells through the transposed convolution.
        nn.init.normal_(self.up.weight, std=(2 / (4 * in_channels)) ** 0.5)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.normal_(self.score.weight, std=0.01)


class DeepContextualNetwork(SegmentationNetwork):
    """VGG-16 down to stride 8, and scores from strides 2, 4 and 8, summed.

    Args:
        num_classes: Number of classes C, background included.
        pretrained: False, True for torchvision's VGG-16, or the path of a file of weights.
        width: Channels of the first stage, of which later ones have two, four and eight times as
            many; ImageNet weights have 64.

    Raises:
        ValueError: `num_classes` or `width` is below 1, or there are no such weights.
    """

    score_names = ("branches.0", "branches.1", "branches.2")
    unit, least = 8, 8

    def __init__(self, num_classes: int, pretrained: bool | str = False, width: int = 64) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        layers: list[nn.Module] = []
        before = 3
        for stage, convs in enumerate((2, 2, 3, 3)):
            channels = width * 2**stage
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(convs):
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
                before = channels
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.trunk = nn.Sequential(*layers)
        self.branches = nn.ModuleList(
            Branch(width * multiple, num_classes, stride)
            for multiple, stride in ((2, 2), (4, 4), (8, 8))
        )
        zero_biases(self.modules())
        if pretrained:
            load_trunk(self.trunk, pretrained)

    def score_branches(self, image: Tensor) -> list[Tensor]:
        """Score every pixel from every level, as the paper's auxiliary classifiers do.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W multiples of 8 pixels.

        Returns:
            Logits of strides 2, 4 and 8, float (N, C, H, W) each.

        Raises:
            ValueError: H or W is not a multiple of 8.
        """
        self.check_size(image)
        levels = []
        x = image
        for layer in self.trunk:
            if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
                levels.append(x)  # taps lie before the pools
            x = layer(x)
        levels = [*levels[1:], x]
        return [branch(level) for branch, level in zip(self.branches, levels, strict=True)]

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel: the sum of the branches.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W multiples of 8 pixels.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: H or W is not a multiple of 8.
        """
        fine, middle, coarse = self.score_branches(image)
        return fine + middle + coarse


def load_trunk(trunk: nn.Sequential, pretrained: bool | str) -> None:
    """Fill VGG-16's first ten convolutions.

    Args:
        trunk: Those of the network; their indices are torchvision's in `features`.
        pretrained: True for torchvision's ImageNet weights, or the path of a file of weights:
            torchvision's, or those of an earlier run of this network, whose trunk is taken.

    Raises:
        ValueError: There are no such weights, or they are another network's.
    """
    weights, source = torchvision_weights("vgg16", pretrained)
    if any(key.startswith("trunk.") for key in weights):
        own = [key for key in weights if key.startswith("trunk.")]
        mine = {key.removeprefix("trunk."): weights[key] for key in own}
        trunk.load_state_dict(matching(mine, trunk.state_dict(), source))
        return
    with torch.device("meta"):
        whole = torchvision.models.vgg16()
    unused = [
        *(f"features.{key}" for key in whole.features[LAYERS:].state_dict()),
        *(key for key in whole.state_dict() if key.startswith("classifier.")),
    ]
    wanted = {f"features.{key}": value for key, value in trunk.state_dict().items()}
    used = matching(weights, wanted, source, unused)
    trunk.load_state_dict({k.removeprefix("features."): v for k, v in used.items()})
