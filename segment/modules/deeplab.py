"""DeepLab v1 and v2: how their papers train them.

Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs",
ICLR 2015, https://arxiv.org/abs/1412.7062
Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous
Convolution, and Fully Connected CRFs", PAMI 2018, https://arxiv.org/abs/1606.00915

Differs from the papers: the loss is a mean over labelled positions, not a sum, so that a rate
fits any crop and batch size; v1 may use the poly schedule, which v2 found better.
"""

from typing import Any, Literal

from torch import Tensor

from segment.architectures import DeepLabV1, DeepLabV2
from segment.data.taxonomy import IGNORE
from segment.modules.base import SegmentationModule


class _DeepLab(SegmentationModule):
    """The loss of v1 and v2, on the network's own coarse grid."""

    network: DeepLabV1 | DeepLabV2

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Sum of the cross-entropies of every score map (one, or one per scale and their max).

        The label is taken at the pixels the grid sits on: every 8th from 0, since cell o of
        these networks is at pixel 8 * o.
        """
        padded = self.pad(image)
        label = mask.new_full((len(mask), *padded.shape[-2:]), IGNORE)
        label[:, : mask.shape[-2], : mask.shape[-1]] = mask
        total = padded.new_zeros(())
        for scores in self.network.score_scales(padded):
            coarse = label_on_grid(label, scores, self.network.corner_aligned)
            total = total + self.cross_entropy(scores, coarse)
        return total


def label_on_grid(label: Tensor, scores: Tensor, corner_aligned: bool) -> Tensor:
    """The label (N, H, W) at the pixels that the cells of scores (N, C, h, w) sit on."""
    steps = [
        (size - corner_aligned) // (cells - corner_aligned) if cells > 1 else size
        for size, cells in zip(label.shape[-2:], scores.shape[-2:], strict=True)
    ]
    # From 0 where corners are aligned; else from the pixel right of the middle of a cell.
    first = [0 if corner_aligned else step // 2 for step in steps]
    return label[:, first[0] :: steps[0], first[1] :: steps[1]]


class DeepLabV1Module(_DeepLab):
    """DeepLab-LargeFOV as in section 5 of its paper: SGD 1e-3, the classifier at ten times that.

    Args:
        num_classes: Number of classes C, background included.
        variant: `largefov`, the paper's best single network.
        pretrained: ImageNet weights: true (an installed package or a download), false, or a path.
        lr: Learning rate of the backbone.
        training: See `SegmentationModule`.
    """

    def __init__(
        self,
        num_classes: int,
        variant: Literal["largefov"] = "largefov",
        pretrained: bool | str = True,
        lr: float = 1e-3,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, lr=lr, **training)
        self.save_hyperparameters()
        self.wrap(DeepLabV1(num_classes, variant=variant, pretrained=pretrained))


class DeepLabV2Module(_DeepLab):
    """DeepLab v2 as in section 4 of its paper: poly schedule, the ASPP at ten times the rate.

    Args:
        num_classes: Number of classes C, background included.
        backbone: `vgg16`, `resnet101`, or any timm model whose output stride can be 8.
        aspp: Rates of the four branches: `small` 2, 4, 8, 12; `large` 6, 12, 18, 24.
        output_stride: Pixels per cell of the feature map.
        multi_scale: Run scales 1, 0.75 and 0.5 and take the maximum of their scores.
        pretrained: ImageNet weights: true (an installed package or a download), false, or a path.
        lr: Learning rate of the backbone; the paper has 2.5e-4 for ResNet-101, 1e-3 for VGG16.
        freeze_batch_norm: Keep the backbone's BN as it is, as the paper does with ResNet-101.
        training: See `SegmentationModule`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg16",
        aspp: Literal["small", "large"] = "large",
        output_stride: int = 8,
        multi_scale: bool = False,
        pretrained: bool | str = True,
        lr: float = 2.5e-4,
        freeze_batch_norm: bool = True,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, lr=lr, freeze_batch_norm=freeze_batch_norm, **training)
        self.save_hyperparameters()
        self.wrap(
            DeepLabV2(
                num_classes,
                backbone=backbone,
                aspp=aspp,
                output_stride=output_stride,
                multi_scale=multi_scale,
                pretrained=pretrained,
            )
        )
