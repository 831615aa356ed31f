"""DeepLab v1: LargeFOV, the larger classifiers it was thinned from, and scores at more scales.

Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image Segmentation with Deep Convolutional
Nets and Fully Connected CRFs", ICLR 2015, https://arxiv.org/abs/1412.7062

Differs from the paper: weights are torchvision's VGG-16, so photos are RGB, scaled by mean and
standard deviation; sizes are 8k + 1, on which Caffe's rounding of pools has nothing to round; all
variants have the released 3x3 pools, where the first networks had 2x2. Multi-scale branches are
scored each by itself and summed, as released, which is the paper's concatenation but for biases.
"4x4" is table 2's DeepLab-CRF-4x4, whose input stride is 8 and whose field of view 224 pixels; its
DeepLab-CRF, the same kernel at an input stride of 4 with 128 pixels, is absent.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.backbones import VGG16Trunk
from segment.architectures.layers import SegmentationNetwork, check_positive, zero_biases
from segment.architectures.pretrained import (
    Weights,
    matching,
    torchvision_weights,
)

Variant = Literal["largefov", "4x4", "7x7", "msc_largefov"]
# Kernel, dilation ("input stride") and channels of fc6, table 2. Each spans 25 cells, 224 pixels.
FC6 = {
    "largefov": (3, 12, 1024),
    "4x4": (4, 8, 4096),
    "7x7": (7, 4, 4096),
    "msc_largefov": (3, 12, 1024),
}


class LargeFOV(nn.Sequential):
    """VGG-16's fully connected layers as convolutions, by default thinned, and the scores.

    Float (N, 512, h, w) to logits (N, C, h, w).

    Args:
        num_classes: Number of classes C, background included.
        dilation: Cells between the taps of fc6.
        kernel: Taps of fc6 in each direction; VGG-16 has 7.
        channels: Of fc6 and fc7; VGG-16 has 4096.
    """

    def __init__(
        self, num_classes: int, dilation: int, kernel: int = 3, channels: int = 1024
    ) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.fc6 = nn.Conv2d(512, channels, kernel, padding=padding, dilation=dilation)
        self.relu6 = nn.ReLU(inplace=True)
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = nn.Conv2d(channels, channels, 1)
        self.relu7 = nn.ReLU(inplace=True)
        self.drop7 = nn.Dropout(0.5)
        self.fc8 = nn.Conv2d(channels, num_classes, 1)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.fc8.weight, std=0.01)
        zero_biases(self)


class Branch(nn.Sequential):
    """Scores of the photo or of a pool for every eighth pixel (section 4.3).

    Float (N, channels, H, W) to logits (N, C, (H - 1)/stride + 1, (W - 1)/stride + 1).

    Args:
        channels: That come in.
        num_classes: Number of classes C, background included.
        stride: Cells that come in per cell that goes out.
        spread: Standard deviation of the 1x1 convolution's first weights.
    """

    def __init__(self, channels: int, num_classes: int, stride: int, spread: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 128, 3, stride, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.drop1 = nn.Dropout(0.5)
        self.conv2 = nn.Conv2d(128, 128, 1)
        self.relu2 = nn.ReLU(inplace=True)
        self.drop2 = nn.Dropout(0.5)
        self.score = nn.Conv2d(128, num_classes, 1)
        for layer, std in ((self.conv1, 0.001), (self.conv2, spread), (self.score, 0.01)):
            nn.init.normal_(layer.weight, std=std)
        zero_biases(self)


class DeepLabV1(SegmentationNetwork):
    """VGG-16 with its last two strides made dilations, and scores for every eighth pixel.

    Args:
        num_classes: Number of classes C, background included.
        variant: The first fully connected layer: "7x7" as VGG-16's, "4x4" of every second tap
            ("DeepLab-CRF-4x4" in table 2), or "largefov", 3x3 and a quarter of the channels;
            "msc_largefov" adds to the latter the scores of the photo and of the first four pools.
        pretrained: False, True for ImageNet weights, or the path of a file of weights.

    Raises:
        ValueError: There is no such variant, or the weights are not to be had.
    """

    score_names: tuple[str, ...] = ("head.fc8",)
    unit, remainder, least = 8, 1, 9
    corners = True  # cells sit on pixels 8 * o, the outermost on the photo's corners

    def __init__(
        self,
        num_classes: int,
        variant: Variant = "largefov",
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes)
        if variant not in FC6:
            raise ValueError(f"variant is {variant!r}; it can be {', '.join(map(repr, FC6))}.")
        kernel, dilation, channels = FC6[variant]
        self.backbone = VGG16Trunk()
        # The released LargeFOV networks have this pool, its forerunners do not.
        self.pool5a = nn.AvgPool2d(3, stride=1, padding=1) if kernel == 3 else nn.Identity()
        self.head = LargeFOV(num_classes, dilation, kernel, channels)
        self.branches = nn.ModuleList()
        if variant == "msc_largefov":
            # The photo and pool1 to pool4: channels, and the stride that makes theirs 8.
            levels = [(3, 8), (64, 4), (128, 2), (256, 1), (512, 1)]
            self.branches.extend(
                Branch(width, num_classes, stride, 0.005 if place == 4 else 0.001)
                for place, (width, stride) in enumerate(levels)
            )
            scores = [f"branches.{place}.score" for place in range(len(levels))]
            self.score_names = ("head.fc8", *scores)
            self.head_names = ("head.fc8", "branches")
            self.added_names = ("branches",)  # they may be put beside a LargeFOV that is trained
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
        if not len(self.branches):
            return [self.head(self.pool5a(self.backbone(image)))]
        levels = [image]
        x = image
        for layer in self.backbone:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):  # averages: alignment is tested so
                levels.append(x)
        scores = self.head(self.pool5a(x))
        for branch, level in zip(self.branches, levels[: len(self.branches)], strict=True):
            scores = scores + branch(level)
        return [scores]

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
    network: SegmentationNetwork,
    trunk: VGG16Trunk,
    heads: Iterable[nn.Module],
    pretrained: bool | str,
) -> None:
    """Fill VGG-16's convolutions, and fc6 and fc7 of every head; all else stays as it is.

    Args:
        network: The network all this belongs to, whose own names a file may use.
        trunk: Its convolutions.
        heads: Its `LargeFOV`s.
        pretrained: True for torchvision's ImageNet weights, or the path of a file of weights:
            torchvision's, or those of an earlier run of this network.

    Raises:
        ValueError: There are no such weights, or they are another network's.
    """
    weights, source = torchvision_weights("vgg16", pretrained)
    if any(key.startswith("backbone.") for key in weights):
        own = network.state_dict()
        new = {id(parameter) for parameter in network.head_parameters()}
        anew = [name for name, p in network.named_parameters() if id(p) in new]
        weights = {k: v for k, v in weights.items() if k not in anew}
        network.load_state_dict(matching(weights, own, source, anew), strict=False)
        return
    with torch.device("meta"):
        whole = torchvision.models.vgg16().state_dict()
    unused = ["classifier.6.weight", "classifier.6.bias"]
    weights = matching(weights, whole, source, unused)
    convolutions = {k: v for k, v in weights.items() if k.startswith("features.")}
    trunk.load_state_dict({k.removeprefix("features."): v for k, v in convolutions.items()})
    for head in heads:
        assert isinstance(head, LargeFOV)
        kernel, channels = head.fc6.kernel_size[0], head.fc6.out_channels
        head.load_state_dict(decimate(weights, kernel, channels), strict=False)


def decimate(weights: Mapping[str, Tensor], kernel: int = 3, channels: int = 1024) -> Weights:
    """Thin VGG-16's first two fully connected layers to convolutions (section 3.2).

    Neurons and positions are kept at equal distances: for LargeFOV every fourth neuron, and of the
    7x7 positions every third.

    Args:
        weights: torchvision's VGG-16, of which `classifier.0` and `classifier.3` are used.
        kernel: Positions that are left in each direction: 3, 4 or 7.
        channels: Neurons that are left.

    Returns:
        `fc6.weight` (channels, 512, kernel, kernel), `fc7.weight` (channels, channels, 1, 1), and
        their biases (channels,).
    """
    step, every = 6 // (kernel - 1), 4096 // channels
    fc6 = weights["classifier.0.weight"].view(4096, 512, 7, 7)
    fc7 = weights["classifier.3.weight"].view(4096, 4096, 1, 1)
    return {
        "fc6.weight": fc6[::every, :, ::step, ::step],
        "fc6.bias": weights["classifier.0.bias"][::every],
        "fc7.weight": fc7[::every, ::every],
        "fc7.bias": weights["classifier.3.bias"][::every],
    }
