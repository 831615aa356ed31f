from pathlib import Path

import pytest
import torch
import torchvision
from alignment import centroid
from torch import Tensor, nn
from torch.nn import functional as F
from unpooling import averaging_switches, unpool_by_hand

from segment.architectures import SegNet, SegNetBasic
from segment.architectures.segnet import Decoder, Encoder


@pytest.mark.parametrize(
    ("network", "classes", "count"),
    [
        (SegNet, 11, 29_449_355),
        (SegNet, 21, 29_455_125),
        (SegNetBasic, 11, 1_416_587),
        (SegNetBasic, 21, 1_417_237),
    ],
)
def test_has_as_many_parameters_as_released(network, classes, count) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in network(classes).parameters()) == count


def layers(network: nn.Module) -> list[str]:
    """`c64` a convolution to 64 channels, `b` BN, `r` ReLU, in order."""
    words = {nn.Conv2d: "c", nn.BatchNorm2d: "b", nn.ReLU: "r"}
    found = [m for m in network.modules() if type(m) in words]
    return [words[type(m)] + (str(m.out_channels) if words[type(m)] == "c" else "") for m in found]


def test_layers_are_those_of_segnet_train_prototxt() -> None:
    with torch.device("meta"):
        network = SegNet(11)
    encoder = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    decoder = [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64]
    expected = [word for c in [*encoder, *decoder] for word in (f"c{c}", "b", "r")]
    assert layers(network) == [*expected, "c11"]  # the last has neither BN nor ReLU
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert {(m.kernel_size, m.padding) for m in convolutions} == {((3, 3), (1, 1))}
    assert all(m.bias is not None for m in convolutions)


def test_layers_are_those_of_segnet_basic_train_prototxt() -> None:
    with torch.device("meta"):
        network = SegNetBasic(11)
    assert layers(network) == ["c64", "b", "r"] * 4 + ["c64", "b"] * 4 + ["c11"]
    *wide, score = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert {(m.kernel_size, m.padding) for m in wide} == {((7, 7), (3, 3))}
    assert score.kernel_size == (1, 1)


@pytest.mark.parametrize("network", [SegNet, SegNetBasic])
@pytest.mark.parametrize("size", [(512, 512), (375, 500), (360, 480), (33, 47)])
def test_scores_every_pixel_of_any_size(network, size) -> None:
    with torch.device("meta"):
        network = network(7)
        assert network.valid_size(*size) == size
        assert network(torch.zeros(2, 3, *size)).shape == (2, 7, *size)


def test_pools_round_up_as_caffe_does() -> None:
    # segnet_train.prototxt: upsample5 gives 23x30, upsample4 45x60, of photos of 360x480.
    with torch.device("meta"):
        features, switches = SegNet(11).encoder(torch.zeros(1, 3, 360, 480))
    assert features.shape == (1, 512, 12, 15)
    sizes = [(360, 480), (180, 240), (90, 120), (45, 60), (23, 30)]
    assert [tuple(size) for _, size in switches] == sizes


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("size", [(8, 6), (7, 9), (5, 4)])
def test_unpooling_puts_maxima_back_and_zeros_elsewhere(size, ceil_mode) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    encoder = Encoder([[3]], ceil_mode=ceil_mode)
    encoder.stages[0] = nn.Identity()
    pooled, switches = encoder(x)
    decoder = Decoder([nn.Identity()])
    whole = size if ceil_mode else [side // 2 * 2 for side in size]
    is_maximum = unpool_by_hand(x, torch.ones_like(pooled)).bool()
    is_maximum[..., whole[0] :, :] = is_maximum[..., :, whole[1] :] = False
    assert torch.equal(decoder(pooled, switches), x * is_maximum)
    assert torch.equal(decoder(pooled + 5, switches), unpool_by_hand(x, pooled + 5))


def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)


