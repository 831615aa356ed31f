import numpy as np
import pytest
import torch
import torchvision
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import FCN
from segment.architectures.classifiers import convolutional
from segment.architectures.fcn import Upsampling
from segment.architectures.pretrained import load_weights


def randomized(network: FCN) -> FCN:
    """With scores that are not zero."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("score"):
                parameter.normal_()
    return network


@pytest.mark.parametrize(
    ("arguments", "count", "with_upsampling"),
    [
        ({"stride": 32}, 134_346_581, 136_152_917),
        ({"stride": 16}, 134_357_354, 134_815_994),
        ({"stride": 8}, 134_362_751, 134_489_759),
        ({"stride": 8, "at_once": True}, 134_362_751, 134_489_759),
        ({"backbone": "alexnet"}, 57_089_877, 57_089_877 + 21 * 21 * 63 * 63),
    ],
)
@pytest.mark.parametrize("padding", ["original", "same"])
def test_has_as_many_parameters_as_the_paper_adds_up_to(
    arguments, count, with_upsampling, padding
) -> None:
    with torch.device("meta"):
        network = FCN(21, padding=padding, **arguments)
    assert sum(p.numel() for p in network.parameters()) == count
    # As the release stores them, every transposed convolution goes from all classes to all.
    kernels = [m.weight.shape[-1] for m in network.modules() if isinstance(m, Upsampling)]
    assert count + sum(21 * 21 * k * k for k in kernels) == with_upsampling


def test_a_learnt_upsampling_counts_the_last_stays_bilinear() -> None:
    with torch.device("meta"):
        network = FCN(21, 8, learn_upsampling=True)
    assert sum(p.numel() for p in network.parameters()) == 134_362_751 + 2 * 21 * 21 * 4 * 4
    assert [n for n, _ in network.named_parameters() if n.startswith("upscore")] == [
        "upscore2.weight",
        "upscore_pool4.weight",
    ]


@pytest.mark.parametrize(
    ("padding", "first", "fc6", "ceil"), [("original", 100, 0, True), ("same", 1, 3, False)]
)
def test_is_the_released_network_layer_by_layer(padding, first, fc6, ceil) -> None:
    with torch.device("meta"):
        network = FCN(21, padding=padding)
    found = []
    for layer in [*network.backbone.features, *network.backbone.head, network.score_fr]:
        if isinstance(layer, nn.Conv2d):
            found.append((layer.out_channels, layer.kernel_size[0], layer.padding[0]))
        elif isinstance(layer, nn.MaxPool2d):
            found.append((layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode))
        else:
            found.append(type(layer) if isinstance(layer, nn.ReLU) else (type(layer), layer.p))
    relu, drop, pool = nn.ReLU, (nn.Dropout, 0.5), (2, 2, 0, ceil)

    def convs(channels, count):
        return [(channels, 3, 1), relu] * count

    assert found == [
        *[(64, 3, first), relu, (64, 3, 1), relu, pool],
        *[*convs(128, 2), pool, *convs(256, 3), pool, *convs(512, 3), pool, *convs(512, 3), pool],
        *[(4096, 7, fc6), relu, drop, (4096, 1, 0), relu, drop, (21, 1, 0)],
    ]


def test_alexnet_is_torchvision_s_but_for_padding_and_rounding() -> None:
    with torch.device("meta"):
        network, theirs = FCN(21, backbone="alexnet"), torchvision.models.alexnet()
    ours = network.backbone
    assert ours.features[0].padding == (100, 100)
    for a, b in zip(ours.features, theirs.features, strict=True):
        assert type(a) is type(b)
        if isinstance(a, nn.Conv2d):
            assert (a.weight.shape, a.stride) == (b.weight.shape, b.stride)
            assert a is ours.features[0] or a.padding == b.padding
        elif isinstance(a, nn.MaxPool2d):
            assert (a.kernel_size, a.stride, a.padding) == (b.kernel_size, b.stride, b.padding)
            assert a.ceil_mode
    assert ours.head.fc6.weight.shape == (4096, 256, 6, 6)
    assert ours.head.fc7.weight.shape == (4096, 4096, 1, 1)


@pytest.mark.parametrize(
    "arguments", [{"stride": 32}, {"stride": 16}, {"stride": 8}, {"backbone": "alexnet"}]
)
def test_padded_by_100_it_takes_any_size_without_running_out_of_scores(arguments) -> None:
    # With pools rounded down, 375 and 500 would come out 10 and 7 pixels short.
    with torch.device("meta"):
        network = FCN(2, width=1, **arguments)
        for height, width in [(375, 500), (512, 512), *((n, n + 32) for n in range(1, 33))]:
            assert network.valid_size(height, width) == (height, width)
            image = torch.zeros(1, 3, height, width)
            assert network(image).shape == (1, 2, height, width)


@pytest.mark.parametrize(
    ("pixels", "pools", "scores"),
    [
        (375, [287, 144, 72, 36, 18], 12),
        (500, [349, 175, 88, 44, 22], 16),
        (512, [355, 178, 89, 45, 23], 17),
    ],
)
def test_pools_are_as_large_as_caffe_s(pixels, pools, scores) -> None:
    with torch.device("meta"):
        backbone = FCN(2, width=1).backbone
        x, found = torch.zeros(1, 3, pixels, pixels), []
        for layer in backbone.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                found.append(x.shape[-1])
        assert (found, backbone.head(x).shape[-1]) == (pools, scores)


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ({"padding": "same", "width": 1}, (384, 512)),
        ({"padding": "same", "width": 1, "backbone": "alexnet", "stride": 32}, (384, 512)),
        ({"padding": "same", "backbone": "resnet18"}, (385, 513)),
        ({"padding": "same", "backbone": "tf_efficientnet_lite0"}, (385, 513)),
        ({"padding": "same", "backbone": "convnext_atto"}, (384, 512)),
        ({"padding": "same", "backbone": "efficientnet_b0"}, (385, 513)),
        ({"padding": "same", "backbone": "mobilenetv3_small_100"}, (385, 513)),
        ({"padding": "same", "backbone": "regnetx_002"}, (385, 513)),
    ],
)
def test_padded_layer_by_layer_it_takes_sizes_on_which_nothing_is_cropped(arguments, valid) -> None:
    network = FCN(3, **{"stride": 8, **arguments}).to("meta")
    with torch.device("meta"):
        assert network.valid_size(375, 500) == valid
        assert network.valid_size(*valid) == valid
        assert network(torch.zeros(1, 3, *valid)).shape == (1, 3, *valid)
        least = network.valid_size(1, 1)
        assert network(torch.zeros(1, 3, *least)).shape == (1, 3, *least)
        with pytest.raises(ValueError, match=r"32k.*; got 100x64\. Pad it to"):
            network(torch.zeros(1, 3, 100, 64))


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"width": 1, "stride": 32}, 282),  # with the padding, 15 * 32: pools round nothing
        ({"width": 1, "stride": 16}, 282),
        ({"width": 1, "stride": 8}, 282),
        ({"width": 1, "stride": 32, "padding": "same"}, 288),
        ({"width": 1, "stride": 8, "padding": "same"}, 288),
        ({"width": 1, "backbone": "alexnet"}, 571),
        ({"width": 1, "backbone": "alexnet", "padding": "same"}, 576),
        ({"stride": 8, "backbone": "tf_efficientnet_lite0", "padding": "same"}, 289),
        ({"stride": 8, "backbone": "resnet18", "padding": "same"}, 289),
        ({"stride": 16, "backbone": "convnext_atto", "padding": "same"}, 288),
    ],
)
def test_a_pixel_s_score_is_centred_on_that_pixel_through_every_branch(arguments, size) -> None:
    network = averaging(FCN(2, **arguments))
    assert network.valid_size(size, size) == (size, size)
    for kept in (name for name in network.score_names if name.startswith("score")):
        for name in network.score_names:
            network.get_submodule(name).weight.data.fill_(1.0 if name == kept else 0.0)
        image = torch.zeros(1, 3, size, size, requires_grad=True)
        # 32 consecutive pixels away from the middle, where symmetry would hide a wrong scale.
        first = size // 2 - 16
        rows, columns = torch.arange(first + 10, first + 42), torch.arange(first - 20, first + 12)
        row, column = centroid(network(image)[0, 0, rows, columns], image)
        assert row == pytest.approx(first + 25.5, abs=0.1)
        assert column == pytest.approx(first - 4.5, abs=0.1)


def caffe_bilinear(size: int) -> np.ndarray:
    """The kernel of the release's surgery.py."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    y, x = np.ogrid[:size, :size]
    return (1 - abs(y - centre) / factor) * (1 - abs(x - centre) / factor)


