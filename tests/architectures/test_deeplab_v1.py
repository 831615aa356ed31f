import pytest
import torch
import torchvision
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import DeepLabV1
from segment.architectures.deeplab_v1 import FC6, LargeFOV, decimate


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("largefov", 20_505_429),  # the paper: 20.5M
        ("4x4", 65_140_565),  # 65.1M
        ("7x7", 134_346_581),  # 134.3M
        ("msc_largefov", 21_711_550),
    ],
)
def test_has_as_many_parameters_as_published(variant, count) -> None:
    with torch.device("meta"):
        network = DeepLabV1(21, variant)
    assert sum(p.numel() for p in network.parameters()) == count


def test_is_the_released_network_layer_by_layer() -> None:
    network = DeepLabV1(21)
    found = []
    for layer in [*network.backbone, network.pool5a, *network.head]:
        if isinstance(layer, nn.Conv2d):
            found.append((layer.out_channels, layer.kernel_size[0], layer.dilation[0]))
        elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            found.append((type(layer).__name__[:3], layer.kernel_size, layer.stride, layer.padding))
        elif isinstance(layer, nn.Dropout):
            found.append(layer.p)
    assert found == [
        *[(64, 3, 1)] * 2,
        ("Max", 3, 2, 1),
        *[(128, 3, 1)] * 2,
        ("Max", 3, 2, 1),
        *[(256, 3, 1)] * 3,
        ("Max", 3, 2, 1),
        *[(512, 3, 1)] * 3,
        ("Max", 3, 1, 1),
        *[(512, 3, 2)] * 3,
        ("Max", 3, 1, 1),
        ("Avg", 3, 1, 1),
        *[(1024, 3, 12), 0.5, (1024, 1, 1), 0.5, (21, 1, 1)],
    ]
    assert network.head.fc8.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not network.head.fc8.bias.any()


def test_upsamples_coarse_scores_corner_to_corner() -> None:
    torch.manual_seed(0)
    network = DeepLabV1(3).eval()
    image = torch.randn(2, 3, 65, 49)
    with torch.no_grad():
        (coarse,) = network.score_scales(image)
        fine = network(image)
    assert coarse.shape == (2, 3, 9, 7)
    assert fine.shape == (2, 3, 65, 49)
    torch.testing.assert_close(fine[..., ::8, ::8], coarse)


@pytest.mark.parametrize(
    ("given", "valid"), [((375, 500), (377, 505)), ((321, 513), (321, 513)), ((1, 2), (9, 9))]
)
def test_valid_sizes_are_8k_plus_1(given, valid) -> None:
    with torch.device("meta"):
        assert DeepLabV1(2).valid_size(*given) == valid


def test_refuses_another_size_and_names_one_it_takes() -> None:
    with torch.device("meta"):
        network, image = DeepLabV1(2), torch.zeros(1, 3, 64, 65)
    with pytest.raises(ValueError, match=r"8k \+ 1; got 64x65\. Pad it to 65x65"):
        network(image)


def test_refuses_a_variant_it_does_not_have() -> None:
    with pytest.raises(ValueError, match="variant is 'C'; it can be 'largefov', '4x4', '7x7'"):
        DeepLabV1(2, variant="C")


def test_only_the_scores_are_the_head() -> None:
    with torch.device("meta"):
        network = DeepLabV1(5)
    head, backbone = list(network.head_parameters()), list(network.backbone_parameters())
    assert [p.shape[0] for p in head] == [5, 5]
    assert {id(p) for p in head + backbone} == {id(p) for p in network.parameters()}
    assert len(head) + len(backbone) == len(list(network.parameters()))


def test_decimation_keeps_every_fourth_neuron_and_third_position() -> None:
    # The places of the weights as values: 4096 x 4096 and 4096 x (512, 7, 7) of VGG-16.
    rows = torch.arange(4096, dtype=torch.int32)[:, None]
    whole = {
        "classifier.0.weight": rows * 7 + torch.arange(25088, dtype=torch.int32) * 100_000,
        "classifier.0.bias": rows[:, 0],
        "classifier.3.weight": rows + torch.arange(4096, dtype=torch.int32) * 5000,
        "classifier.3.bias": rows[:, 0] + 1,
    }
    thin = decimate(whole)
    assert thin["fc6.weight"].shape == (1024, 512, 3, 3)
    for o, c, y, x in [(0, 0, 0, 0), (1, 0, 0, 1), (5, 3, 1, 0), (1023, 511, 2, 2)]:
        neuron = whole["classifier.0.weight"][4 * o]
        assert thin["fc6.weight"][o, c, y, x] == neuron.view(512, 7, 7)[c, 3 * y, 3 * x]
    assert thin["fc7.weight"].shape == (1024, 1024, 1, 1)
    assert thin["fc7.weight"][7, 900, 0, 0] == whole["classifier.3.weight"][28, 3600]
    assert thin["fc6.bias"].tolist() == list(range(0, 4096, 4))
    assert thin["fc7.bias"].tolist() == list(range(1, 4096, 4))


def vgg16_weights() -> dict[str, torch.Tensor]:
    """As torchvision publishes them; each row one number, so that a file of them is small."""
    torch.manual_seed(0)
    with torch.device("meta"):
        whole = torchvision.models.vgg16().state_dict()
    weights = {}
    for key, like in whole.items():
        row = torch.randn(like.shape[0], *[1] * (like.dim() - 1)) / like[0].numel()
        weights[key] = row.expand(like.shape)
    return weights


