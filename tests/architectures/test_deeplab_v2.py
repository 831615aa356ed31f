import pytest
import torch
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import DeepLabV2


@pytest.mark.parametrize(("backbone", "count"), [("vgg16", 37_877_652), ("resnet101", 44_048_532)])
def test_has_as_many_parameters_as_the_paper_adds_up_to(backbone, count) -> None:
    with torch.device("meta"):
        network = DeepLabV2(21, backbone)
    assert sum(p.numel() for p in network.parameters()) == count


def test_resnet_101_strides_in_its_3x3_and_leaves_the_first_dilated_block_alone() -> None:
    with torch.device("meta"):
        features = DeepLabV2(21, "resnet101").backbone.features
    stages = [features[f"layer{i}"] for i in range(1, 5)]
    assert [len(stage) for stage in stages] == [3, 4, 23, 3]
    assert [stage[0].conv2.stride[0] for stage in stages] == [1, 2, 1, 1]
    assert [stage[0].conv2.dilation[0] for stage in stages] == [1, 1, 1, 2]
    assert [stage[1].conv2.dilation[0] for stage in stages] == [1, 1, 2, 4]
    assert all(block.conv1.stride[0] == 1 for stage in stages for block in stage)


@pytest.mark.parametrize(
    ("aspp", "output_stride", "rates"),
    [
        ("large", 8, [6, 12, 18, 24]),
        ("small", 8, [2, 4, 8, 12]),
        ("large", 16, [3, 6, 9, 12]),
        ("small", 16, [1, 2, 4, 6]),
    ],
)
def test_branches_look_as_far_as_published(aspp, output_stride, rates) -> None:
    network = DeepLabV2(3, "resnet18", aspp, output_stride)
    assert [b.dilation[0] for b in network.aspp] == rates
    assert [b.padding[0] for b in network.aspp] == rates
    for branch in network.aspp:
        assert branch.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not branch.bias.any()
    if output_stride == 8:
        with torch.device("meta"):
            vgg = DeepLabV2(3, aspp=aspp)
        assert [b.fc6.dilation[0] for b in vgg.aspp] == rates


@pytest.mark.parametrize("backbone", ["vgg16", "resnet18"])
def test_scores_are_the_sum_of_the_branches(backbone) -> None:
    torch.manual_seed(0)
    network = DeepLabV2(3, backbone).eval()
    image = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        features = network.backbone(image)
        parts = [branch(features) for branch in network.aspp]
        (whole,) = network.score_scales(image)
        torch.testing.assert_close(whole, parts[0] + parts[1] + parts[2] + parts[3])
        for branch, part in zip(network.aspp, parts, strict=True):
            kept = {k: v.clone() for k, v in branch.state_dict().items()}
            for parameter in branch.parameters():
                parameter.zero_()
            torch.testing.assert_close(network.score_scales(image)[0], whole - part)
            branch.load_state_dict(kept)


def test_multi_scale_is_the_maximum_over_scales_made_by_hand() -> None:
    torch.manual_seed(0)
    single = DeepLabV2(3, "resnet18").eval()
    network = DeepLabV2(3, "resnet18", multi_scale=True).eval()
    network.load_state_dict(single.state_dict())
    image = torch.randn(2, 3, 97, 65)

    def resize(x, height, width):
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)

    with torch.no_grad():
        full = single.score_scales(image)[0]
        three_quarters = single.score_scales(resize(image, 73, 49))[0]
        half = single.score_scales(resize(image, 49, 33))[0]
        found = network.score_scales(image)
        assert [tuple(x.shape[-2:]) for x in found] == [(13, 9), (10, 7), (7, 5), (13, 9)]
        largest = torch.maximum(full, resize(three_quarters, 13, 9))
        largest = torch.maximum(largest, resize(half, 13, 9))
        for score, expected in zip(found, [full, three_quarters, half, largest], strict=True):
            torch.testing.assert_close(score, expected)
        torch.testing.assert_close(network(image), resize(largest, 97, 65))


def test_a_pixel_s_score_is_centred_on_that_pixel_over_all_scales() -> None:
    network = averaging(DeepLabV2(2, "resnet18", "small", multi_scale=True))
    assert network.valid_size(289, 289) == (289, 289)
    # All scales score 0, so that their maximum hears each of them.
    image = torch.zeros(1, 3, 289, 289, requires_grad=True)
    rows, columns = torch.arange(130, 162), torch.arange(100, 132)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert (row, column) == pytest.approx((145.5, 115.5), abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ({"backbone": "vgg16"}, (377, 505)),
        ({"backbone": "resnet18"}, (377, 505)),
        ({"backbone": "resnet18", "output_stride": 16}, (385, 513)),
        ({"backbone": "resnet18", "multi_scale": True}, (385, 513)),
        ({"backbone": "resnet18", "output_stride": 16, "multi_scale": True}, (385, 513)),
        ({"backbone": "tf_efficientnet_lite0"}, (385, 513)),
        ({"backbone": "tf_efficientnet_lite0", "multi_scale": True}, (385, 513)),
        ({"backbone": "convnext_atto"}, (384, 512)),
    ],
)
def test_valid_sizes_depend_on_the_backbone_and_the_scales(arguments, valid) -> None:
    with torch.device("meta"):
        network = DeepLabV2(2, **arguments)
    assert network.valid_size(375, 500) == valid
    assert network.valid_size(*valid) == valid


def test_refuses_another_size_and_names_one_it_takes() -> None:
    network = DeepLabV2(2, "tf_efficientnet_lite0")
    with pytest.raises(ValueError, match=r"32k \+ 1; got 65x73\. Pad it to 65x97"):
        network(torch.zeros(1, 3, 65, 73))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "vgg16", "output_stride": 16}, "output_stride is 16; .* on vgg16 takes 8"),
        ({"backbone": "resnet18", "output_stride": 32}, "output_stride is 32; .* takes 8 or 16"),
        ({"aspp": "medium"}, "aspp is 'medium'; it can be 'small' or 'large'"),
        ({"backbone": "densenet121"}, "densenet121 has no form with an output stride of 8"),
    ],
)
def test_refuses_what_it_cannot_build(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        DeepLabV2(2, **arguments)


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"backbone": "vgg16"}, (65, 65)),
        ({"backbone": "tf_efficientnet_lite0"}, (65, 65)),
        ({"backbone": "resnet18", "multi_scale": True}, (65, 65)),
    ],
)
def test_every_parameter_learns(arguments, size) -> None:
    torch.manual_seed(0)
    network = DeepLabV2(3, **arguments).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    scores = network.score_scales(torch.randn(2, 3, *size))
    sum((s * torch.randn_like(s)).sum() for s in scores).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("backbone", ["vgg16", "resnet18"])
def test_only_the_scores_are_the_head(backbone) -> None:
    with torch.device("meta"):
        network: nn.Module = DeepLabV2(5, backbone)
    head, rest = list(network.head_parameters()), list(network.backbone_parameters())
    assert [p.shape[0] for p in head] == [5] * 8
    assert {id(p) for p in head + rest} == {id(p) for p in network.parameters()}
    assert len(head) + len(rest) == len(list(network.parameters()))
