import warnings

import pytest
import torch
import torchvision
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import DeepLabV3, DeepLabV3Plus
from segment.architectures.deeplab_v3 import ASPP, valid_taps

# Most photos here are too small for the paper's rates, which has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore:The feature map has")


def small(**settings) -> DeepLabV3:
    """ResNet-26, which has bottleneck units, two per stage."""
    return DeepLabV3(3, **{"backbone": "resnet26", "multi_grid": (1, 2), "width": 16, **settings})


def with_random_norms(network: nn.Module) -> nn.Module:
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    return network.eval()


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"backbone": "resnet50"}, 39_048_533),
        ({"backbone": "resnet101"}, 58_040_661),
        ({"backbone": "resnet50", "extra_conv": True}, 39_638_869),  # torchvision's, without aux
    ],
)
def test_has_as_many_parameters_as_the_paper_adds_up_to(arguments, count) -> None:
    with torch.device("meta"):
        network = DeepLabV3(21, **arguments)
        assert sum(p.numel() for p in network.parameters()) == count
        assert sum(p.numel() for p in ASPP(2048, (6, 12, 18)).parameters()) == 15_535_104


@pytest.mark.parametrize(
    ("output_stride", "multi_grid", "units", "rates"),
    [
        (16, (1, 2, 4), [2, 4, 8], [6, 12, 18]),
        (8, (1, 2, 4), [4, 8, 16], [12, 24, 36]),
        (16, (1, 1, 1), [2, 2, 2], [6, 12, 18]),
        (16, None, [1, 2, 2], [6, 12, 18]),
        (8, None, [2, 4, 4], [12, 24, 36]),
    ],
)
def test_looks_as_far_as_published(output_stride, multi_grid, units, rates) -> None:
    with torch.device("meta"):
        network = DeepLabV3(21, "resnet101", output_stride, multi_grid)
    last = network.backbone.features["layer4"]
    assert [unit.conv2.dilation[0] for unit in last] == units
    assert [unit.conv2.padding[0] for unit in last] == units
    assert [branch[0].dilation for branch in network.aspp.atrous] == [(r, r) for r in rates]
    assert [branch[0].padding for branch in network.aspp.atrous] == [(r, r) for r in rates]
    assert network.backbone.features["layer3"][0].conv2.stride[0] == output_stride // 8


def test_head_is_the_paper_s_layer_by_layer() -> None:
    with torch.device("meta"):
        network = DeepLabV3(21)
    found = [
        (layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.bias is not None)
        for part in (network.aspp, network.extra, network.score)
        for layer in part.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    assert found == [
        (2048, 256, 1, False),
        *[(2048, 256, 3, False)] * 3,
        (2048, 256, 1, False),
        (1280, 256, 1, False),
        (256, 21, 1, True),
    ]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.aspp.modules()) == 6
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.1]


def test_is_torchvision_s_network_with_the_extra_convolution() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=5
    )
    theirs = with_random_norms(theirs)
    ours = DeepLabV3(5, "resnet50", 8, multi_grid=None, extra_conv=True).eval()
    given, own = theirs.state_dict(), ours.state_dict()
    assert [v.shape for v in given.values()] == [v.shape for v in own.values()]
    ours.load_state_dict(dict(zip(own, given.values(), strict=True)))
    image = torch.randn(1, 3, 145, 121)  # 19 x 16 cells, so that a rate of 12 has all its taps
    with torch.no_grad():
        cells = ours.score_cells(image)
        expected = theirs(image)["out"]
        found = F.interpolate(cells, (145, 121), mode="bilinear", align_corners=False)
        scale = expected.abs().max()
        assert (found - expected).abs().max() < 1e-5 * scale
        whole = F.interpolate(cells, (145, 121), mode="bilinear", align_corners=True)
        torch.testing.assert_close(ours(image), whole)
        ours.aspp.atrous[0][0].dilation = ours.aspp.atrous[0][0].padding = (6, 6)
        assert (ours.score_cells(image) - cells).abs().max() > 1e-3 * scale
        ours.aspp.atrous[0][0].dilation = ours.aspp.atrous[0][0].padding = (12, 12)
        ours.backbone.features["layer4"][0].conv2.dilation = (4, 4)
        ours.backbone.features["layer4"][0].conv2.padding = (4, 4)
        assert (ours.score_cells(image) - cells).abs().max() > 1e-3 * scale


