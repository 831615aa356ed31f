import pytest
import torch
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import DeepLabV3, DeepLabV3Plus
from segment.architectures.xception import SeparableConv

# Most photos here are too small for the paper's rates.
pytestmark = pytest.mark.filterwarnings("ignore:The feature map has")


def small(**settings) -> DeepLabV3Plus:
    return DeepLabV3Plus(3, **{"backbone": "resnet26", "width": 16, **settings})


def settle(network: nn.Module) -> nn.Module:
    """Evaluation mode, with norms and scores that do something."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.normal_(layer.bias, std=0.3)
    nn.init.normal_(network.score.weight)
    return network.eval()


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 41_055_413),
        ({"separable": False}, 54_711_461),
        ({"backbone": "resnet101", "separable": False}, 59_344_309),
        ({"backbone": "resnet101", "separable": True}, 45_688_261),
        ({"backbone": "resnet50", "separable": False}, 40_352_181),
    ],
)
def test_has_as_many_parameters_as_the_paper_adds_up_to(arguments, count) -> None:
    with torch.device("meta"):
        network = DeepLabV3Plus(21, **arguments)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("separable", "aspp", "decoder"), [
    (True, 3_019_776, 168_325), (False, 15_535_104, 1_309_045),
])  # fmt: skip
def test_parts_are_as_large_as_published(separable, aspp, decoder) -> None:
    with torch.device("meta"):
        network = DeepLabV3Plus(21, separable=separable)
    assert sum(p.numel() for p in network.aspp.parameters()) == aspp
    rest = [network.low, network.decoder, network.score]
    assert sum(p.numel() for part in rest for p in part.parameters()) == decoder


def convolutions(part: nn.Module) -> list[tuple[int, int, int, int, int]]:
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.dilation[0], m.groups)
        for m in part.modules()
        if isinstance(m, nn.Conv2d)
    ]


def test_head_is_the_paper_s_layer_by_layer() -> None:
    with torch.device("meta"):
        network = DeepLabV3Plus(21)
    atrous = [
        pair for rate in (6, 12, 18) for pair in [(2048, 2048, 3, rate, 2048), (2048, 256, 1, 1, 1)]
    ]
    # The 1x1 and the image pooling's branch stay plain.
    assert convolutions(network.aspp) == [
        (2048, 256, 1, 1, 1),
        *atrous,
        (2048, 256, 1, 1, 1),
        (1280, 256, 1, 1, 1),
    ]
    assert convolutions(network.low) == [(256, 48, 1, 1, 1)]
    assert [type(layer) for layer in network.low] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert convolutions(network.decoder) == [
        (304, 304, 3, 1, 304),
        (304, 256, 1, 1, 1),
        (256, 256, 3, 1, 256),
        (256, 256, 1, 1, 1),
    ]
    assert convolutions(network.score) == [(256, 21, 1, 1, 1)]
    with torch.device("meta"):
        plain = DeepLabV3Plus(21, "resnet101", 8, separable=False, multi_grid=(1, 2, 4))
    assert convolutions(plain.decoder) == [(304, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
    assert convolutions(plain.aspp)[1:4] == [(2048, 256, 3, rate, 1) for rate in (12, 24, 36)]
    last = plain.backbone.features["layer4"]
    assert [unit.conv2.dilation[0] for unit in last] == [4, 8, 16]


def test_a_separable_branch_has_a_relu_behind_each_norm() -> None:
    torch.manual_seed(0)
    conv = SeparableConv(3, 5, dilation=2).eval()
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        deep = F.conv2d(x, conv.conv_dw.weight, padding=2, dilation=2, groups=3)
        deep = (deep / (1 + 1e-5) ** 0.5).relu()
        expected = (F.conv2d(deep, conv.conv_pw.weight) / (1 + 1e-5) ** 0.5).relu()
        torch.testing.assert_close(conv(x), expected)
    # Of 9 C_in C_out multiplications per cell, 1/C_out + 1/9 remain.
    weights = conv.conv_dw.weight.numel() + conv.conv_pw.weight.numel()
    assert weights / (9 * 3 * 5) == pytest.approx(1 / 5 + 1 / 9)


def test_encoder_is_v3_s() -> None:
    torch.manual_seed(0)
    plus = settle(small(separable=False, multi_grid=(1, 2)))
    plain = DeepLabV3(3, "resnet26", multi_grid=(1, 2), width=16).eval()
    plain.aspp.load_state_dict(plus.aspp.state_dict())
    image = torch.randn(1, 3, 65, 81)
    with torch.no_grad():
        low, features = plus.backbone.pyramid(image)
        plain.backbone.features.load_state_dict(plus.backbone.features.state_dict())
        torch.testing.assert_close(plain.aspp(plain.backbone(image)), plus.aspp(features))
        assert low.shape == (1, 256, 17, 21)
        torch.testing.assert_close(low, first_stage(plus, image))


def first_stage(network: DeepLabV3Plus, image: torch.Tensor) -> torch.Tensor:
    """ResNet up to the end of res2, made by hand."""
    parts = network.backbone.features
    x = parts["conv1"](image)
    x = F.max_pool2d(F.relu(parts["bn1"](x)), 3, stride=2, padding=1)
    return parts["layer1"](x)


def test_decodes_as_figure_2_says() -> None:
    torch.manual_seed(0)
    network = settle(small(separable=False))
    image = torch.randn(1, 3, 65, 81)

    def resize(x, *size):
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    with torch.no_grad():
        low, features = network.backbone.pyramid(image)
        assert features.shape[-2:] == (5, 6)  # to 17 x 21 is not four times that
        x = resize(network.aspp(features), 17, 21)
        x = torch.cat([x, network.low(low)], dim=1)
        x = network.score(network.decoder[1](network.decoder[0](x)))
        whole = network(image)
        torch.testing.assert_close(whole, resize(x, 65, 81))


@pytest.mark.parametrize("separable", [True, False])
def test_both_ways_into_the_decoder_matter(separable) -> None:
    torch.manual_seed(0)
    network = settle(small(separable=separable))
    image = torch.randn(1, 3, 65, 65)
    given = []
    network.decoder.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with torch.no_grad():
        whole = network(image)
        assert torch.equal(network(image), whole)
        (before, _), ways = given, {"context": slice(0, 16), "low": slice(16, 16 + 48)}
        for way, part in (("low", network.low), ("context", network.aspp.project)):
            kept = part[1].weight.clone(), part[1].bias.clone()
            part[1].weight.zero_()
            part[1].bias.zero_()
            changed = network(image)
            assert (changed - whole).abs().max() > 1e-2 * whole.abs().max()
            for name, channels in ways.items():
                found, expected = given[-1][:, channels], before[:, channels]
                assert expected.any()
                assert torch.equal(found, torch.zeros_like(expected) if name == way else expected)
            part[1].weight.copy_(kept[0])
            part[1].bias.copy_(kept[1])


def test_without_the_encoder_the_decoder_sees_stride_4() -> None:
    torch.manual_seed(0)
    network = settle(small(backbone="resnet26"))
    nn.init.zeros_(network.aspp.project[1].weight)
    image = torch.randn(1, 3, 129, 129)
    moved = image.clone()
    moved[..., 60:64, 60:64] += 3
    with torch.no_grad():
        change = (network(moved) - network(image)).abs().sum((0, 1)) > 0
    rows = torch.where(change.any(1))[0]
    # Stem and two units reach 4 * 6 pixels or so, the decoder 2 cells of 4, interpolation one.
    assert rows.min() > 62 - 48
    assert rows.max() < 62 + 48


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({}, 289),
        ({"output_stride": 8, "separable": False}, 289),
        ({"backbone": "tf_efficientnet_lite0"}, 289),
        ({"backbone": "convnext_atto"}, 288),
    ],
)
@pytest.mark.parametrize("part", ["low", "context"])
def test_a_pixel_s_score_is_centred_on_that_pixel(arguments, size, part) -> None:
    network = averaging(small(**arguments))
    nn.init.zeros_(network.aspp.pool[0].weight)  # the whole photo's mean is centred on the photo
    nn.init.zeros_(network.aspp.project[0].weight if part == "low" else network.low[0].weight)
    image = torch.zeros(1, 3, size, size, requires_grad=True)
    rows, columns = torch.arange(138, 170), torch.arange(120, 152)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert row == pytest.approx(153.5, abs=0.1)
    assert column == pytest.approx(135.5, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ({}, (385, 513)),
        ({"output_stride": 8}, (377, 505)),
        ({"backbone": "resnet50"}, (385, 513)),
        ({"backbone": "tf_efficientnet_lite0"}, (385, 513)),
        ({"backbone": "convnext_atto"}, (384, 512)),
    ],
)
def test_scores_every_pixel_of_any_photo_once_padded(arguments, valid) -> None:
    with torch.device("meta"):
        network = DeepLabV3Plus(3, **arguments).eval()
        assert network.valid_size(375, 500) == valid
        for size in [valid, network.valid_size(512, 512)]:
            assert network(torch.zeros(2, 3, *size)).shape == (2, 3, *size)


def test_has_as_many_cells_as_published() -> None:
    with torch.device("meta"):
        network = DeepLabV3Plus(21).eval()
        low, features = network.backbone.pyramid(torch.zeros(1, 3, 513, 513))
    assert low.shape == (1, 256, 129, 129)
    assert features.shape == (1, 2048, 33, 33)


def test_refuses_a_single_photo_in_training() -> None:
    network = small().train()
    with pytest.raises(ValueError, match="Image pooling leaves one value per photo and channel"):
        network(torch.zeros(1, 3, 65, 65))


@pytest.mark.parametrize("arguments", [{}, {"backbone": "xception65"}])
def test_every_parameter_learns(arguments) -> None:
    torch.manual_seed(0)
    network = small(**arguments).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    scores = network(torch.randn(2, 3, 65, 65))
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_all_but_the_backbone_starts_anew() -> None:
    with torch.device("meta"):
        network = DeepLabV3Plus(3)
    backbone = {id(p) for p in network.backbone.parameters()}
    assert {id(p) for p in network.backbone_parameters()} == backbone
    assert network.mean == network.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 32}, r"output_stride is 32; DeepLab v3\+ takes 8 or 16"),
        ({"multi_grid": (1, 2, 4)}, "multi_grid is of ResNets; give null with xception65"),
        ({"backbone": "densenet121"}, "densenet121 has no form with an output stride of 16"),
        ({"backbone": "resnet18", "multi_grid": (1, 2)}, "give null with resnet18"),
    ],
)
def test_refuses_what_it_cannot_build(arguments, message) -> None:
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        DeepLabV3Plus(2, **arguments)
