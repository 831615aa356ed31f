import pytest
import torch
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import UNet


@pytest.mark.parametrize(
    ("classes", "arguments", "count"),
    [
        (21, {}, 31_033_045),
        (21, {"padded": True}, 31_033_045),
        (21, {"padded": True, "batch_norm": True}, 31_038_933),
        (2, {"padded": True, "batch_norm": True}, 31_037_698),
        (21, {"release": True}, 31_102_741),
        # The paper's and the released network's own, for photos of one channel.
        (2, {}, 31_030_658 + 2 * 9 * 64),
        (2, {"release": True}, 31_100_354 + 2 * 9 * 64),
    ],
)
def test_has_as_many_parameters_as_figure_1_adds_up_to(classes, arguments, count) -> None:
    with torch.device("meta"):
        network = UNet(classes, **arguments)
    assert sum(p.numel() for p in network.parameters()) == count


def test_every_map_is_as_large_as_in_figure_1() -> None:
    with torch.device("meta"):
        network = UNet(2)
        sizes = []
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(
                    lambda _, __, out: sizes.append((out.shape[1], out.shape[-1]))
                )
        assert network.score_inside(torch.zeros(1, 3, 572, 572)).shape == (1, 2, 388, 388)
    assert sizes == [
        *[(64, 570), (64, 568), (128, 282), (128, 280), (256, 138), (256, 136)],
        *[(512, 66), (512, 64), (1024, 30), (1024, 28)],
        *[(512, 56), (512, 54), (512, 52), (256, 104), (256, 102), (256, 100)],
        *[(128, 200), (128, 198), (128, 196), (64, 392), (64, 390), (64, 388), (2, 388)],
    ]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"padded": True, "batch_norm": True}, {"padded": True, "backbone": "resnet18"}],
)
def test_scores_are_as_large_as_the_photo(arguments) -> None:
    with torch.device("meta"):
        network = UNet(21, width=8, **arguments).eval()
        for size in ((512, 512), (375, 500)):
            valid = network.valid_size(*size)
            assert network(torch.zeros(1, 3, *valid)).shape == (1, 21, *valid)


def by_hand(
    w: dict[str, torch.Tensor], x: torch.Tensor, padded: bool, release: bool = False
) -> torch.Tensor:
    """Figure 1, with the pixels per side that it crops."""

    def double(x: torch.Tensor, name: str) -> torch.Tensor:
        norms = f"{name}.1.weight" in w  # then between each convolution and its ReLU
        for i in (0, 3) if norms else (0, 2):
            bias = None if norms else w[f"{name}.{i}.bias"]
            x = F.conv2d(x, w[f"{name}.{i}.weight"], bias, padding=int(padded))
            if norms:
                keys = ("running_mean", "running_var", "weight", "bias")
                x = F.batch_norm(x, *(w[f"{name}.{i + 1}.{key}"] for key in keys))
            x = x.relu()
        return x

    skips = []
    for level in range(4):
        skips.append(double(x, f"down.{level}"))
        x = F.max_pool2d(skips[level], 2)
    x = double(x, "down.4")
    for level, crop in ((3, 4), (2, 16), (1, 40), (0, 88)):
        x = F.conv_transpose2d(x, w[f"up.{level}.weight"], w[f"up.{level}.bias"], stride=2)
        x = x.relu() if release else x
        skip = skips[level] if padded else skips[level][..., crop:-crop, crop:-crop]
        x = double(torch.cat([skip, x], dim=1), f"fuse.{level}")
    return F.conv2d(x, w["score.weight"], w["score.bias"])


def test_is_figure_1_made_by_hand() -> None:
    torch.manual_seed(0)
    inside, padded = UNet(3, width=4).eval(), UNet(3, padded=True, width=4).eval()
    for network in (inside, padded):
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
    image = torch.randn(2, 3, 204, 188)
    with torch.no_grad():
        found = inside.score_inside(image)
        assert found.std() > 0.01
        torch.testing.assert_close(found, by_hand(inside.state_dict(), image, padded=False))
        image = image[..., :48, :64]
        torch.testing.assert_close(padded(image), by_hand(padded.state_dict(), image, padded=True))


def test_norms_stand_between_each_convolution_and_its_relu() -> None:
    torch.manual_seed(0)
    network = UNet(3, padded=True, batch_norm=True, width=4).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.weight, module.bias):
                nn.init.normal_(values, 0.3, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    image = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        expected = by_hand(network.state_dict(), image, padded=True)
        assert expected.std() > 0.01
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)


def test_the_timm_encoder_continues_two_levels_of_our_own() -> None:
    torch.manual_seed(0)
    network = UNet(3, padded=True, width=4, backbone="resnet18").eval()
    w = network.state_dict()
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        first = network.down[0](image)
        second = network.down[1](F.max_pool2d(first, 3, stride=2, padding=1))
        skips = [first, second, *network.backbone.pyramid(image)]
        assert [s.shape[-1] for s in skips] == [97, 49, 25, 13, 7, 4]
        x = skips[5]
        for level in (4, 3, 2, 1, 0):
            weight, bias = w[f"up.{level}.weight"], w[f"up.{level}.bias"]
            x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
            x = network.fuse[level](torch.cat([skips[level], x], dim=1))
        torch.testing.assert_close(network(image), network.score(x))
        # Every level is seen.
        whole = network(image)
        for level, skip in enumerate(skips[:-1]):
            weight = network.fuse[level][0].weight
            kept = weight.clone()
            weight[:, : skip.shape[1]] = 0
            assert not torch.allclose(network(image), whole)
            weight.copy_(kept)


