"""torchvision's FCN and DeepLab v3: how its reference script trains them.

https://github.com/pytorch/vision/tree/main/references/segmentation

Differs from the script: training starts from the weights that it gave, not from ImageNet's.
"""

from typing import Any, Literal

from torch import Tensor

from segment.architectures import TorchvisionDeepLabV3, TorchvisionFCN
from segment.modules.base import SegmentationModule


class _TorchvisionModule(SegmentationModule):
    """The auxiliary loss, and its layers at ten times the rate."""

    network: TorchvisionFCN | TorchvisionDeepLabV3
    network_class: type[TorchvisionFCN | TorchvisionDeepLabV3]
    pretrained_on = "COCO with VOC's classes"

    def __init__(
        self,
        num_classes: int,
        backbone: Literal["resnet50", "resnet101"] = "resnet50",
        auxiliary_weight: float = 0.5,
        pretrained: bool | str = True,
        lr: float = 0.02,
        weight_decay: float = 1e-4,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, lr=lr, weight_decay=weight_decay, **training)
        if auxiliary_weight < 0:
            raise ValueError(f"model.auxiliary_weight is {auxiliary_weight}; give 0 or more.")
        self.save_hyperparameters()
        self.auxiliary_weight = auxiliary_weight
        self.wrap(self.network_class(num_classes, backbone, auxiliary_weight > 0, pretrained))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Ten times the head's rates for the layers that only the auxiliary loss trains."""
        auxiliary = self.network.aux_classifier
        own = set() if auxiliary is None else {id(p) for p in auxiliary.parameters()}
        groups = []
        for group in super().parameter_groups():
            for name, factor, chosen in (("", 1.0, False), ("auxiliary_", 10.0, True)):
                parameters = [p for p in group["params"] if (id(p) in own) == chosen]
                if parameters:
                    changed = {"params": parameters, "lr": factor * group["lr"]}
                    groups.append({**group, **changed, "name": name + group["name"]})
        return groups

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the scores, plus `auxiliary_weight` times that of the auxiliary ones."""
        height, width = mask.shape[-2:]
        total = image.new_zeros((), dtype=self.mean.dtype)
        weights = (1.0, self.auxiliary_weight)
        for weight, scores in zip(weights, self.network.score_both(self.pad(image)), strict=False):
            total = total + weight * self.cross_entropy(scores[..., :height, :width], mask)
        return total


class TorchvisionFCNModule(_TorchvisionModule):
    """torchvision's FCN as its reference script trains it: SGD 0.02 for 32 photos a step, poly.

    Args:
        num_classes: Number of classes C, background included.
        backbone: `resnet50` or `resnet101`.
        auxiliary_weight: Of the auxiliary loss; 0 leaves its layers out.
        pretrained: torchvision's weights, trained on COCO with VOC's classes: true (a download),
            false, or a path, also that of torchvision's ResNet.
        lr: Learning rate of all but the auxiliary layers, which have ten times as much.
        training: See `SegmentationModule`.
    """

    network_class = TorchvisionFCN


class TorchvisionDeepLabV3Module(_TorchvisionModule):
    """torchvision's DeepLab v3 as its reference script trains it: see `TorchvisionFCNModule`.

    Args:
        num_classes: Number of classes C, background included.
        backbone: `resnet50` or `resnet101`.
        auxiliary_weight: Of the auxiliary loss; 0 leaves its layers out.
        pretrained: torchvision's weights, trained on COCO with VOC's classes: true (a download),
            false, or a path, also that of torchvision's ResNet.
        lr: Learning rate of all but the auxiliary layers, which have ten times as much.
        training: See `SegmentationModule`; a step needs at least 2 photos.
    """

    network_class = TorchvisionDeepLabV3
