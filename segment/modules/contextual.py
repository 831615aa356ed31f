"""Deep contextual network: how its paper trains it.

Chen, Qi, Cheng and Heng, "Deep Contextual Networks for Neuronal Structure Segmentation", AAAI 2016,
https://doi.org/10.1609/aaai.v30i1.10141

Differs from the paper: its body was not at hand, so how fast the auxiliary losses fade and when the
rate drops are choices made here; L2 is as the other papers have it; pretrained weights are VGG-16's
on ImageNet, not DeepLab's.
"""

from typing import Any

from torch import Tensor

from segment.architectures import DeepContextualNetwork
from segment.modules.base import SegmentationModule
from segment.modules.optimization import Schedule


class DeepContextualNetworkModule(SegmentationModule):
    """Deep contextual network: every branch has a loss of its own that fades during training.

    Args:
        num_classes: Number of classes C, background included.
        pretrained: VGG-16's ImageNet weights: true (a download), false, or a path.
        width: Channels of the first stage; ImageNet weights have 64.
        auxiliary_weight: What the loss of each branch weighs at first, the sum's being 1.
        auxiliary_half_life: Steps of the optimizer after which it weighs half as much.
        lr: Learning rate.
        schedule: See `SegmentationModule`.
        step_size: Steps between the drops of the learning rate, each by `gamma`.
        training: See `SegmentationModule`.
    """

    network: DeepContextualNetwork

    def __init__(
        self,
        num_classes: int,
        pretrained: bool | str = True,
        width: int = 64,
        auxiliary_weight: float = 1.0,
        auxiliary_half_life: int = 2000,
        lr: float = 1e-2,
        schedule: Schedule = "step",
        step_size: int = 8000,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, lr=lr, schedule=schedule, step_size=step_size, **training)
        if auxiliary_weight < 0 or auxiliary_half_life < 1:
            raise ValueError(
                f"model.auxiliary_weight is {auxiliary_weight} and model.auxiliary_half_life "
                f"{auxiliary_half_life}; give 0 or more, and at least 1 step."
            )
        self.save_hyperparameters()
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary_half_life = auxiliary_half_life
        self.wrap(DeepContextualNetwork(num_classes, pretrained=pretrained, width=width))

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the sum, and less and less those of its three terms."""
        height, width = mask.shape[-2:]
        branches = [
            logits[..., :height, :width] for logits in self.network.score_branches(self.pad(image))
        ]
        fused = branches[0] + branches[1] + branches[2]
        auxiliary = sum(self.cross_entropy(logits, mask) for logits in branches)
        return self.cross_entropy(fused, mask) + self.fading_weight(self.global_step) * auxiliary

    def fading_weight(self, step: int) -> float:
        """What the loss of a branch weighs at a step of the optimizer."""
        return self.auxiliary_weight * 0.5 ** (step / self.auxiliary_half_life)
