"""DeepLab v3 and v3+: how their papers train and test them.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
https://arxiv.org/abs/1706.05587
Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
ECCV 2018, https://arxiv.org/abs/1802.02611

Differs from the papers: random scales are continuous, where the release steps by 0.25; the L2
penalty is on biases and norms as well.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures import DeepLabV3, DeepLabV3Plus
from segment.architectures.deeplab_v3 import RATES
from segment.architectures.layers import SegmentationNetwork
from segment.data.transforms import evaluation_image
from segment.modules.base import SegmentationModule


class _DeepLabV3(SegmentationModule):
    """Batch normalization as v3 trains it, and its inference at several scales.

    Args:
        num_classes: Number of classes C, background included.
        bn_momentum: How far one batch moves BN's running statistics.
        test_scales: Factors on the photo's size whose probabilities are averaged.
        test_flip: Whether mirrored photos are averaged in as well.
        training: See `SegmentationModule`.

    Raises:
        ValueError: No scale, or a scale or momentum that is not above 0.
    """

    def __init__(
        self,
        num_classes: int,
        bn_momentum: float,
        test_scales: tuple[float, ...],
        test_flip: bool,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, **training)
        if not test_scales or min(test_scales) <= 0:
            raise ValueError(
                f"model.test_scales is {list(test_scales)}; give at least one factor above 0."
            )
        if not 0 < bn_momentum <= 1:
            raise ValueError(f"model.bn_momentum is {bn_momentum}; give more than 0, at most 1.")
        self.bn_momentum = bn_momentum
        self.test_scales, self.test_flip = tuple(test_scales), test_flip

    def wrap(self, network: SegmentationNetwork) -> None:
        """Take the network, its weights, and the momentum of its running statistics."""
        super().wrap(network)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = self.bn_momentum

    def _frozen(self) -> list[nn.Parameter]:
        """All BN layers after a first stage, as in section 4.1; else the backbone's alone."""
        if self._weights is None:
            return super()._frozen()
        frozen = []
        for layer in self.network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
                frozen += list(layer.parameters())
        return frozen

    def probabilities(self, image: Tensor) -> Tensor:
        """The mean over scales and mirror images of what evaluation starts from.

        Args:
            image: Photos at their own size, uint8 RGB (N, 3, H, W).

        Returns:
            Probabilities, float32 (N, C, h, w), at `short_side` or the photo's own size.
        """
        if self.test_scales == (1.0,) and not self.test_flip:
            return super().probabilities(image)
        photo = evaluation_image(image, self.short_side)
        size = photo.shape[-2:]
        total = photo.new_zeros((), dtype=self.mean.dtype)
        for scale in self.test_scales:
            scaled = evaluation_image(photo, max(1, round(min(size) * scale)))
            for flip in (False, True) if self.test_flip else (False,):
                found = self(scaled.flip(-1) if flip else scaled).float().softmax(1)
                found = F.interpolate(found, size, mode="bilinear", align_corners=False)
                total = total + (found.flip(-1) if flip else found)
        return total / (len(self.test_scales) * (2 if self.test_flip else 1))