def test_takes_torchvision_weights_from_a_file(tmp_path) -> None:
    weights = vgg16_weights()
    torch.save(weights, tmp_path / "vgg16.pth")
    network = DeepLabV1(4, pretrained=str(tmp_path / "vgg16.pth"))
    with torch.device("meta"):
        features = torchvision.models.vgg16().features
    x = image = torch.randn(1, 3, 17, 17)
    for layer, ours in zip(features, network.backbone, strict=True):
        assert type(layer) is type(ours)
    for index, layer in enumerate(features):
        if isinstance(layer, nn.Conv2d):
            d = 2 if index >= 24 else 1
            w, b = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
            x = F.conv2d(x, w, b, padding=d, dilation=d).relu()
        elif isinstance(layer, nn.MaxPool2d):
            x = F.max_pool2d(x, 3, stride=2 if index < 20 else 1, padding=1)
    torch.testing.assert_close(network.backbone(image), x)
    assert torch.equal(network.head.fc6.bias, weights["classifier.0.bias"][::4])
    assert torch.equal(network.head.fc7.weight[:, 0, 0, 0], weights["classifier.3.weight"][::4, 0])
    assert network.head.fc8.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_refuses_vgg_weights_whose_classifier_is_not_a_number(tmp_path) -> None:
    weights = vgg16_weights()
    weights["classifier.3.bias"] = torch.full((4096,), float("nan"))
    torch.save(weights, tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match=r"vgg16.pth: 'classifier.3.bias' holds NaN or infinity"):
        DeepLabV1(4, pretrained=str(tmp_path / "vgg16.pth"))


def test_takes_the_weights_of_an_earlier_run_but_never_its_scores(tmp_path) -> None:
    earlier = DeepLabV1(7)
    torch.save(earlier.state_dict(), tmp_path / "run.pth")
    network = DeepLabV1(7, pretrained=str(tmp_path / "run.pth"))
    assert torch.equal(network.head.fc6.weight, earlier.head.fc6.weight)
    assert torch.equal(network.backbone[0].weight, earlier.backbone[0].weight)
    assert not torch.equal(network.head.fc8.weight, earlier.head.fc8.weight)


@pytest.mark.parametrize(("variant", "kernel", "dilation"), [("4x4", 4, 8), ("7x7", 7, 4)])
def test_larger_classifiers_are_table_2_s(variant, kernel, dilation) -> None:
    with torch.device("meta"):
        network = DeepLabV1(21, variant).eval()
        assert network.score_scales(torch.zeros(1, 3, 321, 321))[0].shape == (1, 21, 41, 41)
        assert network(torch.zeros(1, 3, 377, 505)).shape == (1, 21, 377, 505)
        view = DeepLabV1(21).head.fc6
    fc6 = network.head.fc6
    assert (fc6.kernel_size[0], fc6.dilation[0], fc6.out_channels) == (kernel, dilation, 4096)
    assert fc6.dilation[0] * (kernel - 1) == view.dilation[0] * 2 == 24  # 224 pixels in all three
    assert network.head.fc7.weight.shape == (4096, 4096, 1, 1)
    assert network.head.fc8.weight.shape == (21, 4096, 1, 1)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert not any(isinstance(m, nn.AvgPool2d) for m in network.modules())


def test_classifiers_look_around_the_cell_they_score() -> None:
    for kernel, dilation in [(3, 12), (4, 8), (7, 4)]:
        head = averaging(LargeFOV(1, dilation, kernel, channels=2))
        nn.init.ones_(head.fc6.weight)
        features = torch.zeros(1, 512, 41, 41, requires_grad=True)
        assert centroid(head(features)[0, 0, 20, 19], features) == pytest.approx((20, 19), abs=1e-3)


def test_decimation_keeps_every_second_position_for_4x4_and_all_for_7x7() -> None:
    neurons = torch.arange(4096.0)
    whole = {
        "classifier.0.weight": torch.arange(25088.0).expand(4096, 25088),
        "classifier.0.bias": neurons,
        "classifier.3.weight": neurons[:, None].expand(4096, 4096),
        "classifier.3.bias": neurons,
    }
    fc6 = whole["classifier.0.weight"].view(4096, 512, 7, 7)
    thin = decimate(whole, kernel=4, channels=4096)
    assert thin["fc6.weight"].shape == (4096, 512, 4, 4)
    for y, x in [(0, 0), (1, 0), (2, 3)]:
        assert torch.equal(thin["fc6.weight"][:, :, y, x], fc6[:, :, 2 * y, 2 * x])
    full = decimate(whole, kernel=7, channels=4096)
    assert torch.equal(full["fc6.weight"], fc6)
    assert torch.equal(full["fc7.weight"][..., 0, 0], whole["classifier.3.weight"])


@pytest.mark.parametrize("variant", FC6)
def test_every_parameter_of_every_variant_learns(variant, monkeypatch) -> None:
    monkeypatch.setitem(FC6, variant, (*FC6[variant][:2], 64))  # 4096 channels take seconds
    torch.manual_seed(0)
    network = DeepLabV1(3, variant).train()
    for parameter in network.branches.parameters():
        nn.init.normal_(parameter, std=0.05)
    # On 13 x 13 cells every tap of 4x4 and 7x7, and the middle one of 3x3, meets some cell.
    scores = network(torch.randn(1, 3, 97, 97))
    (scores * torch.randn_like(scores)).sum().backward()
    assert (
        network.head.fc6.weight.grad.sum((0, 1)).count_nonzero()
        == {3: 9, 4: 16, 7: 49}[FC6[variant][0]]
    )
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_4x4_takes_torchvision_weights_from_a_file(tmp_path) -> None:
    weights = vgg16_weights()
    torch.save(weights, tmp_path / "vgg16.pth")
    network = DeepLabV1(4, "4x4", pretrained=str(tmp_path / "vgg16.pth"))
    assert torch.equal(network.head.fc6.bias, weights["classifier.0.bias"])
    assert torch.equal(network.head.fc7.weight[..., 0, 0], weights["classifier.3.weight"])
