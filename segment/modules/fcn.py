"""FCN: how its release trains it.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
https://arxiv.org/abs/1411.4038; its release, https://github.com/shelhamer/fcn.berkeleyvision.org

Differs from the release: the loss is a mean over labelled pixels, not their sum, so its rates are
multiplied by the pixels of a photo: 1e-10 becomes 1.9e-5 for 375x500 and 2.6e-5 for 512x512.

Differs from the paper as the release does: one photo a step with momentum 0.99, where the paper
takes 20 with 0.9 and a rate of 1e-4 (VGG-16).
"""

from typing import Any

from segment.architectures import FCN
from segment.architectures.classifiers import Padding
from segment.modules.base import SegmentationModule
from segment.modules.optimization import Schedule


class FCNModule(SegmentationModule):
    """FCN with heavy momentum at a constant rate, one whole photo per step, biases at twice that.

    The release trains 32s from ImageNet's weights, then 16s from 32s and 8s from 16s (`weights`),
    each at a hundredth of the rate before. 8s at once takes the rate of 32s. AlexNet's rate is 1e-4
    with a momentum of 0.9 over 20 photos per step.

    Args:
        num_classes: Number of classes C, background included.
        stride: Of the finest scores: 32, 16 or 8.
        at_once: Train stride 8 from the start, its finer layers scaled by 0.01 and 0.0001.
        backbone: `vgg16`, `alexnet` (stride 32 only), or a timm name.
        padding: `original` pads photos by 100 pixels and crops; `same` pads every layer, and is
            what timm's backbones take.
        learn_upsampling: Learn the upsampling between scores, as in the paper; the release does
            not.
        pretrained: ImageNet weights: true (an installed package or a download), false, or a path.
        width: Channels of the first layer of VGG-16 and AlexNet.
        lr: Learning rate of the weights.
        bias_lr_factor: Rate of the biases over that.
        training: See `SegmentationModule`.
    """

    def __init__(
        self,
        num_classes: int,
        stride: int = 32,
        at_once: bool = False,
        backbone: str = "vgg16",
        padding: Padding = "original",
        learn_upsampling: bool = False,
        pretrained: bool | str = True,
        width: int = 64,
        lr: float = 1.9e-5,
        momentum: float = 0.99,
        weight_decay: float = 5e-4,
        schedule: Schedule = "constant",
        bias_lr_factor: float = 2.0,
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            schedule=schedule,
            bias_lr_factor=bias_lr_factor,
            **training,
        )
        self.save_hyperparameters()
        self.wrap(
            FCN(
                num_classes,
                stride=stride,
                at_once=at_once,
                backbone=backbone,
                padding=padding,
                learn_upsampling=learn_upsampling,
                pretrained=pretrained,
                width=width,
            )
        )
