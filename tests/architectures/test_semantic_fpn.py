import pytest
import torch
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import SemanticFPN


def small(backbone: str = "resnet18") -> SemanticFPN:
    return SemanticFPN(3, backbone, width=64)


@pytest.mark.parametrize(
    ("backbone", "count"), [("resnet50", 28_478_933), ("resnet101", 47_471_061)]
)
def test_has_as_many_parameters_as_the_paper_adds_up_to(backbone, count) -> None:
    with torch.device("meta"):
        network = SemanticFPN(21, backbone)
    assert sum(p.numel() for p in network.parameters()) == count
    pyramid = [*network.lateral.parameters(), *network.output.parameters()]
    assert sum(p.numel() for p in pyramid) == 3_344_384
    head = [*network.levels.parameters(), *network.score.parameters()]
    assert sum(p.numel() for p in head) == 1_626_517


def test_the_head_has_as_many_parameters_as_published_for_coco_s_54_classes() -> None:
    with torch.device("meta"):
        network = SemanticFPN(54)
    head = [*network.levels.parameters(), *network.score.parameters()]
    assert sum(p.numel() for p in head) == 1_630_774


def test_is_the_published_network_layer_by_layer() -> None:
    network = SemanticFPN(21)

    def shapes(part: nn.Module) -> list[tuple[int, int, int, bool]]:
        return [
            (m.in_channels, m.out_channels, m.kernel_size[0], m.bias is not None)
            for m in part.modules()
            if isinstance(m, nn.Conv2d)
        ]

    assert shapes(network.lateral) == [(c, 256, 1, True) for c in (256, 512, 1024, 2048)]
    assert shapes(network.output) == [(256, 256, 3, True)] * 4
    first, then = (256, 128, 3, False), (128, 128, 3, False)
    found = [shapes(level) for level in network.levels]
    assert found == [[first], [first], [first, then], [first, then, then]]
    assert shapes(network.score) == [(128, 21, 1, True)]
    for level in network.levels:
        for step in level:
            assert [type(layer) for layer in step] == [nn.Conv2d, nn.GroupNorm, nn.ReLU]
            assert step[1].num_groups == 32
    # The names of detectron2's fills: uniform up to sqrt(3 / fan_in), normal sqrt(2 / fan_out).
    assert network.lateral[3].weight.abs().max().item() == pytest.approx((3 / 2048) ** 0.5, 0.01)
    spread = network.levels[3][1][0].weight.std().item()
    assert spread == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert not any(layer.bias.any() for layer in [*network.lateral, *network.output, network.score])


def test_top_down_takes_the_nearest_cell_where_kernels_tile_the_photo() -> None:
    torch.manual_seed(0)
    network = small("convnext_atto").eval()
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        features = network.backbone.pyramid(image)
        assert [tuple(x.shape[-2:]) for x in features] == [(24, 16), (12, 8), (6, 4), (3, 2)]
        x = network.lateral[3](features[3])
        expected = [network.output[3](x)]
        for level in (2, 1, 0):
            x = network.lateral[level](features[level]) + x.repeat_interleave(
                2, dim=2
            ).repeat_interleave(2, dim=3)
            expected.insert(0, network.output[level](x))
        for found, level in zip(network.pyramid(image), expected, strict=True):
            torch.testing.assert_close(found, level)


def test_top_down_takes_the_mean_of_the_nearest_where_cells_lie_on_corners() -> None:
    x = torch.randn(1, 2, 3, 4)
    with torch.device("meta"):
        network = small()
    doubled = network._double(x, "nearest")
    assert doubled.shape == (1, 2, 5, 7)
    torch.testing.assert_close(doubled[..., ::2, ::2], x)
    torch.testing.assert_close(doubled[..., ::2, 1::2], (x[..., 1:] + x[..., :-1]) / 2)
    torch.testing.assert_close(doubled[..., 1::2, ::2], (x[..., 1:, :] + x[..., :-1, :]) / 2)


@pytest.mark.parametrize(
    ("backbone", "size"), [("resnet18", (65, 97)), ("convnext_atto", (64, 96))]
)
def test_head_doubles_after_each_step_and_sums(backbone, size) -> None:
    torch.manual_seed(0)
    network = small(backbone).eval()
    image = torch.randn(2, 3, *size)
    corners = backbone == "resnet18"

    def resize(x, cells):
        return F.interpolate(x, cells, mode="bilinear", align_corners=corners)

    with torch.no_grad():
        p2, p3, p4, p5 = network.pyramid(image)
        sizes = [x.shape[-2:] for x in (p2, p3, p4)]
        first, second, third, fourth = network.levels
        whole = first[0](p2)
        whole = whole + resize(second[0](p3), sizes[0])
        whole = whole + resize(third[1](resize(third[0](p4), sizes[1])), sizes[0])
        x = resize(fourth[1](resize(fourth[0](p5), sizes[2])), sizes[1])
        whole = whole + resize(fourth[2](x), sizes[0])
        expected = resize(network.score(whole), size)
        torch.testing.assert_close(network(image), expected)


