"""FRRN: how its paper trains it.

Pohlen, Hermans, Mathias and Leibe, "Full-Resolution Residual Networks for Semantic Segmentation in
Street Scenes", CVPR 2017, https://arxiv.org/abs/1611.08323

Differs from the paper: photos are augmented as `data` says, where the paper shifts by up to 120
pixels, rotates by 10 degrees and changes gamma; a crop with fewer than K pixels takes the mean over
all of them.
"""

from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from segment.architectures import FRRN
from segment.data.taxonomy import IGNORE
from segment.modules.base import SegmentationModule
from segment.modules.optimization import OptimizerName, Schedule


class FRRNModule(SegmentationModule):
    """FRRN as its authors train it: Adam, and a loss over each photo's hardest pixels.

    Args:
        num_classes: Number of classes C, background included.
        variant: `A`, pooled to 1/16, or `B`, pooled to 1/32.
        width: Base channels, a multiple of 3.
        checkpointing: Less memory in training for more time.
        hardest: K, the pixels of every photo that make up its loss. The release has 512 * 64.
        lr: Learning rate.
        optimizer: See `SegmentationModule`.
        weight_decay: L2 penalty; the paper has none.
        schedule: See `SegmentationModule`.
        step_size: Steps between the drops of the learning rate.
        gamma: Factor of each drop; the paper divides by 1.25.
        min_lr: Learning rate below which it does not drop.
        training: See `SegmentationModule`.
    """

    network: FRRN

    def __init__(
        self,
        num_classes: int,
        variant: Literal["A", "B"] = "A",
        width: int = 48,
        checkpointing: bool = False,
        hardest: int = 512 * 64,
        lr: float = 1e-3,
        optimizer: OptimizerName = "adam",
        weight_decay: float = 0.0,
        schedule: Schedule = "step",
        step_size: int = 5000,
        gamma: float = 0.8,
        min_lr: float = 5e-5,
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes,
            lr=lr,
            optimizer=optimizer,
            weight_decay=weight_decay,
            schedule=schedule,
            step_size=step_size,
            gamma=gamma,
            min_lr=min_lr,
            **training,
        )
        if hardest < 1:
            raise ValueError(f"model.hardest is {hardest}; give at least 1 pixel.")
        self.save_hyperparameters()
        self.hardest = hardest
        self.wrap(FRRN(num_classes, variant=variant, width=width, checkpointing=checkpointing))

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Bootstrapped cross-entropy over the hardest pixels of every photo."""
        weight = self.class_weights
        return bootstrapped_cross_entropy(self(image), mask, self.hardest, weight)


def bootstrapped_cross_entropy(
    logits: Tensor, mask: Tensor, hardest: int, weight: Tensor | None = None
) -> Tensor:
    """Mean over photos of the mean over each photo's largest terms.

    Unlabelled pixels have a term of 0, as released: they count where labelled ones are fewer.

    Args:
        logits: Float (N, C, H, W).
        mask: int64 (N, H, W), 255 where unlabelled.
        hardest: K, terms of each photo that count; at most H * W do.
        weight: Of each class, float (C,), multiplies its pixels' terms; None weighs all alike.
    """
    terms = F.cross_entropy(
        logits.float(), mask, weight=weight, ignore_index=IGNORE, reduction="none"
    ).flatten(1)
    return terms.topk(min(hardest, terms.shape[1]), dim=1, sorted=False).values.mean()