@pytest.mark.parametrize("at_once", [False, True])
def test_8s_is_the_released_network_written_out(at_once) -> None:
    torch.manual_seed(0)
    network = randomized(FCN(3, 8, at_once=at_once, width=2)).eval()
    image = torch.randn(2, 3, 61, 40)
    weights = network.state_dict()

    def conv(x, name, padding=0):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    def deconv(x, size, factor):
        kernel = torch.zeros(3, 3, size, size)
        for i in range(3):
            kernel[i, i] = torch.from_numpy(caffe_bilinear(size))
        return F.conv_transpose2d(x, kernel, stride=factor)

    x, pools = image, []
    for stage in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
        for index in stage:
            x = conv(x, f"backbone.features.{index}", 100 if index == 0 else 1).relu()
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        pools.append(x)
    x = conv(conv(x, "backbone.head.fc6").relu(), "backbone.head.fc7").relu()
    x = deconv(conv(x, "score_fr"), 4, 2)
    pool4 = conv(pools[3] * (0.01 if at_once else 1), "score_pool4")
    x = deconv(x + pool4[..., 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]], 4, 2)
    pool3 = conv(pools[2] * (0.0001 if at_once else 1), "score_pool3")
    x = deconv(x + pool3[..., 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]], 16, 8)
    with torch.no_grad():
        torch.testing.assert_close(network(image), x[..., 31 : 31 + 61, 31 : 31 + 40])


