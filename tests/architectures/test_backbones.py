"""Where cells lie, how many there are, and which timm networks can be cut."""

import pytest
import timm
import torch
from alignment import averaging, centroid, without_squeezing
from torch import nn

from segment.architectures import FCN, DeepLabV1, DeepLabV2, DeepLabV3Plus, UNet
from segment.architectures.backbones import TimmBackbone, VGG16Trunk


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: DeepLabV1(2), 297),
        (lambda: DeepLabV2(2, "resnet50", "small"), 297),
        (lambda: DeepLabV2(2, "tf_efficientnet_lite0", "small"), 289),
        (lambda: DeepLabV2(2, "tf_efficientnet_lite0", "small", output_stride=16), 289),
        (lambda: DeepLabV2(2, "regnetx_002", "small"), 297),
        (lambda: DeepLabV2(2, "mobilenetv3_small_100", "small"), 297),
        (lambda: DeepLabV2(2, "efficientnet_b0", "small"), 297),
        (lambda: DeepLabV2(2, "convnext_atto", "small"), 288),
        (lambda: DeepLabV2(2, "convnext_atto", "small", output_stride=16), 288),
    ],
)
def test_a_pixel_s_score_is_centred_on_that_pixel(make, size) -> None:
    network = averaging(make())
    assert network.valid_size(size, size) == (size, size)
    image = torch.zeros(1, 3, size, size, requires_grad=True)
    # 32 consecutive pixels away from the middle, where symmetry would hide a wrong scale.
    rows, columns = torch.arange(130, 162), torch.arange(100, 132)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert row == pytest.approx(145.5, abs=0.1)
    assert column == pytest.approx(115.5, abs=0.1)


@pytest.mark.parametrize("size", [241, 161])  # 321 at scales 0.75 and 0.5
def test_same_padding_lies_right_at_stride_8_on_every_scale_of_a_valid_photo(size) -> None:
    network = averaging(TimmBackbone("tf_efficientnet_lite0"))
    image = torch.zeros(1, 3, size, size, requires_grad=True)
    row, column = centroid(network(image)[0, 0, 9, 11], image)
    assert (row, column) == pytest.approx((9 * 8, 11 * 8), abs=0.1)


def at_every_stride(name: str) -> list[TimmBackbone]:
    """Of strides 8, 16 and 32, with the same weights."""
    torch.manual_seed(0)
    networks = [TimmBackbone(name, stride).eval() for stride in (8, 16, 32)]
    for module in networks[0].modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)  # 0 at first in residual branches
            nn.init.normal_(module.bias, std=0.2)
    for other in networks[1:]:
        other.load_state_dict(networks[0].state_dict())
    return networks


@torch.no_grad()
def apart(networks: list[TimmBackbone]) -> list[float]:
    """By how much strides 8 and 16 differ from 32 where they share cells, over the largest."""
    image = torch.randn(1, 3, 161, 129)
    fine, middle, coarse = (network(image) for network in networks)
    assert coarse.shape[-2:] == (6, 5)
    pairs = [(fine[..., ::4, ::4], coarse), (middle[..., ::2, ::2], coarse)]
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]


@pytest.mark.parametrize("name", ["resnet50", "tf_efficientnet_lite0", "regnetx_002"])
def test_dilation_samples_the_function_that_striding_does(name) -> None:
    assert max(apart(at_every_stride(name))) < 1e-5


@pytest.mark.parametrize(
    "name", ["regnety_002", "mobilenetv3_small_100", "efficientnet_b0", "mixnet_s"]
)
def test_nothing_but_squeeze_and_excite_differs_between_strides(name) -> None:
    networks = at_every_stride(name)
    found = apart(networks)
    assert 0.002 < min(found) < max(found) < 0.1
    assert max(apart([without_squeezing(network) for network in networks])) < 1e-5


@pytest.mark.parametrize(("pixels", "cells"), [(321, 41), (513, 65)])
def test_vgg_and_resnet_give_as_many_cells_as_published(pixels, cells) -> None:
    with torch.device("meta"):
        image = torch.zeros(1, 3, pixels, pixels)
        assert VGG16Trunk()(image).shape == (1, 512, cells, cells)
        assert TimmBackbone("resnet101")(image).shape == (1, 2048, cells, cells)


@pytest.mark.parametrize(("name", "count"), [("resnet50", 23_508_032), ("resnet101", 42_500_160)])
def test_a_resnet_trunk_has_as_many_parameters_as_published(name, count) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in TimmBackbone(name).parameters()) == count


def test_vgg_stages_are_as_wide_as_published() -> None:
    with torch.device("meta"):
        trunk = VGG16Trunk()
        image = torch.zeros(1, 3, 321, 321)
        widths = []
        for layer in trunk:
            image = layer(image)
            if isinstance(layer, nn.MaxPool2d):
                widths.append(image.shape[-1])
    assert widths == [161, 81, 41, 41, 41]
    assert sum(p.numel() for p in trunk.parameters()) == 14_714_688


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize(
    ("name", "channels", "mean"),
    [
        ("efficientnet_b0", 320, 0.485),
        ("tf_efficientnet_lite0", 320, 0.5),
        ("tf_efficientnet_lite2", 352, 0.5),
        ("resnet18", 512, 0.485),
        ("resnet18.tv_in1k", 512, 0.485),
        ("mobilenetv3_small_100", 576, 0.485),
        ("convnext_atto", 320, 0.485),
        ("regnetx_002", 368, 0.485),
        ("mixnet_s", 200, 0.485),
        ("xception65", 2048, 0.5),
    ],
)
def test_these_families_work(name, channels, mean, stride) -> None:
    network = DeepLabV2(3, name, output_stride=stride).eval()
    height, width = network.valid_size(60, 70)
    assert network.backbone(torch.zeros(1, 3, 65, 65)).shape[-1] == 64 // stride + network.remainder
    assert network.backbone.channels == channels
    assert len(network.mean) == len(network.std) == 3
    assert network.mean[0] == pytest.approx(mean)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, height, width)).shape == (1, 3, height, width)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
        "densenet121",
        "hrnet_w18_small",
        "vgg16",
        "vgg19_bn",
    ],
)
def test_refuses_families_that_cannot_dilate_and_names_those_that_can(name) -> None:
    with pytest.raises(ValueError, match=rf"{name} has no form .* of 8; EfficientNet, .* ResNet"):
        TimmBackbone(name)


@pytest.mark.parametrize("name", ["resnet_eighteen", "resnet18.nonsense", "xception65.nonsense"])
@pytest.mark.parametrize(
    "make",
    [
        lambda name: TimmBackbone(name),
        lambda name: FCN(3, backbone=name),
        lambda name: UNet(3, backbone=name),
        lambda name: DeepLabV2(3, name),
        lambda name: DeepLabV3Plus(3, name),
    ],
)
def test_refuses_a_name_timm_does_not_have(make, name) -> None:
    with pytest.raises(ValueError, match=f"{timm.__version__} has no network '{name}'"):
        make(name)


def test_refuses_a_stride_nothing_has() -> None:
    with pytest.raises(ValueError, match="output_stride is 4; it can be 8, 16 or 32"):
        TimmBackbone("resnet18", 4)
