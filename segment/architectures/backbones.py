"""Backbones: VGG-16 as DeepLab has it, and any timm model with a chosen output stride."""

import timm
import torch
from torch import Tensor, nn

from segment.architectures.pretrained import State, timm_weights, unavailable

Triple = tuple[float, float, float]

WORKING = "EfficientNet(-Lite), ResNet, MobileNetV3, MixNet, RegNet, ConvNeXt, Xception-65"


class VGG16Trunk(nn.Sequential):
    """conv1_1 to pool5 of VGG-16 at output stride 8, as DeepLab v1 and v2 have it.

    Pools are 3x3 with padding 1, so that cell o sits at pixel 8 * o; pool4 and pool5 keep the
    resolution, and conv5 is dilated by 2 in their place. No batch normalization.
    """

    channels = 512
    output_stride = 8
    corner_aligned = True
    mean: Triple = (0.485, 0.456, 0.406)  # of torchvision's IMAGENET1K_V1 weights
    std: Triple = (0.229, 0.224, 0.225)
    # Indices of the convolutions in torchvision's vgg16.features.
    torchvision_indices = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        channels = 3
        # Convolutions, channels, dilation, stride of the pool behind them.
        for depth, width, dilation, stride in (
            (2, 64, 1, 2),
            (2, 128, 1, 2),
            (3, 256, 1, 2),
            (3, 512, 1, 1),
            (3, 512, 2, 1),
        ):
            for _ in range(depth):
                conv = nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation)
                layers += [conv, nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        super().__init__(*layers)

    def load(self, state: State) -> None:
        """Take the convolutions of torchvision's VGG-16."""
        convs = [layer for layer in self if isinstance(layer, nn.Conv2d)]
        for conv, index in zip(convs, self.torchvision_indices, strict=True):
            conv.load_state_dict(
                {name: state[f"features.{index}.{name}"] for name in ("weight", "bias")}
            )


class TimmBackbone(nn.Module):
    """The last feature map of a timm model at a chosen output stride.

    Where a stage's stride is removed, timm dilates what follows it (not the block that had the
    stride), so features are those of the original network, on a finer grid.

    Args:
        name: timm's name, with or without a tag: `resnet101`, `resnet101.tv_in1k`.
        output_stride: 8, 16 or 32 pixels per cell.
        pretrained: ImageNet weights: true, false, or the path of a state dict.

    Raises:
        ValueError: timm has no such model, the model takes no output stride, or weights are
            out of reach.
    """

    def __init__(self, name: str, output_stride: int, pretrained: bool | str) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {output_stride}; choose 8, 16 or 32.")
        if not timm.is_model(name.split(".")[0]):
            raise ValueError(
                f"backbone is {name!r}, which timm {timm.__version__} does not have; "
                f"take vgg16, resnet101, tf_efficientnet_lite0, or another name of timm.list_models()."
            )
        _check_output_stride(name, output_stride)
        weights = timm_weights(name, pretrained)
        try:
            self.features = timm.create_model(
                name, features_only=True, output_stride=output_stride, out_indices=(-1,), **weights
            )
        except Exception as error:  # whatever a download or a broken cache raises
            raise unavailable(name, error) from error
        self.channels: int = self.features.feature_info.channels()[-1]
        self.output_stride = output_stride
        # ConvNeXt's patches do not overlap: cell o sits at the middle of its patch instead.
        self.corner_aligned = not name.startswith("convnext")
        config = self.features.default_cfg if hasattr(self.features, "default_cfg") else {}
        config = config or timm.get_pretrained_cfg(name, allow_unregistered=False).to_dict()
        self.mean: Triple = tuple(config["mean"])
        self.std: Triple = tuple(config["std"])

    def forward(self, image: Tensor) -> Tensor:
        """Features, float (N, channels, h, w), of a normalized (N, 3, H, W)."""
        return self.features(image)[-1]


def _check_output_stride(name: str, output_stride: int) -> None:
    """Refuse families that timm builds at one stride only, before any weights are fetched."""
    try:
        with torch.device("meta"):
            model = timm.create_model(
                name, features_only=True, output_stride=output_stride, out_indices=(-1,)
            )
        reduction = model.feature_info.reduction()[-1]
    except (TypeError, AssertionError, RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"backbone {name} cannot have output stride {output_stride}; families that can: "
            f"{WORKING}."
        ) from error
    if reduction != output_stride:
        raise ValueError(
            f"backbone {name} has output stride {reduction}, not {output_stride}; families that "
            f"can choose: {WORKING}."
        )


def valid_length(length: int, output_stride: int, corner_aligned: bool) -> int:
    """The smallest number of pixels, at least `length`, at which cells sit on exact pixels.

    stride * k + 1 where corners are aligned (stride-2 kernels of 3 pixels), else stride * k.
    """
    cells = -(-max(length - corner_aligned, 1) // output_stride)
    return output_stride * cells + corner_aligned
