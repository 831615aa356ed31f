"""EDeconvNet: DeconvNet and FCN-8s together.

Noh, Hong and Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015,
https://arxiv.org/abs/1505.04366; `product` as in the release,
https://github.com/HyeonwooNoh/DeconvNet, generate_EDeconvNet_CRF_results.m

Differs from the paper: both networks take torchvision's normalization.
"""

from typing import Literal

import torch
from torch import Tensor

from segment.architectures.deconvnet import DeconvNet
from segment.architectures.fcn import FCN
from segment.architectures.layers import SegmentationNetwork, check_positive


class EDeconvNet(SegmentationNetwork):
    """Both networks on the same photo, their answers joined pixel by pixel.

    Args:
        num_classes: Number of classes C, background included.
        combination: `mean` of the probabilities, as in the paper; `product` of the scores, those
            below 0 taken as 0, as in the release.
        width: Channels of both networks' first convolution; 64 in the papers.

    Raises:
        ValueError: `combination` is neither word, or `num_classes` or `width` is below 1.
    """

    least = 224  # DeconvNet's

    def __init__(
        self,
        num_classes: int,
        combination: Literal["mean", "product"] = "mean",
        width: int = 64,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        if combination not in ("mean", "product"):
            raise ValueError(f"combination is {combination!r}; it can be 'mean' or 'product'.")
        self.combination = combination
        self.deconvnet = DeconvNet(num_classes, width=width)
        self.fcn8s = FCN(num_classes, stride=8, width=width)
        self.score_names = (
            *(f"deconvnet.{name}" for name in self.deconvnet.score_names),
            *(f"fcn8s.{name}" for name in self.fcn8s.score_names),
        )

    def combine(self, deconvnet: Tensor, fcn8s: Tensor) -> Tensor:
        """Join the logits of both networks, float (N, C, H, W) each, to logits of that shape."""
        if self.combination == "product":
            return deconvnet.clamp(min=0) * fcn8s.clamp(min=0)
        # The logarithm of the mean: its softmax is the mean.
        both = torch.stack([deconvnet, fcn8s]).log_softmax(2)
        return both.logsumexp(0) - torch.log(torch.tensor(2.0))

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Normalized RGB, float (N, 3, H, W); H and W at least 224 pixels.

        Returns:
            Logits, float (N, C, H, W).

        Raises:
            ValueError: H or W is smaller.
        """
        self.check_size(image)
        return self.combine(self.deconvnet(image), self.fcn8s(image))
