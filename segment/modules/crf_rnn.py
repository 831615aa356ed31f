"""CRF-RNN: FCN-8s and a dense CRF, trained as one.

Zheng, Jayasumana, Romera-Paredes, Vineet, Su, Du, Huang and Torr, "Conditional Random Fields as
Recurrent Neural Networks", ICCV 2015, https://arxiv.org/abs/1502.03240; its release,
https://github.com/torrvision/crfasrnn

Differs from the paper: each kernel has one weight, where the release has one for each pair of
classes (of which those of a class with itself start above 0); the compatibility of labels is kept
symmetric, so that every backend of `DenseCRF` can take it; kernel weights stay 0 or more. The loss
is a mean over labelled pixels, not their sum, so the paper's rate of 1e-13 is multiplied by the
pixels of a photo: 1.9e-8 for 375x500.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from segment.architectures import FCN
from segment.architectures.classifiers import Padding
from segment.crf import CRFLayer, DenseCRF
from segment.data.transforms import evaluation_image
from segment.modules.base import Batch, SegmentationModule
from segment.modules.optimization import Schedule


class CRFRNNModule(SegmentationModule):
    """A trained FCN-8s, trained on through mean-field steps that learn with it.

    The network alone is `network`, and what `forward` and `segment.export` give. Training goes
    through `crf_layer`; `probabilities`, from which everything is scored and predicted, refines
    with `dense_crf()`: what the layer has learnt, in the fastest backend.

    Args:
        num_classes: Number of classes C.
        backbone: `vgg16` or a timm name; see `FCNModule`.
        padding: `original` pads photos by 100 pixels and crops; `same` pads every layer, and is
            what timm's backbones take.
        learn_upsampling: See `FCNModule`; it has to be as in the run that `weights` is of.
        pretrained: ImageNet weights, where there are no `weights`: true, false, or a path.
        width: Channels of the first layer of VGG-16.
        weights: Checkpoint of `FCNModule` with stride 8, from which the paper starts.
        training_iterations: Mean-field steps in training, 1 or more.
        iterations: Mean-field steps in evaluation and prediction.
        position_width_px: See `DenseCRF`, as all of the kernels; widths are not learnt. They are in
            pixels of the crops and photos that the network sees.
        position_weight: Where learning starts.
        bilateral_width_px: Fixed.
        bilateral_width_levels: Fixed.
        bilateral_weight: Where learning starts.
        lr: Learning rate of the network's weights.
        bias_lr_factor: Rate of the biases over that.
        kernel_lr_factor: Rate of both kernels' weights over `lr`; the release has 10000.
        compatibility_lr_factor: Rate of the compatibility of labels over `lr`; the release has
            1000. Neither has an L2 penalty.
        training: See `SegmentationModule`.

    Raises:
        ValueError: A setting is out of its range.
    """

    refines_itself = True

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg16",
        padding: Padding = "original",
        learn_upsampling: bool = False,
        pretrained: bool | str = False,
        width: int = 64,
        weights: str | None = None,
        training_iterations: int = 5,
        iterations: int = 10,
        position_width_px: float = 3.0,
        position_weight: float = 3.0,
        bilateral_width_px: float = 160.0,
        bilateral_width_levels: float = 3.0,
        bilateral_weight: float = 5.0,
        lr: float = 1.9e-8,
        momentum: float = 0.99,
        weight_decay: float = 5e-4,
        schedule: Schedule = "constant",
        bias_lr_factor: float = 2.0,
        kernel_lr_factor: float = 1e4,
        compatibility_lr_factor: float = 1e3,
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            schedule=schedule,
            bias_lr_factor=bias_lr_factor,
            weights=weights,
            **training,
        )
        self.save_hyperparameters()
        for name, value in (
            ("kernel_lr_factor", kernel_lr_factor),
            ("compatibility_lr_factor", compatibility_lr_factor),
        ):
            if not 0 <= value < math.inf:
                raise ValueError(f"model.{name} is {value}; give 0 or more.")
        if training_iterations < 1:
            raise ValueError(
                f"model.training_iterations is {training_iterations}; give at least 1, or train "
                f"FCNModule."
            )
        self.factors = {"kernels": kernel_lr_factor, "compatibility": compatibility_lr_factor}
        self.iterations = iterations
        crf = DenseCRF(
            iterations=iterations,
            position_width_px=position_width_px,
            position_weight=position_weight,
            bilateral_width_px=bilateral_width_px,
            bilateral_width_levels=bilateral_width_levels,
            bilateral_weight=bilateral_weight,
            normalization="after",  # as the release: 1 / n_i on what was filtered
            clip=1e-30,  # the layer clips nothing
        )
        self.wrap(
            FCN(
                num_classes,
                stride=8,
                backbone=backbone,
                padding=padding,
                learn_upsampling=learn_upsampling,
                pretrained=pretrained,
                width=width,
            )
        )
        self.crf_layer = CRFLayer(num_classes, replace(crf, iterations=training_iterations))

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of what the mean field makes of the scores."""
        scores = self(image).float()
        # Sums over thousands of pixels want all digits, whatever the trainer's precision.
        with torch.autocast(image.device.type, enabled=False):
            refined = self.crf_layer(image, scores)
        return self.cross_entropy(refined, mask)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Keep kernel weights at 0 or more, as `DenseCRF` takes them."""
        self.crf_layer.clamp_weights()

    def dense_crf(self) -> DenseCRF:
        """What was learnt, for evaluation: `iterations` steps in the fastest backend."""
        return replace(
            self.crf_layer.dense_crf(),
            iterations=self.iterations,
            # The torch backend stays on the probabilities' device.
            backend="auto" if self.device.type == "cpu" else "torch",
        )

    def probabilities(self, image: Tensor) -> Tensor:
        """As in `SegmentationModule`, refined."""
        maps = super().probabilities(image)
        photos = evaluation_image(image, self.short_side).permute(0, 2, 3, 1)
        return self.dense_crf()(photos, maps)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The network's, and the CRF's at rates of their own."""
        layer = self.crf_layer
        learnt = {
            "kernels": [layer.position_weight, layer.bilateral_weight],
            "compatibility": [layer.compatibility],
        }
        rate = self.optimization.lr
        return super().parameter_groups() + [
            {"params": learnt[name], "lr": rate * factor, "weight_decay": 0.0, "name": name}
            for name, factor in self.factors.items()
        ]