def randomize(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.weight, module.bias):
                nn.init.normal_(values, 0.5, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def test_basic_is_what_its_prototxt_says_by_hand() -> None:
    torch.manual_seed(0)
    network = randomize(SegNetBasic(3, width=2))
    image = torch.rand(1, 3, 21, 18) * 255
    with torch.no_grad():
        # Caffe's LRN over all three channels: x / (1 + alpha / 5 * sum of squares) ** beta.
        x = image / (1 + 1e-4 / 5 * image.square().sum(1, keepdim=True)) ** 0.75
        befores = []
        for stage in network.encoder.stages:
            conv, bn, _ = stage[0]
            before = norm(F.conv2d(x, conv.weight, conv.bias, padding=3), bn).clamp(min=0)
            befores.append(before)
            x = F.max_pool2d(before, 2, ceil_mode=True)
        for (conv, bn), before in zip(network.decoder.stages, befores[::-1], strict=True):
            x = unpool_by_hand(before, x)
            x = norm(F.conv2d(x, conv.weight, conv.bias, padding=3), bn)
        expected = F.conv2d(x, network.score.weight, network.score.bias)
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


def unpooled(decoder: Decoder, features: Tensor, switches: list) -> list[Tensor]:
    """What each unpooling gives, and the decoder's result."""
    found: list[Tensor] = []
    handles = [
        stage.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
        for stage in decoder.stages
    ]
    found.append(decoder(features, switches))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("network", [SegNet, SegNetBasic])
def test_each_pool_s_switches_matter_from_its_own_unpooling_on(network) -> None:
    torch.manual_seed(0)
    network = randomize(network(3, width=4))
    with torch.no_grad():
        features, switches = network.encoder(torch.randn(1, 3, 64, 64))
        right = unpooled(network.decoder, features, switches)
        for level, (indices, size) in enumerate(switches):
            permuted = list(switches)
            permuted[level] = (indices.roll(1, dims=1), size)  # another channel's
            wrong = unpooled(network.decoder, features, permuted)
            same = [torch.equal(a, b) for a, b in zip(right, wrong, strict=True)]
            untouched = len(switches) - 1 - level
            assert same == [True] * untouched + [False] * (level + 2)


@pytest.mark.parametrize("network", [SegNet, SegNetBasic])
def test_a_pixel_s_score_is_centred_on_that_pixel(network) -> None:
    network = averaging_switches(network(2, width=4))
    image = torch.zeros(1, 3, 288, 288, requires_grad=True)
    rows, columns = torch.arange(130, 162), torch.arange(100, 132)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert row == pytest.approx(145.5, abs=0.1)
    assert column == pytest.approx(115.5, abs=0.1)


def test_basic_s_fourth_layer_sees_106_pixels() -> None:
    network = averaging_switches(SegNetBasic(2, width=2)).double()
    image = torch.zeros(1, 3, 192, 192, dtype=torch.double, requires_grad=True)
    features, _ = network.encoder(image)
    features[0, 0, 6, 6].backward()
    seen = image.grad[0, 0] != 0
    assert (int(seen.any(0).sum()), int(seen.any(1).sum())) == (106, 106)


@pytest.mark.parametrize("network", [SegNet, SegNetBasic])
def test_every_parameter_learns(network) -> None:
    torch.manual_seed(0)
    # In evaluation mode: in training BN takes away what a convolution's bias adds.
    network = randomize(network(3, width=4))
    (network(torch.randn(2, 3, 64, 64)) * torch.randn(2, 3, 64, 64)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("network", [SegNet, SegNetBasic])
def test_evaluation_is_deterministic_and_of_one_photo_alone(network) -> None:
    torch.manual_seed(0)
    network = network(3, width=4).eval()
    images = torch.randn(3, 3, 49, 64)
    with torch.no_grad():
        scores = network(images)
        assert torch.equal(network(images), scores)
        torch.testing.assert_close(network(images[1:2]), scores[1:2], rtol=1e-4, atol=1e-4)
        # Modules store networks this way, and switches are indices into memory.
        network.to(memory_format=torch.channels_last)
        last = network(images.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(last, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("network", "least"), [(SegNet, 32), (SegNetBasic, 16)])
def test_one_photo_of_the_least_size_trains_and_a_smaller_one_is_refused(network, least) -> None:
    network = network(3, width=4).train()
    assert network(torch.randn(1, 3, least, least)).isfinite().all()
    message = rf"takes heights and widths from {least} on; got {least - 1}x64\. Pad it to {least}x"
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(1, 3, least - 1, 64))


def test_decoder_and_scores_are_the_head() -> None:
    network = SegNet(3, width=4)
    head = {id(p) for p in network.head_parameters()}
    heads = {n.split(".")[0] for n, p in network.named_parameters() if id(p) in head}
    rest = {n.split(".")[0] for n, p in network.named_parameters() if id(p) not in head}
    assert (heads, rest) == ({"decoder", "score"}, {"encoder"})


def vgg16_file(path: Path, kind: str) -> tuple[Path, nn.Module]:
    """A file as torchvision's, and the network; the classifier takes no room."""
    torch.manual_seed(0)
    with torch.device("meta"):
        vgg = getattr(torchvision.models, kind)()
    vgg.features.to_empty(device="cpu")
    for module in vgg.features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.weight, module.bias):
                nn.init.normal_(values, 0.5, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            module.num_batches_tracked.zero_()
    weights = {
        key: torch.zeros(1).expand(value.shape) if value.is_meta else value
        for key, value in vgg.state_dict().items()
    }
    torch.save(weights, path)
    return path, vgg.features.eval()


def test_takes_torchvision_s_vgg16_bn_with_its_norms(tmp_path: Path) -> None:
    path, features = vgg16_file(tmp_path / "vgg16_bn.pth", "vgg16_bn")
    network = SegNet(2, pretrained=str(path)).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(network.encoder(image)[0], features(image))


def test_takes_torchvision_s_vgg16_with_fresh_norms(tmp_path: Path) -> None:
    path, features = vgg16_file(tmp_path / "vgg16.pth", "vgg16")
    network = SegNet(2, pretrained=str(path)).eval()
    image = torch.randn(1, 3, 32, 32)
    for module in network.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    with torch.no_grad():
        torch.testing.assert_close(network.encoder(image)[0], features(image))


def test_takes_an_earlier_run_with_other_classes_and_refuses_what_does_not_fit(tmp_path) -> None:
    torch.manual_seed(0)
    earlier, path = SegNet(5, width=4), tmp_path / "earlier.pth"
    torch.save(earlier.state_dict(), path)
    network = SegNet(3, pretrained=str(path), width=4)
    assert torch.equal(
        network.decoder.stages[4][0][0].weight, earlier.decoder.stages[4][0][0].weight
    )
    with pytest.raises(ValueError, match=r"earlier\.pth: 'encoder.* is 4x3x3x3, but .* is 8x3x3x3"):
        SegNet(3, pretrained=str(path), width=8)
    path, _ = vgg16_file(tmp_path / "vgg16.pth", "vgg16")
    with pytest.raises(ValueError, match=r"vgg16\.pth: fits a width of 64 only"):
        SegNet(3, pretrained=str(path), width=8)
