"""SegNet and SegNet-Basic: unpooling to where the maxima were.

Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation", PAMI 2017, https://arxiv.org/abs/1511.00561; layers as in the release,
https://github.com/alexgkendall/SegNet-Tutorial

Differs from the paper: convolutions have biases, as released (the paper says Basic has none);
weights are torchvision's VGG-16, so SegNet's photos are RGB, scaled by mean and standard deviation;
Basic has the release's response normalization across colours, not the paper's local contrast
normalization.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
import torchvision
from torch import Tensor, nn

from segment.architectures.layers import SegmentationNetwork, check_positive, he_normal
from segment.architectures.pretrained import matching, torchvision_weights

# Channels of each convolution between two pools, in units of `width` (VGG's table 1, column D).
VGG16 = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))

# Of each pool: where the maxima were, int64 (N, C, h, w), and the size before it.
Switches = list[tuple[Tensor, torch.Size]]


class ConvBlock(nn.Sequential):
    """A convolution that keeps height and width, BN, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Encoder(nn.Module):
    """Convolutions and 2x2 pools that remember where their maxima were.

    Float (N, 3, H, W) to features of the last pool, and the switches of all pools.

    Args:
        stages: For each pool the output channels of the convolutions before it.
        kernel_size: Of the convolutions.
        ceil_mode: Whether pools round odd sizes up, as Caffe does, or down.
    """

    def __init__(
        self, stages: Iterable[Sequence[int]], kernel_size: int = 3, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        previous = 3
        for channels in stages:
            steps = pairwise([previous, *channels])
            self.stages.append(nn.Sequential(*(ConvBlock(a, b, kernel_size) for a, b in steps)))
            previous = channels[-1]
        self.pool = nn.MaxPool2d(2, 2, return_indices=True, ceil_mode=ceil_mode)

    def forward(self, x: Tensor) -> tuple[Tensor, Switches]:
        """The last pool's features, (N, C, h, w), and the switches, first pool first."""
        switches = []
        for stage in self.stages:
            x = stage(x)
            size = x.shape[-2:]
            x, indices = self.pool(x)
            switches.append((indices, size))
        return x, switches


class Decoder(nn.Module):
    """Undoes one pool after the other, each value going back to where its maximum was.

    Args:
        stages: Layers after each unpooling, the last pool's first.
    """

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.unpool = nn.MaxUnpool2d(2, 2)

    def forward(self, x: Tensor, switches: Switches) -> Tensor:
        """Features of the size before the first pool; `x` has that of the last pool's output."""
        for stage, (indices, size) in zip(self.stages, reversed(switches), strict=True):
            # With the size given, odd ones come back exactly.
            x = stage(self.unpool(x, indices, size))
        return x


class SegNet(SegmentationNetwork):
    """VGG-16 without its fully connected layers, and its mirror image as the decoder.

    Args:
        num_classes: Number of classes C, background included.
        pretrained: False, True for torchvision's VGG-16, or the path of a file of weights:
            torchvision's vgg16 or vgg16_bn, or an earlier run's.
        width: Channels of the first convolution; 64 in the paper.

    Raises:
        ValueError: `num_classes` or `width` is below 1, or there are no such weights.
    """

    score_names = ("score",)
    head_names = ("decoder", "score")
    least = 32  # five pools leave one whole cell

    def __init__(self, num_classes: int, pretrained: bool | str = False, width: int = 64) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        self.encoder = Encoder(scaled(VGG16, width), ceil_mode=True)
        # conv5_3_D to conv1_2_D; where channels become fewer, the last one before an unpooling does
        # it, because switches are of one channel each.
        decoder = ((8, 8, 8, 8), (8, 8, 8, 4), (4, 4, 4, 2), (2, 2, 1), (1, 1))
        self.decoder = Decoder(
            nn.Sequential(*(ConvBlock(a, b) for a, b in pairwise(channels)))
            for channels in scaled(decoder, width)
        )
        self.score = nn.Conv2d(width, num_classes, 3, padding=1)  # conv1_1_D
        he_normal(self.modules())
        if pretrained:
            load_vgg16(self, self.encoder, pretrained)

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W at least 32 pixels.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: H or W is smaller.
        """
        self.check_size(image)
        return self.score(self.decoder(*self.encoder(image)))


class SegNetBasic(SegmentationNetwork):
    """Four convolutions of 7x7 and their pools, four unpoolings and convolutions, and the scores.

    Args:
        num_classes: Number of classes C, background included.
        width: Channels of every convolution; 64 in the paper.

    Raises:
        ValueError: `num_classes` or `width` is below 1.
    """

    # Photos keep their 8-bit values: on values around 1 the normalization would do nothing.
    mean, std = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
    score_names = ("score",)
    least = 16

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        self.normalize = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        self.encoder = Encoder([[width]] * 4, kernel_size=7, ceil_mode=True)
        # Without ReLU: the decoder is linear between its unpoolings.
        self.decoder = Decoder(
            nn.Sequential(nn.Conv2d(width, width, 7, padding=3), nn.BatchNorm2d(width))
            for _ in range(4)
        )
        self.score = nn.Conv2d(width, num_classes, 1)
        he_normal(self.modules())

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: RGB, float (N, 3, H, W) from 0 to 255; H and W at least 16 pixels.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: H or W is smaller.
        """
        self.check_size(image)
        return self.score(self.decoder(*self.encoder(self.normalize(image))))


def scaled(stages: Iterable[Sequence[int]], width: int) -> list[list[int]]:
    """Channels that are given in units of `width`."""
    return [[channels * width for channels in stage] for stage in stages]


def load_vgg16(
    network: SegmentationNetwork,
    encoder: Encoder,
    pretrained: bool | str,
    classifier: Mapping[str, nn.Module] | None = None,
) -> None:
    """Fill an encoder of VGG-16's shape; score layers stay as they are.

    Args:
        network: The network all this belongs to, whose own names a file may use.
        encoder: Its convolutions. Their BN stays fresh, as the papers had it, unless the file is
            of vgg16_bn.
        pretrained: True for torchvision's VGG-16, or the path of a file of weights: torchvision's
            vgg16 or vgg16_bn, or those of an earlier run of this network.
        classifier: Fully connected layers by torchvision's names, and the convolutions they become.

    Raises:
        ValueError: There are no such weights, or they are another network's.
    """
    weights, source = torchvision_weights("vgg16", pretrained)
    if any(key.startswith("encoder.") for key in weights):
        own = network.state_dict()
        scores = [k for k in own for name in network.score_names if k.startswith(f"{name}.")]
        weights = {k: v for k, v in weights.items() if k not in scores}
        network.load_state_dict(matching(weights, own, source, scores), strict=False)
        return
    models = torchvision.models
    with torch.device("meta"):
        whole = models.vgg16_bn() if "features.1.weight" in weights else models.vgg16()
    unused = ["classifier.6.weight", "classifier.6.bias"]
    weights = matching(weights, whole.state_dict(), source, unused)
    layers: dict[str, nn.Module] = dict(classifier or {})
    for kind in (nn.Conv2d, nn.BatchNorm2d):
        theirs = [f"features.{i}" for i, m in enumerate(whole.features) if isinstance(m, kind)]
        ours = [layer for layer in encoder.modules() if isinstance(layer, kind)]
        # vgg16 has no BN at all.
        layers.update(zip(theirs, ours, strict=bool(theirs)))
    for name, layer in layers.items():
        own = layer.state_dict()
        given = {key: weights[f"{name}.{key}"] for key in own if f"{name}.{key}" in weights}
        for key, value in given.items():
            if value.numel() != own[key].numel():
                raise ValueError(f"{source}: fits a width of 64 only; give no weights or that.")
            given[key] = value.view_as(own[key])  # torch flattens channels, rows, columns
        layer.load_state_dict(given, strict=False)
