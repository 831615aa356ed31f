import pytest
import torch
from alignment import averaging, centroid
from unpooling import averaging_switches

from segment.architectures import EDeconvNet


def test_is_both_networks_and_nothing_more() -> None:
    with torch.device("meta"):
        network = EDeconvNet(21)
        assert network(torch.zeros(1, 3, 375, 500)).shape == (1, 21, 375, 500)
    # DeconvNet, and FCN-8s, whose upsampling is fixed.
    assert sum(p.numel() for p in network.parameters()) == 251_805_653 + 134_362_751


def test_mean_is_of_probabilities_and_product_of_scores_above_zero() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(2, 3, 4, 5) * 3, torch.randn(2, 3, 4, 5) * 3
    with torch.device("meta"):
        mean, product = EDeconvNet(3, width=1), EDeconvNet(3, "product", width=1)
    expected = (one.softmax(1) + other.softmax(1)) / 2
    torch.testing.assert_close(mean.combine(one, other).softmax(1), expected)
    by_hand = [max(a, 0) * max(b, 0) for a, b in zip(*map(flat, (one, other)), strict=True)]
    assert flat(product.combine(one, other)) == pytest.approx(by_hand)


def flat(x: torch.Tensor) -> list[float]:
    return x.flatten().tolist()


def randomized(combination: str, width: int = 1) -> EDeconvNet:
    torch.manual_seed(0)
    network = EDeconvNet(3, combination, width=width).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("weight") and parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)
        elif name.endswith("bias"):
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    return network


@pytest.mark.parametrize("combination", ["mean", "product"])
def test_both_networks_are_heard(combination) -> None:
    network = randomized(combination)
    image = torch.randn(1, 3, 224, 230)
    with torch.no_grad():
        whole = network(image)
        for part in (network.deconvnet.score, network.fcn8s.score_fr):
            kept = part.weight.clone()
            part.weight.zero_()
            assert (network(image) - whole).abs().max() > 1e-4
            part.weight.copy_(kept)


@pytest.mark.parametrize("combination", ["mean", "product"])
def test_a_pixel_s_score_is_centred_on_that_pixel(combination) -> None:
    network = EDeconvNet(2, combination, width=1)
    averaging_switches(network.deconvnet)
    averaging(network.fcn8s)
    # A score that all classes share changes no probability.
    for name in network.score_names:
        network.get_submodule(name).weight.data[1] = 0
    size = 666  # 32k + 26: FCN's pools have nothing to round
    image = torch.ones(1, 3, size, size, requires_grad=True)
    rows, columns = torch.arange(290, 322), torch.arange(306, 338)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert (row, column) == pytest.approx((305.5, 321.5), abs=0.1)


@pytest.mark.parametrize("combination", ["mean", "product"])
def test_every_parameter_learns_and_evaluation_is_deterministic(combination) -> None:
    network = randomized(combination, width=2)
    images = torch.randn(2, 3, 224, 230)
    scores = network(images)
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    with torch.no_grad():
        assert torch.equal(network(images), scores)
        largest = scores.abs().max().item()
        torch.testing.assert_close(network(images[1:]), scores[1:], rtol=0, atol=1e-5 * largest)


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="combination is 'sum'; it can be 'mean' or 'product'"):
        EDeconvNet(3, "sum")  # type: ignore[arg-type]
    with torch.device("meta"):
        network = EDeconvNet(3, width=1)
    with pytest.raises(ValueError, match="heights and widths from 224 on; got 100x300"):
        network(torch.zeros(1, 3, 100, 300))
