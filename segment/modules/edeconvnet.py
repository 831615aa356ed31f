"""EDeconvNet: two trained networks, joined for evaluation.

Noh, Hong and Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015,
https://arxiv.org/abs/1505.04366

Differs from the paper: DeconvNet scores regular overlapping windows, not object proposals.
"""

from typing import Any, Literal

from torch import Tensor

from segment.architectures import EDeconvNet
from segment.architectures.layers import SegmentationNetwork
from segment.architectures.pretrained import load_weights
from segment.data.transforms import evaluation_image
from segment.modules.base import SegmentationModule
from segment.modules.deconvnet import best_scores
from segment.modules.loading import read_weights
from segment.modules.optimization import Schedule


class EDeconvNetModule(SegmentationModule):
    """DeconvNet's best score of any window, joined with FCN-8s's of the whole photo.

    There is nothing left to train. A run of one step makes the checkpoint that `segment.evaluate`
    and `segment.predict` take; its rate of 1e-12 changes no label, and both networks stay in
    evaluation mode.

    Args:
        num_classes: Number of classes C, background included.
        combination: `mean` of the probabilities (paper) or `product` of the scores (release).
        deconvnet_weights: Checkpoint of DeconvNet's stage 2; null leaves random weights.
        fcn8s_weights: Checkpoint of FCN with stride 8, `original` padding; null: random weights.
        width: Channels of both networks' first convolution; 64 in the papers.
        inference: `patches` or `whole`, for DeconvNet; FCN-8s takes the photo whole.
        lr: Learning rate.
        schedule: See `SegmentationModule`.
        training: See `SegmentationModule`.

    Raises:
        ValueError: A checkpoint is of another architecture or of other classes.
    """

    network: EDeconvNet
    starts_from = ("weights", "deconvnet_weights", "fcn8s_weights")

    def __init__(
        self,
        num_classes: int,
        combination: Literal["mean", "product"] = "mean",
        deconvnet_weights: str | None = None,
        fcn8s_weights: str | None = None,
        width: int = 64,
        inference: Literal["whole", "patches"] = "patches",
        lr: float = 1e-12,
        schedule: Schedule = "constant",
        **training: Any,
    ) -> None:
        super().__init__(num_classes, lr=lr, schedule=schedule, **training)
        if inference not in ("whole", "patches"):
            raise ValueError(f"model.inference is {inference!r}; it can be 'whole' or 'patches'.")
        # The run's own checkpoint holds both networks, wherever theirs have gone since.
        self.save_hyperparameters(ignore=["deconvnet_weights", "fcn8s_weights"])
        self.inference = inference
        network = EDeconvNet(num_classes, combination=combination, width=width)
        _fill(network.deconvnet, deconvnet_weights)
        _fill(network.fcn8s, fcn8s_weights)
        self.wrap(network)
        self.eval()

    def train(self, mode: bool = True) -> "EDeconvNetModule":
        """Stay in evaluation mode: a step would move BN's statistics, whatever its rate."""
        super().train(False)
        return self

    def probabilities(self, image: Tensor) -> Tensor:
        """As in `SegmentationModule`."""
        if self.inference == "whole":
            return super().probabilities(image)
        image = evaluation_image(image, self.short_side)
        height, width = image.shape[-2:]
        best = best_scores(lambda p: self.network.deconvnet(self.pad(p)), image, self.num_classes)
        fcn8s = self.network.fcn8s(self.pad(image))[..., :height, :width].float()
        return self.network.combine(best, fcn8s).softmax(1)


def _fill(network: SegmentationNetwork, path: str | None) -> None:
    if path is None:
        return
    anew = load_weights(network, read_weights(path, type(network).__name__), path)
    if anew:
        raise ValueError(
            f"{path}: has nothing for {', '.join(anew)} of these classes; give a checkpoint of the "
            f"last stage, trained on the same classes."
        )
