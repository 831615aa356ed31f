from pathlib import Path

import pytest
import torch
import torchvision
from alignment import centroid
from torch import Tensor, nn
from torch.nn import functional as F
from unpooling import averaging_switches, unpool_by_hand

from segment.architectures import DeconvNet, deconvnet
from segment.architectures.segnet import load_vgg16


@pytest.fixture(scope="module")
def narrow() -> DeconvNet:
    """Two channels instead of 64, everything random."""
    torch.manual_seed(0)
    return randomize(DeconvNet(3, width=2))


def randomize(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.weight, module.bias):
                nn.init.normal_(values, 0.5, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_has_as_many_parameters_as_released() -> None:
    with torch.device("meta"):
        network = DeconvNet(21)
    assert count(network.encoder, network.fc6, network.fc7) == 134_285_376
    assert count(network.fc6_deconv, network.decoder) == 117_518_912
    assert count(network.score) == 1_365
    assert count(network) == 251_805_653


def test_layers_are_those_of_stage_2_train_prototxt() -> None:
    with torch.device("meta"):
        network = DeconvNet(21)
    words = {nn.Conv2d: "conv", nn.ConvTranspose2d: "deconv", nn.BatchNorm2d: "b", nn.ReLU: "r"}
    found = [m for m in network.modules() if type(m) in words]
    encoder = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, 4096, 4096]
    decoder = [512, 512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 64]
    expected = [
        *(word for c in encoder for word in (f"conv{c}", "b", "r")),
        *(word for c in decoder for word in (f"deconv{c}", "b", "r")),
        "conv21",
    ]
    convolutional = (nn.Conv2d, nn.ConvTranspose2d)
    assert [
        words[type(m)] + (str(m.out_channels) if isinstance(m, convolutional) else "")
        for m in found
    ] == expected
    kernels = [m.kernel_size[0] for m in found if isinstance(m, convolutional)]
    assert kernels == [3] * 13 + [7, 1, 7] + [3] * 13 + [1]
    paddings = [m.padding[0] for m in found if isinstance(m, convolutional)]
    assert paddings == [1] * 13 + [0, 0, 0] + [1] * 13 + [0]
    assert {m.stride for m in found if isinstance(m, convolutional)} == {(1, 1)}
    assert all(m.bias is not None for m in found if isinstance(m, convolutional))


def test_starts_as_released() -> None:
    torch.manual_seed(0)
    network = DeconvNet(3, width=4)
    decoding = [m for m in network.modules() if isinstance(m, nn.ConvTranspose2d)]
    for layer in (*decoding, network.score):
        assert not layer.bias.any()
    values = torch.cat([layer.weight.flatten() for layer in decoding])
    assert values.std().item() == pytest.approx(0.01, rel=0.02)
    assert network.score.weight.std().item() == pytest.approx(0.01, rel=0.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0.001).all()


@pytest.mark.parametrize(
    ("size", "cells"), [((224, 224), (1, 1)), ((512, 512), (10, 10)), ((375, 500), (5, 9))]
)
def test_scores_every_pixel_from_224_on(size, cells) -> None:
    with torch.device("meta"):
        network = DeconvNet(21)
        image = torch.zeros(2, 3, *size)
        features, _ = network.encoder(image)
        assert network.fc7(network.fc6(features)).shape == (2, 4096, *cells)
        assert network.valid_size(*size) == size
        assert network(image).shape == (2, 21, *size)


def test_is_what_its_prototxt_says_by_hand() -> None:
    torch.manual_seed(0)
    network = randomize(DeconvNet(3, width=1))
    image = torch.randn(1, 3, 225, 230)

    def block(x: Tensor, layers: nn.Sequential) -> Tensor:
        conv, bn, _ = layers
        weight = conv.weight
        if isinstance(conv, nn.ConvTranspose2d):
            # Of stride 1, the transpose is a convolution with the kernel turned around.
            padding = conv.kernel_size[0] - 1 - conv.padding[0]
            x = F.conv2d(x, weight.flip(2, 3).transpose(0, 1), conv.bias, padding=padding)
        else:
            x = F.conv2d(x, weight, conv.bias, padding=conv.padding)
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias).clamp(min=0)

    with torch.no_grad():
        x, befores = image, []
        for stage in network.encoder.stages:
            for layers in stage:
                x = block(x, layers)
            befores.append(x)
            x = F.max_pool2d(x, 2)
        for layers in (network.fc6, network.fc7, network.fc6_deconv):
            x = block(x, layers)
        assert x.shape[-2:] == (7, 7)
        for stage, before in zip(network.decoder.stages, befores[::-1], strict=True):
            x = unpool_by_hand(before, x)
            for layers in stage:
                x = block(x, layers)
        expected = F.conv2d(x, network.score.weight, network.score.bias)
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)