@pytest.mark.parametrize("multi_grid", [None, (1, 2)])
def test_both_output_strides_score_alike_on_the_common_grid(multi_grid) -> None:
    torch.manual_seed(0)
    coarse = with_random_norms(small(output_stride=16, multi_grid=multi_grid))
    fine = small(output_stride=8, multi_grid=multi_grid).eval()
    fine.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 3, 209, 177)
    with torch.no_grad():
        features = coarse.backbone(image)
        doubled = fine.backbone(image)
        assert doubled.shape[-2:] == (27, 23)
        assert (doubled[..., ::2, ::2] - features).abs().max() < 1e-5 * features.abs().max()
        # The mean over the photo is over other cells; without it the heads agree too.
        for network in (coarse, fine):
            network.aspp.pool[0].weight.zero_()
        expected = coarse.score_cells(image)
        found = fine.score_cells(image)[..., ::2, ::2]
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_every_branch_has_its_own_share_of_the_projection() -> None:
    torch.manual_seed(0)
    aspp = with_random_norms(ASPP(4, (1, 2, 3), width=3))
    features = torch.randn(2, 4, 7, 9)
    norms = [m for m in aspp.modules() if isinstance(m, nn.BatchNorm2d)]
    branches = [aspp.point, *aspp.atrous, aspp.pool]
    assert len(norms) == len(branches) + 1
    with torch.no_grad():
        whole = aspp(features)
        for place, branch in enumerate(branches):
            columns = aspp.project[0].weight[:, 3 * place : 3 * place + 3].clone()
            aspp.project[0].weight[:, 3 * place : 3 * place + 3] = 0
            without = aspp(features)
            aspp.project[0].weight[:, 3 * place : 3 * place + 3] = columns
            kept = {k: v.clone() for k, v in branch.state_dict().items()}
            branch[1].weight.zero_()
            branch[1].bias.zero_()
            torch.testing.assert_close(aspp(features), without)
            assert not torch.allclose(without, whole, atol=1e-3)
            branch.load_state_dict(kept)


def test_the_photo_s_mean_reaches_every_cell() -> None:
    aspp = with_random_norms(ASPP(2, (1, 2, 3), width=3))
    with torch.no_grad():
        for branch in (aspp.point, *aspp.atrous):
            branch[1].weight.zero_()
        features = torch.randn(1, 2, 6, 8)
        out = aspp(features)
        torch.testing.assert_close(out, out[..., :1, :1].expand_as(out))
        torch.testing.assert_close(aspp(features.roll((2, 3), (2, 3))), out)
        assert not torch.allclose(aspp(features + 1), out, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({}, 289),
        ({"output_stride": 8}, 289),
        ({"backbone": "tf_efficientnet_lite0", "multi_grid": None}, 289),
        ({"backbone": "convnext_atto", "multi_grid": None}, 288),
    ],
)
def test_a_pixel_s_score_is_centred_on_that_pixel(arguments, size) -> None:
    network = averaging(small(**arguments))
    assert network.valid_size(size, size) == (size, size)
    nn.init.zeros_(network.aspp.pool[0].weight)  # the whole photo's mean is centred on the photo
    image = torch.zeros(1, 3, size, size, requires_grad=True)
    rows, columns = torch.arange(138, 170), torch.arange(120, 152)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert row == pytest.approx(153.5, abs=0.1)
    assert column == pytest.approx(135.5, abs=0.1)


