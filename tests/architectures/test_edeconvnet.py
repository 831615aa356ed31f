import pytest
import torch

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


@pytest.mark.parametrize("combination", ["mean", "product"])
def test_both_networks_are_heard(combination) -> None:
    torch.manual_seed(0)
    network = EDeconvNet(3, combination, width=1).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("weight") and parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)
        elif name.endswith("bias"):
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    image = torch.randn(1, 3, 224, 230)
    with torch.no_grad():
        whole = network(image)
        for part in (network.deconvnet.score, network.fcn8s.score_fr):
            kept = part.weight.clone()
            part.weight.zero_()
            assert (network(image) - whole).abs().max() > 1e-4
            part.weight.copy_(kept)


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="combination is 'sum'; it can be 'mean' or 'product'"):
        EDeconvNet(3, "sum")  # type: ignore[arg-type]
    with torch.device("meta"):
        network = EDeconvNet(3, width=1)
    with pytest.raises(ValueError, match="heights and widths from 224 on; got 100x300"):
        network(torch.zeros(1, 3, 100, 300))
