"""Fully convolutional networks: FCN-32s, FCN-16s, FCN-8s and FCN-AlexNet.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
https://arxiv.org/abs/1411.4038; numbers that the paper leaves out are those of its release,
https://github.com/shelhamer/fcn.berkeleyvision.org (net.py of each network).

Differs from the paper: weights are torchvision's, so photos are RGB, scaled by mean and standard
deviation, and AlexNet has torchvision's widths, without groups and local response normalization.
`padding="same"` and backbones from timm are ours.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.backbones import TimmBackbone, check_known
from segment.architectures.classifiers import VGG16, AlexNet, Padding, load_torchvision
from segment.architectures.layers import SegmentationNetwork, check_positive

# Rows and columns cut off where maps meet, so that cells lie on cells despite the padding of 100.
CROP_POOL4, CROP_POOL3 = 5, 9
CROP_SCORES = {32: 19, 16: 27, 8: 31}
CROP_ALEXNET = {"original": 18, "same": 47}  # cell o: pixel 32o + 13; ours: 32o - 16


class Upsampling(nn.Module):
    """Bilinear upsampling as a transposed convolution without bias.

    Float (N, C, h, w) to (N, C, (h - 1) * factor + kernel - 2 * padding, ...).

    Args:
        channels: Number of channels C; each is upsampled on its own.
        factor: Cells of the output per cell of the input.
        kernel: Side of the kernel, 2 * factor or one less.
        padding: Rows and columns cut off on each side.
        learnt: Whether that is only where training starts, of a kernel from every channel to every
            other, or stays.
    """

    weight: Tensor

    def __init__(
        self, channels: int, factor: int, kernel: int, padding: int = 0, learnt: bool = False
    ) -> None:
        super().__init__()
        self.factor, self.padding = factor, padding
        self.groups = 1 if learnt else channels
        if learnt:
            # 0 off the diagonal, or classes would mix from the start.
            self.weight = nn.Parameter(torch.eye(channels)[..., None, None] * bilinear(kernel))
        else:
            weight = bilinear(kernel).repeat(channels, 1, 1, 1)
            self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Upsample float (N, C, h, w)."""
        return F.conv_transpose2d(
            x, self.weight, stride=self.factor, padding=self.padding, groups=self.groups
        )


