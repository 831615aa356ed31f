import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segment.architectures import PlainFCN
from segment.architectures.plain_fcn import ContextModule


@pytest.mark.parametrize(("depth", "count"), [(8, 224_725), (10, 298_581)])
def test_the_plain_stack_has_as_many_parameters_as_it_adds_up_to(depth, count) -> None:
    with torch.device("meta"):
        network = PlainFCN(21, depth=depth)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_context_module_has_as_many_parameters_as_the_paper_says() -> None:
    with torch.device("meta"):
        network = PlainFCN(21, "context")
    assert sum(p.numel() for p in network.score.parameters()) == 28_392  # about 64 * 21 ** 2
    stem = 3 * 21 + 21
    assert sum(p.numel() for p in network.parameters()) == 28_392 + stem


def test_layers_are_those_of_the_tables() -> None:
    def found(layers):
        return [
            (m.out_channels, m.kernel_size[0], m.dilation[0], m.padding[0])
            if isinstance(m, nn.Conv2d)
            else type(m)
            for m in layers
        ]

    plain, context = PlainFCN(5), PlainFCN(5, "context")
    assert found([*plain.layers, plain.score]) == [*[(64, 3, 1, 1), nn.ReLU] * 7, (5, 1, 1, 0)]
    expected = [(5, 1, 1, 0), nn.ReLU]
    for dilation in (1, 1, 2, 4, 8, 16, 1):
        expected += [(5, 3, dilation, dilation), nn.ReLU]
    assert found([*context.layers, *context.score]) == [*expected, (5, 1, 1, 0)]


@pytest.mark.parametrize(
    ("arguments", "side"),
    [({"depth": 8}, 15), ({"depth": 3}, 5), ({"variant": "context"}, 67)],
)
def test_a_pixel_sees_exactly_that_square(arguments, side) -> None:
    torch.manual_seed(0)
    network = PlainFCN(2, **{"width": 4, **arguments} if "depth" in arguments else arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(0.1, 1)  # so that no ReLU is in the way
    image = torch.rand(1, 3, 75, 81, requires_grad=True, dtype=torch.float64)
    network.double()(image)[0, 0, 37, 40].backward()
    seen = image.grad.abs().sum(dim=(0, 1)) > 0
    expected = torch.zeros_like(seen)
    half = side // 2
    expected[37 - half : 38 + half, 40 - half : 41 + half] = True
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("variant", ["plain", "context"])
def test_any_size_comes_out_as_it_is(variant) -> None:
    with torch.device("meta"):
        network = PlainFCN(21, variant)
        for size in [(512, 512), (375, 500), (1, 1), (7, 2)]:
            assert network.valid_size(*size) == size
            assert network(torch.zeros(1, 3, *size)).shape == (1, 21, *size)


def randomized(network: PlainFCN) -> PlainFCN:
    """With taps off the centre, too."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


@pytest.mark.parametrize("variant", ["plain", "context"])
def test_a_shifted_photo_gives_shifted_scores(variant) -> None:
    torch.manual_seed(0)
    network = randomized(PlainFCN(3, variant)).eval()
    image = torch.randn(1, 3, 72, 75)
    margin = {"plain": 8, "context": 34}[variant]
    with torch.no_grad():
        here, there = network(image[..., :-1, :-1]), network(image[..., 1:, 1:])
    inside = slice(margin, -margin)
    torch.testing.assert_close(
        there[..., inside, inside][..., :-1, :-1], here[..., inside, inside][..., 1:, 1:]
    )
    assert here[..., inside, inside].std() > 0


def test_the_context_module_starts_as_the_identity_on_what_is_not_negative() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 5, 20, 31)
    module = ContextModule(5)
    assert torch.equal(module(x), x)
    assert not torch.equal(module(-x), -x)
    network = PlainFCN(5, "context")
    image = torch.randn(1, 3, 20, 31)
    assert torch.equal(network(image), network.layers(image))
    assert network(image).std() > 0


def test_dilations_act_in_their_order() -> None:
    torch.manual_seed(0)
    network = randomized(PlainFCN(4, "context")).eval()
    convs = [m for m in network.score if isinstance(m, nn.Conv2d)]

    def written_out(x, dilations):
        for conv, d in zip(convs[:-1], dilations, strict=True):
            x = F.conv2d(x, conv.weight, conv.bias, padding=d, dilation=d).relu()
        return F.conv2d(x, convs[-1].weight, convs[-1].bias)

    image = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        x = network.layers(image)
        torch.testing.assert_close(network(image), written_out(x, (1, 1, 2, 4, 8, 16, 1)))
        assert (network(image) - written_out(x, (1, 1, 2, 4, 16, 8, 1))).abs().max() > 1e-3


def test_the_plain_stack_is_drawn_as_he_proposes() -> None:
    torch.manual_seed(0)
    network = PlainFCN(21)
    for layer in [*network.layers, network.score]:
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
            assert not layer.bias.any()


@pytest.mark.parametrize("variant", ["plain", "context"])
def test_every_parameter_learns_from_a_batch_of_one(variant) -> None:
    torch.manual_seed(0)
    network = randomized(PlainFCN(3, variant)).train()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.abs_()
    scores = network(torch.randn(1, 3, 40, 41))
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert torch.equal(network(torch.ones(1, 3, 9, 9)), network(torch.ones(1, 3, 9, 9)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "C"}, "variant is 'C'; it can be 'plain' or 'context'"),
        ({"variant": "context", "width": 8}, "depth and width are for variant 'plain'"),
        ({"depth": 1}, "depth is 1; give at least 2"),
    ],
)
def test_refuses_what_it_cannot_build(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        PlainFCN(2, **arguments)
