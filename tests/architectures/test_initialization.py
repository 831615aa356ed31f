"""How wide weights start, where that is no test of another file; biases start at 0."""

import math

import pytest
import torch
from torch import nn

from segment.architectures import (
    FRRN,
    DeepContextualNetwork,
    DeepLabV3,
    PatchCNN,
    SegNet,
    SegNetBasic,
)


def convolutions(part: nn.Module) -> dict[str, nn.Conv2d]:
    """Those of at least 1000 weights, enough to tell their width by."""
    found = {
        name: layer
        for name, layer in part.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() >= 1000
    }
    assert len(found) > 3
    return found


def inputs(layer: nn.Conv2d) -> int:
    """Numbers that one output is computed from."""
    return layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]


def assert_no_biases(part: nn.Module) -> None:
    kinds = nn.Conv2d | nn.ConvTranspose2d
    biases = [m.bias for m in part.modules() if isinstance(m, kinds) and m.bias is not None]
    assert not any(bias.any() for bias in biases)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SegNet(21, width=8),
        lambda: SegNetBasic(21, width=16),
        lambda: PatchCNN(21, width=24),
        lambda: DeepLabV3(21, "resnet26", multi_grid=None, width=16).aspp,
    ],
    ids=["SegNet", "SegNetBasic", "PatchCNN", "ASPP"],
)
def test_weights_are_normal_as_he_et_al_say(make) -> None:
    torch.manual_seed(0)
    part = make()
    for name, layer in convolutions(part).items():
        std = math.sqrt(2 / inputs(layer))
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1), name
        assert layer.weight.abs().max() > 2.5 * std, name  # a uniform draw ends at 1.7
    assert_no_biases(part)


@pytest.mark.parametrize("variant", ["A", "B"])
def test_frrn_s_weights_are_uniform_as_he_et_al_say(variant) -> None:
    torch.manual_seed(0)
    network = FRRN(21, variant, width=12)
    for name, layer in convolutions(network).items():
        bound = math.sqrt(6 / inputs(layer))
        assert 0.98 * bound < layer.weight.abs().max() <= bound, name
    assert_no_biases(network)


def test_the_deep_contextual_network_s_scores_start_small() -> None:
    torch.manual_seed(0)
    network = DeepContextualNetwork(21, width=4)
    for branch in network.branches:
        assert branch.score.weight.std().item() == pytest.approx(0.01, rel=0.15)
    assert_no_biases(network)