def test_dropout_of_one_half_is_on_the_two_deepest_levels_of_the_paper_s_form() -> None:
    with torch.device("meta"):
        networks = UNet(2), UNet(2, padded=True)
    rates = [
        [[m.p for m in block if isinstance(m, nn.Dropout)] for block in network.down]
        for network in networks
    ]
    assert rates == [[[], [], [], [0.5], [0.5]], [[]] * 5]
    # The skip of level 3 is taken after it.
    torch.manual_seed(0)
    network = UNet(2, width=4)
    seen = []
    network.fuse[3].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, :32]))
    network.down[3].register_forward_hook(lambda _, __, out: seen.append(out))
    network.score_inside(torch.randn(1, 3, 188, 188))
    level, skip = seen
    assert torch.equal(skip, level[..., 4:-4, 4:-4])


def test_the_released_decoder_has_128_channels_at_full_size_and_relus() -> None:
    with torch.device("meta"):
        network = UNet(2, release=True)
    assert [up.out_channels for up in network.up] == [128, 128, 256, 512]
    assert network.fuse[0][0].in_channels == 192
    torch.manual_seed(0)
    network = UNet(3, width=4, release=True).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    image = torch.randn(1, 3, 188, 188)
    with torch.no_grad():
        expected = by_hand(network.state_dict(), image, padded=False, release=True)
        torch.testing.assert_close(network.score_inside(image), expected)


def test_weights_start_as_wide_as_the_paper_says() -> None:
    torch.manual_seed(0)
    network = UNet(64)
    assert network.down[1][0].weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert network.fuse[3][0].weight.std().item() == pytest.approx((2 / 9216) ** 0.5, rel=0.02)
    assert network.up[2].weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)
    assert network.score.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert not any(m.bias.any() for m in network.modules() if isinstance(m, nn.Conv2d))


def averages(network: UNet) -> UNet:
    """Everything a mean, transposed convolutions too."""
    averaging(network)
    for layer in network.up:
        taps = torch.tensor([1.0, 1.0] if layer.kernel_size == (2, 2) else [0.5, 1.0, 0.5])
        with torch.no_grad():
            layer.weight.copy_((taps[:, None] * taps / layer.in_channels).expand_as(layer.weight))
            layer.bias.zero_()
    return network


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({}, 300),
        ({"padded": True}, 304),
        ({"padded": True, "batch_norm": True}, 304),
        ({"padded": True, "backbone": "resnet18"}, 289),
        ({"padded": True, "backbone": "tf_efficientnet_lite0"}, 289),
        ({"padded": True, "backbone": "convnext_atto"}, 288),
    ],
)
def test_a_pixel_s_score_is_centred_on_that_pixel(arguments, size) -> None:
    network = averages(UNet(2, width=2, **arguments))
    image = torch.zeros(1, 3, size, size, requires_grad=True)
    rows, columns = torch.arange(130, 162), torch.arange(100, 132)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert row == pytest.approx(145.5, abs=0.1)
    assert column == pytest.approx(115.5, abs=0.1)


def test_unpadded_scores_are_those_92_pixels_in() -> None:
    network = averages(UNet(2, width=2))
    image = torch.zeros(1, 3, 332, 332, requires_grad=True)
    scores = network.score_inside(image)
    place = torch.arange(50, 66)
    assert centroid(scores[0, 0, place, place + 20], image) == pytest.approx(
        (57.5 + 92, 77.5 + 92), abs=0.1
    )


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({}, (20, 33)),
        ({"padded": True}, (32, 48)),
        ({"padded": True, "batch_norm": True}, (32, 32)),
        ({"padded": True, "batch_norm": True, "backbone": "tf_efficientnet_lite0"}, (33, 65)),
        ({"padded": True, "backbone": "convnext_atto"}, (64, 64)),
    ],
)
def test_every_parameter_learns_from_a_batch_of_one(arguments, size) -> None:
    torch.manual_seed(0)
    network = UNet(3, width=4, **arguments).train()
    scores = network(torch.randn(1, 3, *size))
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_evaluation_is_deterministic_and_training_is_not() -> None:
    torch.manual_seed(0)
    network, image = UNet(3, width=4), torch.randn(1, 3, 20, 20)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


def test_only_the_backbone_can_be_pretrained() -> None:
    with torch.device("meta"):
        own, timm = UNet(5, width=4), UNet(5, True, width=4, backbone="resnet18")
    assert [p.shape[0] for p in own.head_parameters()] == [5, 5]
    assert {id(p) for p in timm.backbone_parameters()} == {
        id(p) for p in timm.backbone.parameters()
    }


def test_takes_the_backbone_s_weights_from_a_file(tmp_path) -> None:
    earlier = UNet(5, True, width=4, backbone="resnet18")
    torch.save(earlier.state_dict(), tmp_path / "run.pth")
    network = UNet(7, True, width=4, backbone="resnet18", pretrained=str(tmp_path / "run.pth"))
    ours, theirs = network.state_dict(), earlier.state_dict()
    assert torch.equal(
        ours["backbone.features.layer4.1.conv2.weight"],
        theirs["backbone.features.layer4.1.conv2.weight"],
    )
    assert not torch.equal(ours["down.0.0.weight"], theirs["down.0.0.weight"])