def test_every_level_matters_and_only_lower_levels_depend_on_higher_ones() -> None:
    torch.manual_seed(0)
    network = small().eval()
    image = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        whole, levels = network(image), network.pyramid(image)
        assert torch.equal(network(image), whole)
        assert any((level < 0).any() for level in levels)  # no ReLU on the pyramid
        for place in range(4):
            kept = network.lateral[place].weight.clone()
            network.lateral[place].weight.zero_()
            found = network.pyramid(image)
            for index, (now, before) in enumerate(zip(found, levels, strict=True)):
                assert torch.equal(now, before) == (index > place)
            network.lateral[place].weight.copy_(kept)
            norm = network.levels[place][-1][1]
            nn.init.zeros_(norm.weight)
            assert (network(image) - whole).abs().max() > 1e-2 * whole.abs().max()
            nn.init.ones_(norm.weight)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("resnet18", 289),
        ("tf_efficientnet_lite0", 289),
        ("convnext_atto", 288),
        ("vgg11", 288),
    ],
)
@pytest.mark.parametrize("level", [0, 3])
def test_a_pixel_s_score_is_centred_on_that_pixel(backbone, size, level) -> None:
    network = small(backbone)
    for steps in network.levels:
        for step in steps:
            step[1] = nn.Identity()
    averaging(network)
    for place, steps in enumerate(network.levels):
        if place != level:
            nn.init.zeros_(steps[0][0].weight)
    image = torch.zeros(1, 3, size, size, requires_grad=True)
    rows, columns = torch.arange(138, 170), torch.arange(120, 152)
    output = network(image)
    row, column = centroid(output[0, 0, rows][:, columns], image)
    assert row == pytest.approx(153.5, abs=0.1)
    assert column == pytest.approx(135.5, abs=0.1)


@pytest.mark.parametrize(
    ("backbone", "valid", "cells"),
    [("resnet50", (385, 513), (97, 129)), ("convnext_atto", (384, 512), (96, 128))],
)
def test_scores_every_pixel_of_any_photo_once_padded(backbone, valid, cells) -> None:
    with torch.device("meta"):
        network = SemanticFPN(21, backbone).eval()
        assert network.valid_size(375, 500) == valid
        for size in [valid, network.valid_size(512, 512)]:
            assert network(torch.zeros(2, 3, *size)).shape == (2, 21, *size)
        assert network.pyramid(torch.zeros(1, 3, *valid))[0].shape == (1, 256, *cells)


def test_every_parameter_learns_from_a_single_photo() -> None:
    torch.manual_seed(0)
    network = small().train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    scores = network(torch.randn(1, 3, 65, 65))
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("backbone", "least"), [("test_resnet", 33), ("vgg11_bn", 64), ("convnext_atto", 64)]
)
def test_one_photo_of_the_least_size_trains(backbone, least) -> None:
    network = small(backbone).train()
    assert network.valid_size(1, 1) == (least, least)
    assert network(torch.randn(1, 3, least, least)).isfinite().all()
    with pytest.raises(ValueError, match=f"got 32x32. Pad it to {least}x{least}"):
        network(torch.randn(1, 3, 32, 32))


def test_all_but_the_backbone_starts_anew() -> None:
    with torch.device("meta"):
        network = small()
    backbone = {id(p) for p in network.backbone.parameters()}
    assert {id(p) for p in network.backbone_parameters()} == backbone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 100}, "width is 100; give a multiple of 64"),
        ({"width": 32}, "width is 32; give a multiple of 64"),
        ({"backbone": "densenet121"}, "densenet121 has no form with an output stride of 32"),
        (
            {"backbone": "hrnet_w18_small"},
            "hrnet_w18_small has no form with an output stride of 32",
        ),
    ],
)
def test_refuses_what_it_cannot_build(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        SemanticFPN(2, **arguments)


def test_refuses_another_size_and_names_one_it_takes() -> None:
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=r"32k \+ 1; got 64x97\. Pad .*65x97"),
    ):
        small()(torch.zeros(1, 3, 64, 97))