def test_each_pool_s_switches_reach_the_scores(narrow) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        features, switches = narrow.encoder(torch.randn(1, 3, 224, 224))
        vector = narrow.fc7(narrow.fc6(features))
        right = narrow.decoder(narrow.fc6_deconv(vector), switches)
        for level, (indices, size) in enumerate(switches):
            wrong = list(switches)
            wrong[level] = (indices.roll(1, dims=1), size)  # another channel's
            assert not torch.allclose(narrow.decoder(narrow.fc6_deconv(vector), wrong), right)
        # What passes through fc6 and fc7 matters beside the switches.
        assert not torch.allclose(narrow.decoder(narrow.fc6_deconv(0 * vector), switches), right)


def test_a_pixel_s_score_is_centred_on_that_pixel() -> None:
    network = averaging_switches(DeconvNet(2, width=1))
    # 14 cells: fc6 and its transpose see 13 of them around each, so none are cut off.
    image = torch.zeros(1, 3, 640, 640, requires_grad=True)
    rows, columns = torch.arange(290, 322), torch.arange(306, 338)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert row == pytest.approx(305.5, abs=0.1)
    assert column == pytest.approx(321.5, abs=0.1)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    # In evaluation mode: in training BN takes away what a convolution's bias adds.
    network = randomize(DeconvNet(3, width=2))
    scores = network(torch.randn(2, 3, 224, 224))
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_evaluation_is_deterministic_and_of_one_photo_alone(narrow) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 224, 250)
    with torch.no_grad():
        scores = narrow(images)
        assert torch.equal(narrow(images), scores)
        torch.testing.assert_close(narrow(images[1:]), scores[1:], rtol=1e-4, atol=1e-4)


def test_one_photo_trains_from_256_pixels_on_and_is_refused_below() -> None:
    network = DeconvNet(3, width=1).train()
    with pytest.raises(ValueError, match=r"one cell of a photo below 256x256.* at least 2 photos"):
        network(torch.randn(1, 3, 255, 255))
    assert network(torch.randn(1, 3, 224, 256)).isfinite().all()
    assert network(torch.randn(2, 3, 224, 224)).isfinite().all()


def test_refuses_smaller_photos_and_says_what_it_takes() -> None:
    with torch.device("meta"):
        network = DeconvNet(3)
    message = r"DeconvNet takes heights and widths from 224 on; got 223x300\. Pad it to 224x300"
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(1, 3, 223, 300))


def test_all_that_vgg16_does_not_fill_is_the_head() -> None:
    network = DeconvNet(3, width=1)
    head = {id(p) for p in network.head_parameters()}
    heads = {n.split(".")[0] for n, p in network.named_parameters() if id(p) in head}
    rest = {n.split(".")[0] for n, p in network.named_parameters() if id(p) not in head}
    assert heads == {"fc6_deconv", "decoder", "score"}
    assert rest == {"encoder", "fc6", "fc7"}


def test_takes_torchvision_s_vgg16_with_its_classifier(tmp_path: Path, monkeypatch) -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        vgg = torchvision.models.vgg16()
    vgg.features.to_empty(device="cpu")
    for module in vgg.features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, 0, 0.1)
    fc6, fc7 = vgg.classifier[0], vgg.classifier[3]
    # One row for all neurons: 100 million numbers would take most of the test's time.
    fc6.weight = nn.Parameter((torch.randn(1, 25088) / 25088**0.5).expand(4096, -1))
    fc7.weight = nn.Parameter(torch.randn(4096, 4096) / 4096**0.5)
    fc6.bias, fc7.bias = nn.Parameter(torch.randn(4096)), nn.Parameter(torch.randn(4096))
    weights = {key: value for key, value in vgg.state_dict().items() if not value.is_meta}
    torch.save(weights, tmp_path / "vgg16.pth")
    calls: list[tuple] = []
    monkeypatch.setattr(deconvnet, "load_vgg16", lambda *call: calls.append(call))
    with torch.device("meta"):
        network = DeconvNet(2, pretrained=str(tmp_path / "vgg16.pth"))
    # Half of the network, what VGG-16 fills, gets memory; then the constructor's call is made.
    for part in (network.encoder, network.fc6, network.fc7):
        part.to_empty(device="cpu")
        for module in part.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                module.eps = 0.0
    (call,) = calls
    load_vgg16(*call)
    network.eval()
    vgg.eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        found = network.fc7(network.fc6(network.encoder(image)[0]))
        # ReLU of the second fully connected layer: what torchvision's classifier[:6] gives.
        expected = vgg.classifier[:5](vgg.features(image).flatten(1))
    assert expected.std() > 0.1
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-4, atol=1e-4)