def test_on_resnet_every_branch_is_upsampled_corner_to_corner_and_summed() -> None:
    torch.manual_seed(0)
    network = randomized(FCN(3, 8, backbone="resnet18", padding="same")).eval()
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        maps = network.backbone.pyramid(image)
        assert [tuple(x.shape[-2:]) for x in maps] == [(9, 13), (5, 7), (3, 4)]
        parts = [
            F.interpolate(score(x), image.shape[-2:], mode="bilinear", align_corners=True)
            for score, x in zip(
                [network.score_pool3, network.score_pool4, network.score_fr], maps, strict=True
            )
        ]
        torch.testing.assert_close(network(image), sum(parts), rtol=1e-4, atol=1e-3)
        for name, part in zip(["score_pool3", "score_pool4", "score_fr"], parts, strict=True):
            layer = network.get_submodule(name)
            kept = {k: v.clone() for k, v in layer.state_dict().items()}
            for parameter in layer.parameters():
                parameter.zero_()
            torch.testing.assert_close(network(image), sum(parts) - part, rtol=1e-4, atol=1e-3)
            layer.load_state_dict(kept)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_transposed_convolutions_are_bilinear_interpolation(factor) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 6, 5)
    even = Upsampling(2, factor, 2 * factor, factor // 2)(x)
    size = (6 * factor, 5 * factor)
    inside = (..., slice(factor // 2, -(factor // 2)), slice(factor // 2, -(factor // 2)))
    expected = F.interpolate(x, size, mode="bilinear", align_corners=False)
    assert even.shape == expected.shape
    torch.testing.assert_close(even[inside], expected[inside])
    assert not torch.allclose(even, expected)  # Caffe's sees zeros beyond the border
    odd = Upsampling(2, factor, 2 * factor - 1, factor - 1)(x)
    size = (5 * factor + 1, 4 * factor + 1)
    torch.testing.assert_close(odd, F.interpolate(x, size, mode="bilinear", align_corners=True))


@pytest.mark.parametrize("learnt", [False, True])
def test_a_class_reaches_only_itself_and_a_learnt_kernel_starts_as_the_fixed(learnt) -> None:
    layer = Upsampling(4, 2, 4, learnt=learnt)
    x = torch.zeros(1, 4, 3, 3)
    x[:, 2] = 1
    out = layer(x)
    assert out.abs().amax(dim=(0, 2, 3)).tolist() == [0, 0, 1, 0]
    noise = torch.randn(1, 4, 3, 5)
    torch.testing.assert_close(layer(noise), Upsampling(4, 2, 4)(noise))
    assert len(list(layer.parameters())) == learnt


def test_dropout_drops_single_elements() -> None:
    torch.manual_seed(0)
    head = FCN(2, width=1).backbone.head.train()
    for drop in (head.drop6, head.drop7):
        kept = (drop(torch.ones(1, 8, 16, 16)) > 0).float().mean(dim=(2, 3))
        assert 0.3 < kept.min() < kept.max() < 0.7  # by channel, each would be 0 or 1


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"stride": 32}, ("score_fr",)),
        ({"stride": 16}, ("score_fr", "score_pool4")),
        ({"stride": 8}, ("score_fr", "score_pool4", "score_pool3")),
        ({"stride": 8, "at_once": True}, ("score_fr", "score_pool4", "score_pool3")),
    ],
)
def test_scores_start_at_zero_and_are_the_head(arguments, names) -> None:
    network = FCN(5, width=1, **arguments)
    assert network.score_names == names
    head = network.head_parameters()
    assert len(head) == 2 * len(names)
    assert all(p.shape[0] == 5 and not p.any() for p in head)