@pytest.mark.parametrize(("output_stride", "cells"), [(16, 33), (8, 65)])
def test_scores_as_many_cells_as_published(output_stride, cells) -> None:
    with torch.device("meta"):
        network = DeepLabV3(21, output_stride=output_stride).eval()
        assert network.score_cells(torch.zeros(1, 3, 513, 513)).shape == (1, 21, cells, cells)


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ({"output_stride": 16}, (385, 513)),
        ({"output_stride": 8}, (377, 505)),
        ({"backbone": "tf_efficientnet_lite0", "multi_grid": None}, (385, 513)),
        ({"backbone": "convnext_atto", "multi_grid": None}, (384, 512)),
    ],
)
def test_scores_every_pixel_of_any_photo_once_padded(arguments, valid) -> None:
    with torch.device("meta"):
        network = small(**arguments).eval()
        assert network.valid_size(375, 500) == valid
        for size in [valid, network.valid_size(512, 512)]:
            assert network(torch.zeros(2, 3, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize(
    ("rate", "height", "width"),
    [(6, 33, 33), (18, 33, 33), (18, 19, 18), (18, 18, 19), (18, 18, 18), (36, 33, 65)],
)
def test_counts_the_taps_that_a_convolution_can_use(rate, height, width) -> None:
    weight = torch.ones(1, 1, 3, 3, requires_grad=True)
    F.conv2d(torch.ones(1, 1, height, width), weight, padding=rate, dilation=rate).sum().backward()
    assert valid_taps(rate, height, width) == int((weight.grad > 0).sum())


@pytest.mark.parametrize("network", [DeepLabV3, DeepLabV3Plus])
@pytest.mark.parametrize(("output_stride", "dilations"), [(16, [3, 9]), (8, [6, 18])])
def test_rates_are_of_stride_16(network, output_stride, dilations) -> None:
    with torch.device("meta"):
        arguments = {"backbone": "resnet26", "multi_grid": None, "rates": (3, 9)}
        built = network(3, output_stride=output_stride, **arguments)
        convolutions = [m for m in built.aspp.atrous.modules() if isinstance(m, nn.Conv2d)]
    assert [m.dilation[0] for m in convolutions if m.kernel_size == (3, 3)] == dilations
    with pytest.raises(ValueError, match=r"rates is \[6, 0\]; give"):
        network(3, backbone="resnet26", multi_grid=None, rates=(6, 0))


@pytest.mark.filterwarnings("default:The feature map has")
def test_says_once_per_size_where_3x3_kernels_have_degenerated() -> None:
    aspp = ASPP(1, (6, 12, 18), width=1).eval()
    with pytest.warns(UserWarning, match=r"15x33 cells.*\(rate 18: 3 of 9\)"):
        aspp(torch.zeros(1, 1, 15, 33))
    with pytest.warns(UserWarning, match=r"10x12 cells.*\(rate 12: 1 of 9, rate 18: 1 of 9\)"):
        aspp(torch.zeros(1, 1, 10, 12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aspp(torch.zeros(1, 1, 15, 33))
        aspp(torch.zeros(1, 1, 19, 19))
    with pytest.warns(UserWarning, match=r"stay random.*model.rates below 14 times"):
        aspp.train()(torch.zeros(2, 1, 15, 14))


def test_refuses_a_single_photo_in_training_unless_its_norm_is_frozen() -> None:
    torch.manual_seed(0)
    network = small().train()
    image = torch.randn(1, 3, 65, 65)
    with pytest.raises(ValueError, match=r"one value per photo and channel.*batch_size 2 or more"):
        network(image)
    network.aspp.pool[1].eval()
    network(image).mean().backward()
    assert network.aspp.pool[0].weight.grad.any()


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = small(extra_conv=True).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    scores = network(torch.randn(3, 3, 65, 65))
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_evaluation_is_deterministic_and_training_drops_out() -> None:
    torch.manual_seed(0)
    network = with_random_norms(small())
    image = torch.randn(2, 3, 65, 65)
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
        network.aspp.drop.train()
        assert not torch.equal(network(image), network(image))


def test_all_but_the_backbone_starts_anew() -> None:
    with torch.device("meta"):
        network = small(extra_conv=True)
    backbone = {id(p) for p in network.backbone.parameters()}
    assert {id(p) for p in network.backbone_parameters()} == backbone
    assert network.score_names == ("score",)
    assert network.score.weight.shape[0] == 3


def test_scores_start_small_and_without_a_bias() -> None:
    network = DeepLabV3(21, "resnet26", multi_grid=None)
    assert network.score.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not network.score.bias.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 32}, "output_stride is 32; DeepLab v3 takes 8 or 16"),
        ({"output_stride": 4}, "output_stride is 4; DeepLab v3 takes 8 or 16"),
        ({"backbone": "densenet121"}, "densenet121 has no form with an output stride of 16"),
        ({"backbone": "tf_efficientnet_lite0"}, "such as resnet50 .*null with tf_efficientnet_li"),
        ({"backbone": "resnet18"}, "bottleneck units.*give null with resnet18"),
        ({"multi_grid": (1, 2)}, r"\[1, 2\]; the last stage of resnet101 has 3 units"),
        ({"multi_grid": (0, 1, 2)}, r"\[0, 1, 2\]; .* as many factors from 1 on"),
    ],
)
def test_refuses_what_it_cannot_build(arguments, message) -> None:
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        DeepLabV3(2, **arguments)


def test_refuses_another_size_and_names_one_it_takes() -> None:
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=r"16k \+ 1; got 64x65\. Pad .*65x65"),
    ):
        small()(torch.zeros(2, 3, 64, 65))
