"""torchvision's FCN and DeepLab v3 on dilated ResNets, under their own parameter names.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
https://arxiv.org/abs/1411.4038; Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution
for Semantic Image Segmentation", 2017, https://arxiv.org/abs/1706.05587; as torchvision has them,
https://pytorch.org/vision/stable/models.html#semantic-segmentation

Differs from the papers: both predict at stride 8 by dilation; FCN has no skips, and its scores come
from a 3x3 convolution with batch normalization; DeepLab v3 has an extra 3x3 convolution before its
scores and no multi-grid. Cell o of the features sits on pixel 8 * o, but is upsampled as if it sat
on 8 * o + 3.5, so that on multiples of 8 every score lies 3.5 pixels right of and below what it
saw. The weights that torchvision publishes have learnt this, so it stays.
"""

from typing import Literal

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.layers import SegmentationNetwork, check_positive
from segment.architectures.pretrained import (
    load_weights,
    matching,
    torchvision_weights,
)


class _TorchvisionNetwork(SegmentationNetwork):
    """A ResNet at output stride 8, a head, and an auxiliary head for training."""

    family: Literal["fcn", "deeplabv3"]
    score_names = ("classifier.4", "aux_classifier.4")
    head_names = ("classifier", "aux_classifier")
    added_names = ("aux_classifier",)
    least = 9  # 2 x 2 cells, so that batch normalization has something to average

    def __init__(
        self,
        num_classes: int,
        backbone: Literal["resnet50", "resnet101"] = "resnet50",
        auxiliary: bool = False,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes)
        if backbone not in ("resnet50", "resnet101"):
            raise ValueError(f"backbone is {backbone!r}; it can be 'resnet50' or 'resnet101'.")
        model = torchvision.models.get_model(
            f"{self.family}_{backbone}",
            weights=None,
            weights_backbone=None,
            num_classes=num_classes,
            aux_loss=auxiliary,
        )
        self.backbone: nn.Module = model.backbone
        self.classifier: nn.Module = model.classifier
        self.aux_classifier: nn.Module | None = model.aux_classifier
        if pretrained:
            self._load(f"{self.family}_{backbone}", pretrained)

    def score_both(self, image: Tensor) -> list[Tensor]:
        """Score every pixel from the last features and, with `auxiliary`, from those before.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W from 9 pixels on.

        Returns:
            Logits, one or two tensors, float (N, C, H, W).

        Raises:
            ValueError: H or W is below 9, or DeepLab v3 is to train on a single photo.
        """
        self.check_size(image)
        if self.family == "deeplabv3" and self.training and len(image) == 1:
            raise ValueError(
                "DeepLab v3 averages a whole photo to one cell, which batch normalization cannot "
                "train on with one photo per step and device; set data.batch_size to 2 or more."
            )
        features = self.backbone(image)
        scores = [self.classifier(features["out"])]
        if self.aux_classifier is not None:
            scores.append(self.aux_classifier(features["aux"]))
        return [
            F.interpolate(score, image.shape[-2:], mode="bilinear", align_corners=False)
            for score in scores
        ]

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel from the last features; see `score_both`."""
        return self.score_both(image)[0]

    def _load(self, name: str, pretrained: bool | str) -> None:
        weights, source = torchvision_weights(name, pretrained, "COCO_WITH_VOC_LABELS_V1")
        if "fc.weight" in weights:  # a classifier: torchvision's ResNet
            classifier = ["fc.weight", "fc.bias"]
            own = self.backbone.state_dict()
            matched = matching(weights, own, source, classifier)
            self.backbone.load_state_dict(matched, strict=False)
            return
        if self.aux_classifier is None:
            weights = {k: v for k, v in weights.items() if not k.startswith("aux_classifier.")}
        load_weights(self, weights, source)


class TorchvisionFCN(_TorchvisionNetwork):
    """A ResNet at output stride 8 and one 3x3 convolution before the scores.

    Args:
        num_classes: Number of classes C, background included.
        backbone: "resnet50" or "resnet101".
        auxiliary: Whether stage 4's features are scored as well, for the loss.
        pretrained: False, True for torchvision's network trained on COCO with VOC's 21 classes
            (scores start anew where C differs), or the path of a file of such weights, of
            torchvision's ResNet, or of an earlier run.

    Raises:
        ValueError: There is no such backbone, or the weights are not to be had.
    """

    family = "fcn"


class TorchvisionDeepLabV3(_TorchvisionNetwork):
    """A ResNet at output stride 8 and ASPP of rates 12, 24 and 36 with image pooling.

    Args:
        num_classes: Number of classes C, background included.
        backbone: "resnet50" or "resnet101".
        auxiliary: Whether stage 4's features are scored as well, for the loss.
        pretrained: False, True for torchvision's network trained on COCO with VOC's 21 classes
            (scores start anew where C differs), or the path of a file of such weights, of
            torchvision's ResNet, or of an earlier run.

    Raises:
        ValueError: There is no such backbone, or the weights are not to be had.
    """

    family = "deeplabv3"
