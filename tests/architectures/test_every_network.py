"""What every network does alike."""

from collections.abc import Callable
from inspect import signature

import pytest
import torch

from segment import architectures, modules
from segment.architectures import (
    FCN,
    FRRN,
    DeconvNet,
    DeepContextualNetwork,
    DeepLabV1,
    DeepLabV2,
    DeepLabV3,
    DeepLabV3Plus,
    EDeconvNet,
    PatchCNN,
    PlainFCN,
    SegNet,
    SegNetBasic,
    SemanticFPN,
    TorchvisionDeepLabV3,
    TorchvisionFCN,
    UNet,
    UpsamplingNet,
)
from segment.architectures.layers import SegmentationNetwork
from segment.modules import SegmentationModule

# A form of each, its first argument being the number of classes.
FORMS: dict[str, Callable[[int], SegmentationNetwork]] = {
    "PatchCNN": lambda c: PatchCNN(c, width=4),
    "PatchCNN fully convolutional": lambda c: PatchCNN(c, "fully_convolutional", 4),
    "PatchCNN shift-and-stitch": lambda c: PatchCNN(c, "shift_and_stitch", 4),
    "PlainFCN": lambda c: PlainFCN(c, width=4),
    "PlainFCN context": lambda c: PlainFCN(c, "context"),
    "FCN 32s": lambda c: FCN(c, width=4),
    "FCN 16s": lambda c: FCN(c, 16, width=4),
    "FCN 8s same": lambda c: FCN(c, 8, padding="same", width=4),
    "FCN AlexNet": lambda c: FCN(c, backbone="alexnet", width=4),
    "FCN timm": lambda c: FCN(c, 8, backbone="test_resnet", padding="same"),
    "TorchvisionFCN": lambda c: TorchvisionFCN(c),
    "TorchvisionDeepLabV3": lambda c: TorchvisionDeepLabV3(c),
    "DeconvNet": lambda c: DeconvNet(c, width=4),
    "EDeconvNet": lambda c: EDeconvNet(c, width=4),
    "SegNet": lambda c: SegNet(c, width=4),
    "SegNetBasic": lambda c: SegNetBasic(c, width=4),
    "UNet": lambda c: UNet(c, width=4),
    "UNet padded": lambda c: UNet(c, True, True, width=4),
    "UNet timm": lambda c: UNet(c, True, True, 4, "test_resnet"),
    "DeepLabV1": lambda c: DeepLabV1(c),
    "DeepLabV1 4x4": lambda c: DeepLabV1(c, "4x4"),
    "DeepLabV1 MSc": lambda c: DeepLabV1(c, "msc_largefov"),
    "DeepLabV2 VGG": lambda c: DeepLabV2(c),
    "DeepLabV2 scales": lambda c: DeepLabV2(c, "test_resnet", multi_scale=True),
    "DeepLabV3": lambda c: DeepLabV3(c, "resnet50", 8),
    "DeepLabV3 timm": lambda c: DeepLabV3(c, "convnext_atto", multi_grid=None),
    "DeepLabV3Plus": lambda c: DeepLabV3Plus(c),
    "FRRN A": lambda c: FRRN(c, "A", 3),
    "FRRN B": lambda c: FRRN(c, "B", 3),
    "SemanticFPN": lambda c: SemanticFPN(c, "test_resnet", 64),
    "SemanticFPN half-pixel": lambda c: SemanticFPN(c, "convnext_atto", 64),
    "DeepContextualNetwork": lambda c: DeepContextualNetwork(c, width=4),
    **{
        f"UpsamplingNet {form}": lambda c, form=form: UpsamplingNet(c, form, 4)
        for form in ("nearest", "max_unpooling", "transposed_convolution", "dilation")
    },
}
MODULES = [name for name in modules.__all__ if name != "SegmentationModule"]
WIDE = [PatchCNN, PlainFCN, FCN, DeconvNet, EDeconvNet, SegNet, SegNetBasic, UNet, DeepLabV3]
WIDE += [DeepLabV3Plus, FRRN, SemanticFPN, DeepContextualNetwork, UpsamplingNet]


def test_every_network_is_here() -> None:
    assert {name.split()[0] for name in FORMS} == set(architectures.__all__)


@pytest.mark.filterwarnings("ignore:The feature map has:UserWarning")
@pytest.mark.parametrize("size", [(512, 512), (375, 500)])
@pytest.mark.parametrize("name", MODULES)
def test_a_module_scores_every_pixel_of_any_photo(name: str, size: tuple[int, int]) -> None:
    kind = getattr(modules, name)
    given = {"pretrained": False} if "pretrained" in signature(kind).parameters else {}
    with torch.device("meta"):
        photo = torch.zeros(2, 3, *size, dtype=torch.uint8)
        assert kind(5, **given).eval()(photo).shape == (2, 5, *size)


@pytest.mark.filterwarnings("ignore:The feature map has:UserWarning")
@pytest.mark.parametrize("size", [(512, 512), (375, 500)])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_scores_every_pixel_of_any_photo(form: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        module = SegmentationModule(5)
        module.wrap(FORMS[form](5))
        photo = torch.zeros(2, 3, *size, dtype=torch.uint8)
        assert module.eval()(photo).shape == (2, 5, *size)


@pytest.mark.parametrize("width", [0, -1])
@pytest.mark.parametrize("network", WIDE)
def test_a_layer_without_channels_is_refused(
    network: Callable[..., SegmentationNetwork], width: int
) -> None:
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=rf"^width is {width}; (give|it can)"),
    ):
        network(3, width=width)


@pytest.mark.parametrize("form", FORMS)
def test_scores_of_no_class_are_refused(form: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="num_classes is 0; give at least 1"):
        FORMS[form](0)


def test_every_network_with_a_width_is_here() -> None:
    every = [getattr(architectures, name) for name in architectures.__all__]
    assert {n for n in every if "width" in n.__init__.__annotations__} == set(WIDE)