@pytest.mark.parametrize(("name", "fc", "side"), [("vgg16", 512, 7), ("alexnet", 256, 6)])
def test_fully_connected_layers_see_rows_columns_and_channels_in_torchvision_s_order(
    name, fc, side
) -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        fc6, fc7 = FCN(2, backbone=name).backbone.fully_connected
    first, second = nn.Linear(fc * side * side, 8), nn.Linear(8, 5)
    weights = {f"{fc6}.{k}": v for k, v in first.state_dict().items()}
    weights |= {f"{fc7}.{k}": v for k, v in second.state_dict().items()}
    found = convolutional(weights, fc6, fc7, side)
    x = torch.randn(2, fc, side, side)
    y = F.conv2d(x, found["head.fc6.weight"], found["head.fc6.bias"])
    y = F.conv2d(y, found["head.fc7.weight"], found["head.fc7.bias"])
    with torch.no_grad():
        torch.testing.assert_close(y.flatten(1), second(first(x.flatten(1))))


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_takes_torchvision_s_weights_and_gives_its_classifier_s_logits(
    name, tmp_path, monkeypatch
) -> None:
    torch.manual_seed(0)
    for draw in ("kaiming_normal_", "kaiming_uniform_"):  # seconds, for what weights replace
        monkeypatch.setattr(nn.init, draw, lambda tensor, **_: tensor)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name).eval()
    weights = {}
    for key, like in theirs.state_dict().items():
        # One number per row and column, so that a file of them is small.
        shape = [*like.shape[:2], *[1] * (like.dim() - 2)]
        if "classifier" in key and like.dim() == 2:
            shape = [like.shape[0], 1]
        spread = (2 / max(1, like[0].numel())) ** 0.5 if like.dim() > 1 else 0.1
        weights[key] = (torch.randn(shape) * spread).expand(like.shape)
    path = tmp_path / "weights.pth"
    torch.save(weights, path)
    theirs.load_state_dict(weights, assign=True)
    network = FCN(1000, backbone=name, padding="same", pretrained=str(path)).eval()
    own = network.backbone
    fc8 = {k: weights[f"classifier.6.{k}"] for k in ("weight", "bias")}
    network.score_fr.load_state_dict(
        {"weight": fc8["weight"][..., None, None], "bias": fc8["bias"]}
    )
    if name == "alexnet":  # as torchvision pads it
        own.features[0].padding = (2, 2)
        for index in (2, 5, 12):
            own.features[index].padding = 0
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs(image)[0]
        scores = network.score_fr(own.pyramid(image)[-1])[0]
    torch.testing.assert_close(scores[:, 3, 3], expected, rtol=1e-4, atol=1e-5)
    assert (scores[:, 3, 2] - expected).abs().max() > 1e-3


def test_takes_the_weights_of_an_earlier_run_but_never_its_scores(tmp_path) -> None:
    earlier = randomized(FCN(7, width=2))
    torch.save(earlier.state_dict(), tmp_path / "run.pth")
    network = FCN(7, 8, width=2, pretrained=str(tmp_path / "run.pth"))
    own, theirs = network.backbone.state_dict(), earlier.backbone.state_dict()
    assert all(torch.equal(own[k], v) for k, v in theirs.items())
    assert not network.score_fr.weight.any()
    with pytest.raises(ValueError, match=r"run\.pth: 'features\.0\.weight' is 2x3x3x3, but"):
        FCN(7, width=3, pretrained=str(tmp_path / "run.pth"))
    with pytest.raises(ValueError, match=r"run\.pth: 'features\.0\.weight' is 2x3x3x3, but"):
        FCN(7, width=2, backbone="alexnet", pretrained=str(tmp_path / "run.pth"))