class FCN(SegmentationNetwork):
    """Class scores of stride 32, to which those of finer layers are added on the way up.

    Args:
        num_classes: Number of classes C, background included.
        stride: Of the finest scores: 32, 16 (with pool4) or 8 (with pool4 and pool3).
        at_once: Whether stride 8 is trained from the start, not after 32 and 16: then pool4 and
            pool3 are scaled by 0.01 and 0.0001 before they are scored.
        backbone: "vgg16", "alexnet" (stride 32 only), or a timm name.
        padding: "original" pads the photo by 100 pixels and crops; "same" pads every layer, and
            takes sizes of 32k (timm: 32k + 1 or 32k), on which nothing is cropped.
        learn_upsampling: Whether upsampling is learnt, except for the last, which stays bilinear
            (section 4.3). The release learns none.
        pretrained: False, True for ImageNet weights, or the path of a file of weights.
        width: Channels of the first layer of VGG-16 and AlexNet.

    Raises:
        ValueError: The choices do not go together, `num_classes` or `width` is below 1, or the
            weights are not to be had.
    """

    scale_pool4: Tensor
    scale_pool3: Tensor

    def __init__(
        self,
        num_classes: int,
        stride: int = 32,
        at_once: bool = False,
        backbone: str = "vgg16",
        padding: Padding = "original",
        learn_upsampling: bool = False,
        pretrained: bool | str = False,
        width: int = 64,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        is_timm = backbone not in ("vgg16", "alexnet")
        strides = (32,) if backbone == "alexnet" else (32, 16, 8)
        if stride not in strides:
            raise ValueError(
                f"stride is {stride}; FCN on {backbone} takes {', '.join(map(str, strides))}."
            )
        if at_once and stride != 8:
            raise ValueError(f"at_once is for stride 8, where there is more to add; got {stride}.")
        if learn_upsampling and stride == 32:
            raise ValueError(
                "learn_upsampling is for strides 16 and 8; stride 32 upsamples once, and the last "
                "upsampling stays bilinear."
            )
        if padding not in ("original", "same"):
            raise ValueError(f"padding is {padding!r}; it can be 'original' or 'same'.")
        if is_timm:
            check_known(backbone)
        if is_timm and (padding != "same" or width != 64):
            raise ValueError(
                f"FCN on {backbone} takes padding 'same' and width 64; others are for vgg16 and "
                f"alexnet."
            )
        self.stride, self.at_once = stride, at_once
        self.backbone: VGG16 | AlexNet | TimmBackbone
        if is_timm:
            self.backbone = TimmBackbone(backbone, 32, pretrained, finer=(8, 16))
            self.mean, self.std = self.backbone.mean, self.backbone.std
            self.remainder = self.backbone.remainder
        else:
            self.backbone = (VGG16 if backbone == "vgg16" else AlexNet)(padding, width)
            if pretrained:
                load_torchvision(self.backbone, backbone, pretrained)
        if padding == "same":
            self.unit = 32
            self.least = 32 + self.remainder

        self.crop_pool4 = self.crop_pool3 = self.crop_scores = 0
        if backbone == "alexnet":
            self.crop_scores = CROP_ALEXNET[padding]
        elif padding == "original":
            self.crop_pool4, self.crop_pool3 = CROP_POOL4, CROP_POOL3
            self.crop_scores = CROP_SCORES[stride]

        def upsampling(factor: int, learnt: bool = False) -> Upsampling:
            # Odd kernels where cells sit on pixels, even ones where they sit between pixels.
            on_pixels = self.backbone.alignment != "half_pixel"
            margin = factor - 1 if on_pixels else factor // 2
            if padding == "original" or backbone == "alexnet":
                margin = 0  # they crop instead
            return Upsampling(num_classes, factor, 2 * factor - on_pixels, margin, learnt)

        self.score_fr = nn.Conv2d(self.backbone.channels, num_classes, 1)
        finer: list[str] = []
        if stride <= 16:
            self.upscore2 = upsampling(2, learn_upsampling)
            self.score_pool4 = nn.Conv2d(self.backbone.finer_channels[1], num_classes, 1)
            finer += ["score_pool4", "upscore2"]
        if stride == 8:
            self.upscore_pool4 = upsampling(2, learn_upsampling)
            self.score_pool3 = nn.Conv2d(self.backbone.finer_channels[0], num_classes, 1)
            finer += ["score_pool3", "upscore_pool4"]
        if at_once:  # in checkpoints, too: scores of unscaled layers are of no use here
            self.register_buffer("scale_pool4", torch.tensor(0.01))
            self.register_buffer("scale_pool3", torch.tensor(0.0001))
        self.upscore = upsampling(stride)
        added = [name for name in finer if learn_upsampling or name.startswith("score")]
        self.score_names = ("score_fr", *added)
        # 16s starts from a run of 32s, and 8s from one of 16s (section 4.2).
        self.added_names = tuple(added)
        for name, parameter in self.named_parameters():
            if name.startswith("score"):
                nn.init.zeros_(parameter)  # section 4.3

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W) of a valid size; any size with `padding`
                "original".

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: (H, W) is not a `valid_size`.
        """
        self.check_size(image)
        *finer, last = self.backbone.pyramid(image)
        scores = self.score_fr(last)
        if self.stride <= 16:
            pool4 = finer[1] * self.scale_pool4 if self.at_once else finer[1]
            scores = self.upscore2(scores)
            scores = scores + crop(self.score_pool4(pool4), self.crop_pool4, scores)
        if self.stride == 8:
            pool3 = finer[0] * self.scale_pool3 if self.at_once else finer[0]
            scores = self.upscore_pool4(scores)
            scores = scores + crop(self.score_pool3(pool3), self.crop_pool3, scores)
        return crop(self.upscore(scores), self.crop_scores, image)


def bilinear(size: int) -> Tensor:
    """The kernel of `size` x `size` that interpolates linearly between cells, summing to 1 each."""
    reach, centre = (size + 1) // 2, (size - 1) / 2
    taps = 1 - (torch.arange(size) - centre).abs() / reach
    return taps[:, None] * taps


def crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """The rows and columns of `x` from `offset` on, as many as `like` has."""
    height, width = like.shape[-2:]
    return x[..., offset : offset + height, offset : offset + width]