class DeepLabV3Module(_DeepLabV3):
    """DeepLab v3 as in section 4: crops of 513, poly 0.9 from 0.007, the loss at full size.

    The paper trains at stride 16 with BN, then freezes BN and goes on at stride 8 with a rate of
    0.001: give the first run's checkpoint as `weights`, and `freeze_batch_norm`. It tests at
    stride 8, on six scales (`test_scales`) and their mirror images (`test_flip`), without a CRF.

    Args:
        num_classes: Number of classes C, background included.
        backbone: `resnet50`, `resnet101`, or any timm model that takes the output stride.
        output_stride: Pixels per cell of the feature map, 16 or 8.
        multi_grid: Factors on the dilations of a ResNet's last three units; null with others.
        extra_conv: Put torchvision's 3x3 convolution between the ASPP and the scores.
        width: Channels of the ASPP's branches.
        rates: Dilations of the ASPP's 3x3 branches at stride 16. Where training's feature maps have
            no more cells than a rate, that branch's outer taps are never trained.
        pretrained: ImageNet weights: true (an installed package or a download), false, or a path.
        test_scales: Factors on the photo's size whose probabilities are averaged, in validation
            too; the paper's are 0.5, 0.75, 1, 1.25, 1.5 and 1.75.
        test_flip: Average mirrored photos in as well.
        bn_momentum: How far one batch moves BN's running statistics. The paper's 0.0003 needs
            some 10,000 steps to forget where it began; give 0.1 to shorter runs.
        lr: Learning rate of all layers.
        weight_decay: L2 penalty; the release has 1e-4 for ResNets.
        freeze_batch_norm: Keep BN as it is: the backbone's, and after `weights` the head's too,
            which also lets a batch of one train.
        training: See `SegmentationModule`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        output_stride: int = 16,
        multi_grid: tuple[int, ...] | None = (1, 2, 4),
        extra_conv: bool = False,
        width: int = 256,
        rates: tuple[int, ...] = RATES,
        pretrained: bool | str = True,
        test_scales: tuple[float, ...] = (1.0,),
        test_flip: bool = False,
        bn_momentum: float = 0.0003,
        lr: float = 0.007,
        weight_decay: float = 1e-4,
        freeze_batch_norm: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes,
            bn_momentum,
            test_scales,
            test_flip,
            lr=lr,
            weight_decay=weight_decay,
            freeze_batch_norm=freeze_batch_norm,
            **training,
        )
        self.save_hyperparameters()
        self.wrap(
            DeepLabV3(
                num_classes,
                backbone=backbone,
                output_stride=output_stride,
                multi_grid=multi_grid,
                extra_conv=extra_conv,
                width=width,
                rates=rates,
                pretrained=pretrained,
            )
        )


class DeepLabV3PlusModule(_DeepLabV3):
    """DeepLab v3+ as in section 4: trained end to end as v3 is, BN of the decoder included.

    Depthwise convolutions have no L2 penalty, as in the release. The second stage at stride 8 with
    frozen BN, and inference at several scales, are v3's: see `DeepLabV3Module`.

    Args:
        num_classes: Number of classes C, background included.
        backbone: `xception65` (`xception65.tf_in1k` for the authors' ImageNet weights),
            `resnet50`, `resnet101`, or any timm model that takes the output stride.
        output_stride: Pixels per cell of the encoder, 16 or 8.
        separable: Make the 3x3 convolutions of ASPP and decoder depthwise separable.
        multi_grid: Factors on the dilations of a ResNet's last three units; null with others.
        width: Channels of the ASPP's branches and of the decoder.
        rates: Dilations of the ASPP's 3x3 branches at stride 16. Where training's feature maps have
            no more cells than a rate, that branch's outer taps are never trained.
        pretrained: ImageNet weights: true (an installed package or a download), false, or a path.
        test_scales: Factors on the photo's size whose probabilities are averaged, in validation
            too; the paper's are 0.5, 0.75, 1, 1.25, 1.5 and 1.75.
        test_flip: Average mirrored photos in as well.
        bn_momentum: How far one batch moves BN's running statistics. The paper's 0.0003 needs
            some 10,000 steps to forget where it began; give 0.1 to shorter runs.
        lr: Learning rate of all layers.
        weight_decay: L2 penalty; the release has 4e-5 for Xception and 1e-4 for ResNets.
        freeze_batch_norm: Keep BN as it is: the backbone's, and after `weights` the head's too.
        training: See `SegmentationModule`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "xception65",
        output_stride: int = 16,
        separable: bool = True,
        multi_grid: tuple[int, ...] | None = None,
        width: int = 256,
        rates: tuple[int, ...] = RATES,
        pretrained: bool | str = True,
        test_scales: tuple[float, ...] = (1.0,),
        test_flip: bool = False,
        bn_momentum: float = 0.0003,
        lr: float = 0.007,
        weight_decay: float = 4e-5,
        freeze_batch_norm: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(
            num_classes,
            bn_momentum,
            test_scales,
            test_flip,
            lr=lr,
            weight_decay=weight_decay,
            freeze_batch_norm=freeze_batch_norm,
            **training,
        )
        self.save_hyperparameters()
        self.wrap(
            DeepLabV3Plus(
                num_classes,
                backbone=backbone,
                output_stride=output_stride,
                separable=separable,
                multi_grid=multi_grid,
                width=width,
                rates=rates,
                pretrained=pretrained,
            )
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """As in `SegmentationModule`, with depthwise convolutions apart and without L2 penalty."""
        depthwise = {
            id(layer.weight)
            for layer in self.network.modules()
            if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
        }
        groups = []
        for group in super().parameter_groups():
            params = group["params"]
            apart = [p for p in params if id(p) in depthwise]
            free = {"weight_decay": 0.0, "name": f"{group['name']}_depthwise"}
            groups.append({**group, "params": [p for p in params if id(p) not in depthwise]})
            groups.append({**group, "params": apart, **free})
        return [group for group in groups if group["params"]]