@pytest.mark.parametrize("learn_upsampling", [False, True])
def test_16s_starts_from_32s_and_8s_from_16s_and_at_first_says_the_same(learn_upsampling) -> None:
    torch.manual_seed(0)
    options = {"backbone": "resnet18", "padding": "same"}
    first = randomized(FCN(4, 32, **options)).eval()
    second = FCN(4, 16, learn_upsampling=learn_upsampling, **options).eval()
    added = ["score_pool4", "upscore2"] if learn_upsampling else ["score_pool4"]
    assert load_weights(second, first.state_dict()) == added
    third = FCN(4, 8, learn_upsampling=learn_upsampling, **options).eval()
    with torch.no_grad():
        image = torch.randn(1, 3, 65, 97)
        # Linear upsampling by 2 and then 16 is upsampling by 32.
        torch.testing.assert_close(second(image), first(image), rtol=1e-4, atol=1e-4)
        randomized(second)
        added = ["score_pool3", "upscore_pool4"] if learn_upsampling else ["score_pool3"]
        assert load_weights(third, second.state_dict()) == added
        torch.testing.assert_close(third(image), second(image), rtol=1e-4, atol=1e-4)


def test_a_finer_or_differently_scaled_run_is_refused() -> None:
    coarse, fine = FCN(4, 16, width=1), FCN(4, 8, width=1)
    with pytest.raises(ValueError, match=r"'score_pool3\.weight' is no part of this network"):
        load_weights(coarse, fine.state_dict())
    at_once = FCN(4, 8, at_once=True, width=1)
    for stage in (coarse, fine):
        with pytest.raises(ValueError, match="has no 'scale_pool4'"):
            load_weights(at_once, stage.state_dict())
    with pytest.raises(ValueError, match=r"'scale_pool[34]' is no part of this network"):
        load_weights(fine, at_once.state_dict())
    partly = {k: v for k, v in fine.state_dict().items() if k != "score_pool3.bias"}
    with pytest.raises(ValueError, match=r"has no 'score_pool3\.bias'"):
        load_weights(FCN(4, 8, width=1), partly)


def test_a_run_with_other_classes_gives_all_but_scores_and_learnt_upsampling() -> None:
    earlier = randomized(FCN(7, 16, learn_upsampling=True, width=1))
    network = FCN(3, 8, learn_upsampling=True, width=1)
    anew = load_weights(network, earlier.state_dict())
    assert sorted(anew) == sorted(network.score_names)
    assert torch.equal(network.backbone.head.fc6.weight, earlier.backbone.head.fc6.weight)
    assert not network.score_pool4.weight.any()


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"width": 2, "stride": 8, "learn_upsampling": True}, (40, 33)),
        ({"width": 2, "stride": 8, "at_once": True, "padding": "same"}, (32, 64)),
        ({"width": 2, "backbone": "alexnet"}, (40, 33)),
        ({"stride": 8, "backbone": "tf_efficientnet_lite0", "padding": "same"}, (33, 33)),
    ],
)
def test_every_parameter_learns_from_a_batch_of_one(arguments, size) -> None:
    torch.manual_seed(0)
    network = randomized(FCN(3, **arguments)).train()
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    scores = network(torch.randn(1, 3, *size))
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_evaluation_is_deterministic_and_training_is_not() -> None:
    torch.manual_seed(0)
    network = randomized(FCN(3, 16, width=2))
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(network.train()(image), network(image))
        assert torch.equal(network.eval()(image), network(image))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 4}, "stride is 4; FCN on vgg16 takes 32, 16, 8"),
        ({"stride": 16, "backbone": "alexnet"}, "stride is 16; FCN on alexnet takes 32"),
        ({"stride": 16, "at_once": True}, "at_once is for stride 8, .*; got 16"),
        ({"padding": "valid"}, "padding is 'valid'; it can be 'original' or 'same'"),
        ({"learn_upsampling": True}, "learn_upsampling is for strides 16 and 8"),
        ({"backbone": "resnet18"}, "FCN on resnet18 takes padding 'same'"),
        (
            {"backbone": "densenet121", "padding": "same"},
            "densenet121 has no form with an output stride of 32; EfficientNet, .* do",
        ),
        ({"backbone": "vit_tiny_patch16_224", "padding": "same"}, "has no form with an output"),
    ],
)
def test_refuses_what_it_cannot_build(arguments, message) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        FCN(2, **arguments)
