"""DeepLab v1 and v2: how their papers train them.

Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs",
ICLR 2015, https://arxiv.org/abs/1412.7062
Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous
Convolution, and Fully Connected CRFs", PAMI 2018, https://arxiv.org/abs/1606.00915

Differs from the papers: the loss is a mean over labelled positions, not a sum, so that a rate
fits any crop and batch size. Backbones that the papers do not have are trained as VGG-16: biases at
twice the rate of their weights and without decay, but norms, where they are not frozen, as weights.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures import DeepLabV1, DeepLabV2
from segment.architectures.deeplab_v1 import Variant
from segment.data.taxonomy import IGNORE
from segment.modules.base import SegmentationModule
from segment.modules.optimization import Schedule


class _DeepLab(SegmentationModule):
    """Rates and loss of v1 and v2, the loss on the network's own coarse grid or at full size."""

    network: DeepLabV1 | DeepLabV2
    loss_size: Literal["coarse", "full"] = "coarse"

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Biases of convolutions and linear layers at twice their weights' rate, without decay.

        With `head_lr_factor` 10 that is 1x and 2x for the backbone, 10x and 20x for the head. Norms
        train as weights do; a ResNet has no other biases in its backbone, which is at 1x alone.
        """
        if self.optimization.bias_lr_factor != 1:
            raise ValueError(
                f"model.bias_lr_factor is {self.optimization.bias_lr_factor}; DeepLab v1 and v2 "
                f"train biases at twice the rate of their weights already; leave it out."
            )
        layers = self.network.modules()
        biases = {id(layer.bias) for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)}
        groups = []
        for group in super().parameter_groups():
            weights = [p for p in group["params"] if id(p) not in biases]
            own = [p for p in group["params"] if id(p) in biases]
            bias = {"lr": 2 * group["lr"], "weight_decay": 0.0, "name": f"{group['name']}_bias"}
            groups += [{**group, "params": weights}, {**bias, "params": own}]
        return [group for group in groups if group["params"]]

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Sum of the cross-entropies of every score map (one, or one per scale and their max).

        `coarse`, as in the papers, takes the label at the pixels that the cells sit on, `[::8]`
        on a valid size, or nearest to them at other scales; `full` upsamples the scores instead.
        """
        padded = self.pad(image)
        label = mask.new_full((len(mask), *padded.shape[-2:]), IGNORE)
        label[:, : mask.shape[-2], : mask.shape[-1]] = mask
        corners = self.network.corners
        total = padded.new_zeros(())
        for scores in self.network.score_scales(padded):
            if self.loss_size == "full":
                scores = F.interpolate(
                    scores, label.shape[-2:], mode="bilinear", align_corners=corners
                )
                total = total + self.cross_entropy(scores, label)
            else:
                coarse = label_on_grid(label, scores.shape[-2:], corners)
                total = total + self.cross_entropy(scores, coarse)
        return total


def label_on_grid(label: Tensor, cells: Sequence[int], corners: bool) -> Tensor:
    """The label at the pixels nearest to the cells of a coarse map.

    Args:
        label: int64 (N, H, W).
        cells: Height and width of the coarse map.
        corners: Whether the outermost cells sit on the corner pixels, or cells fill the photo.

    Returns:
        int64 (N, *cells).
    """
    rows, columns = (
        [
            round(cell * (size - 1) / max(1, count - 1))
            if corners
            else int((cell + 0.5) * size / count)
            for cell in range(count)
        ]
        for size, count in zip(label.shape[-2:], cells, strict=True)
    )
    return label[:, rows][:, :, columns]


class DeepLabV1Module(_DeepLab):
    """DeepLab v1 as in section 5 of its paper: SGD 1e-3 dropping by ten, its classifier at 1e-2.

    The paper trains the branches of `msc_largefov` behind a LargeFOV that stays as it is; here all
    is trained together, the branches at the classifier's rate, as in its release. `weights` may be
    a checkpoint of `largefov`, classifier and all, and so may `pretrained`, but for its fc8.

    Args:
        num_classes: Number of classes C, background included.
        variant: `largefov`, the paper's best single network; `4x4` and `7x7`, larger and slower;
            `msc_largefov`, which also scores the photo and the first four pools.
        pretrained: ImageNet weights: true (an installed package or a download), false, or a path.
        loss_size: Take the loss on the `coarse` grid as in the paper, or at `full` size.
        lr: Learning rate of the backbone.
        schedule: See `SegmentationModule`; v2 found poly better.
        step_size: Steps between the drops of the learning rate, each by `gamma`.
        head_lr_factor: Rate of the classifier over that. Biases everywhere have twice the rate of
            their weights, and no decay.
        training: See `SegmentationModule`.
    """

    def __init__(
        self,
        num_classes: int,
        variant: Variant = "largefov",
        pretrained: bool | str = True,
        loss_size: Literal["coarse", "full"] = "coarse",
        lr: float = 1e-3,
        schedule: Schedule = "step",
        step_size: int = 2000,
        head_lr_factor: float = 10.0,
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes,
            lr=lr,
            schedule=schedule,
            step_size=step_size,
            head_lr_factor=head_lr_factor,
            **training,
        )
        self.save_hyperparameters()
        self.loss_size = loss_size
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
        loss_size: Take the loss on the `coarse` grid as in the paper, or at `full` size.
        lr: Learning rate of the backbone; the paper has 2.5e-4 for ResNet-101, 1e-3 for VGG16.
        head_lr_factor: Rate of the scores over that. Biases everywhere, norms' excepted, have twice
            the rate of their weights, and no decay.
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
        loss_size: Literal["coarse", "full"] = "coarse",
        lr: float = 1e-3,
        head_lr_factor: float = 10.0,
        freeze_batch_norm: bool = True,
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes,
            lr=lr,
            head_lr_factor=head_lr_factor,
            freeze_batch_norm=freeze_batch_norm,
            **training,
        )
        self.save_hyperparameters()
        self.loss_size = loss_size
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
