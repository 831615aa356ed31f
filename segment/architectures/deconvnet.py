"""DeconvNet: VGG-16 down to a single vector, and back up by unpooling and transposed convolution.

Noh, Hong and Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015,
https://arxiv.org/abs/1505.04366; layers as in the release,
https://github.com/HyeonwooNoh/DeconvNet

Differs from the paper: weights are torchvision's VGG-16, so photos are RGB, scaled by mean and
standard deviation; the paper only ever sees 224x224 pixels, here larger photos pass as well, each
unpooling giving the size before its pool.
"""

from itertools import pairwise

from torch import Tensor, nn

from segment.architectures.layers import SegmentationNetwork, check_positive, he_normal
from segment.architectures.segnet import VGG16, Decoder, Encoder, load_vgg16, scaled


class DeconvBlock(nn.Sequential):
    """A transposed convolution of stride 1, BN, ReLU. 3x3 keeps the size, 7x7 unpadded adds 6."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, padding: int = 1
    ) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, out_channels, kernel_size, padding=padding),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class DeconvNet(SegmentationNetwork):
    """VGG-16 with BN and its fully connected layers as convolutions, and all of it mirrored.

    Args:
        num_classes: Number of classes C, background included.
        pretrained: False, True for torchvision's VGG-16, or the path of a file of weights:
            torchvision's vgg16 or vgg16_bn, or an earlier run's.
        width: Channels of the first convolution; 64 in the paper. fc6 and fc7 have 64 times that.

    Raises:
        ValueError: `num_classes` or `width` is below 1, or there are no such weights.
    """

    score_names = ("score",)
    head_names = ("fc6_deconv", "decoder", "score")
    least = 224  # after five pools fc6 needs 7x7 cells

    def __init__(self, num_classes: int, pretrained: bool | str = False, width: int = 64) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        deepest, full = 8 * width, 64 * width
        self.encoder = Encoder(scaled(VGG16, width))
        self.fc6 = nn.Sequential(nn.Conv2d(deepest, full, 7), nn.BatchNorm2d(full), nn.ReLU(True))
        self.fc7 = nn.Sequential(nn.Conv2d(full, full, 1), nn.BatchNorm2d(full), nn.ReLU(True))
        self.fc6_deconv = DeconvBlock(full, deepest, kernel_size=7, padding=0)
        # deconv5_1 to deconv1_2; where channels become fewer, the last one before an unpooling does
        # it, because switches are of one channel each.
        decoder = ((8, 8, 8, 8), (8, 8, 8, 4), (4, 4, 4, 2), (2, 2, 1), (1, 1, 1))
        self.decoder = Decoder(
            nn.Sequential(*(DeconvBlock(a, b) for a, b in pairwise(channels)))
            for channels in scaled(decoder, width)
        )
        self.score = nn.Conv2d(width, num_classes, 1)
        he_normal(self.modules())
        for layer in self.modules():
            if isinstance(layer, nn.ConvTranspose2d) or layer is self.score:
                nn.init.normal_(layer.weight, std=0.01)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.constant_(layer.bias, 0.001)  # as in the release's prototxt
        if pretrained:
            classifier = {"classifier.0": self.fc6[0], "classifier.3": self.fc7[0]}
            load_vgg16(self, self.encoder, pretrained, classifier)

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W at least 224 pixels.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: H or W is smaller, or BN has one value per channel to train on.
        """
        self.check_size(image)
        x, switches = self.encoder(image)
        cells = [side - 6 for side in x.shape[-2:]]
        if self.fc6[1].training and len(image) * cells[0] * cells[1] == 1:
            raise ValueError(
                "DeconvNet makes one cell of a photo below 256x256, over which BN cannot average; "
                "train on at least 2 photos per process and step, or on crops of 256 pixels."
            )
        return self.score(self.decoder(self.fc6_deconv(self.fc7(self.fc6(x))), switches))
