import copy

import pytest
import torch
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import FRRN


@pytest.mark.parametrize(
    ("variant", "num_classes", "count"),
    [("A", 19, 17_746_803), ("A", 21, 17_746_901), ("B", 19, 24_755_699), ("B", 21, 24_755_797)],
)
def test_has_as_many_parameters_as_released(variant, num_classes, count) -> None:
    with torch.device("meta"):
        network = FRRN(num_classes, variant)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(
    ("variant", "units"),
    [
        (
            "A",
            [
                *[*[(96, 256)] * 3, *[(192, 128)] * 4, *[(384, 64)] * 2, *[(384, 32)] * 2],
                *[*[(192, 64)] * 2, *[(192, 128)] * 2, *[(96, 256)] * 2],
            ],
        ),
        (
            "B",
            [
                *[*[(96, 256)] * 3, *[(192, 128)] * 4, *[(384, 64)] * 2, *[(384, 32)] * 2],
                *[*[(384, 16)] * 2, *[(192, 32)] * 2, *[(192, 64)] * 2, *[(192, 128)] * 2],
                *[(96, 256)] * 2,
            ],
        ),
    ],
)
def test_units_are_as_wide_and_as_coarse_as_released(variant, units) -> None:
    with torch.device("meta"):
        network = FRRN(21, variant)
        found = []
        for stage in network.stages:
            for unit in stage.units:
                unit.register_forward_hook(
                    lambda _, __, out: found.append((out[0].shape[1], out[0].shape[-1], out[1]))
                )
        assert network(torch.zeros(1, 3, 512, 512)).shape == (1, 21, 512, 512)
    assert [(channels, size) for channels, size, _ in found] == units
    assert {z.shape for _, _, z in found} == {(1, 32, 512, 512)}
    stem = network.stem[0][0]
    assert (stem.kernel_size, stem.out_channels, stem.bias) == ((5, 5), 48, None)


@pytest.mark.parametrize(
    ("variant", "valid", "smallest"), [("A", (384, 512), (32, 32)), ("B", (384, 512), (64, 64))]
)
def test_takes_multiples_of_its_coarsest_cell(variant, valid, smallest) -> None:
    with torch.device("meta"):
        network = FRRN(4, variant, width=3)
        assert network.valid_size(375, 500) == valid
        assert network.valid_size(1, 1) == smallest
        assert network(torch.zeros(2, 3, *valid)).shape == (2, 4, *valid)
        with pytest.raises(ValueError, match=r"got 375x500\. Pad it to 384x512"):
            network(torch.zeros(1, 3, 375, 500))


def by_hand(w: dict[str, torch.Tensor], image: torch.Tensor, stages) -> torch.Tensor:
    """The released network, in evaluation mode, from its table."""

    def conv_bn(x, name):
        weight = w[f"{name}.0.weight"]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        norm = [w[f"{name}.1.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *norm)

    def ru(x, name, projected=False):
        found = conv_bn(conv_bn(x, f"{name}.conv1").relu(), f"{name}.conv2")
        return found + (F.conv2d(x, w[f"{name}.shortcut.weight"]) if projected else x)

    y = conv_bn(image, "stem.0").relu()
    for i in (1, 2, 3):
        y = ru(y, f"stem.{i}")
    z = conv_bn(y, "split")
    for s, (p, units) in enumerate(stages):
        if p > image.shape[-1] // y.shape[-1]:
            y = F.max_pool2d(y, 2)
        else:
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        for u in range(units):
            name = f"stages.{s}.units.{u}"
            y = torch.cat([y, F.max_pool2d(z, p, p)], dim=1)
            y = conv_bn(conv_bn(y, f"{name}.conv1").relu(), f"{name}.conv2").relu()
            found = F.conv2d(y, w[f"{name}.residual.weight"], w[f"{name}.residual.bias"])
            z = z + found.repeat_interleave(p, 2).repeat_interleave(p, 3)
    y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
    x = ru(torch.cat([y, z], dim=1), "head.units.0", projected=True)
    x = ru(ru(x, "head.units.1"), "head.units.2")
    return F.conv2d(x, w["head.score.weight"], w["head.score.bias"])


A = [(2, 3), (4, 4), (8, 2), (16, 2), (8, 2), (4, 2), (2, 2)]
B = [(2, 3), (4, 4), (8, 2), (16, 2), (32, 2), (16, 2), (8, 2), (4, 2), (2, 2)]


def shaken(network: FRRN) -> FRRN:
    """With norms that are not the identity, or a missing one would not be seen."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.7, 1.2)
            nn.init.normal_(layer.bias, std=0.2)
        elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.normal_(layer.bias, std=0.2)
    return network


@pytest.mark.parametrize(("variant", "stages"), [("A", A), ("B", B)])
def test_is_the_released_table_made_by_hand(variant, stages) -> None:
    torch.manual_seed(0)
    network = shaken(FRRN(3, variant, width=6)).double().eval()
    image = torch.randn(2, 3, 64, 96).double()
    with torch.no_grad():
        torch.testing.assert_close(network(image), by_hand(network.state_dict(), image, stages))


def test_every_stage_speaks_to_the_scores_through_both_streams() -> None:
    torch.manual_seed(0)
    network = shaken(FRRN(3, width=3)).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole = network(image)
        for stage in network.stages:
            unit = stage.units[-1]
            for weight in (unit.residual.weight, unit.conv2[0].weight):
                kept = weight.clone()
                weight.zero_()
                assert not torch.allclose(network(image), whole, atol=1e-3)
                weight.copy_(kept)
    torch.testing.assert_close(network(image), whole)


@pytest.mark.parametrize("variant", ["A", "B"])
def test_a_pixel_s_score_is_centred_on_that_pixel(variant) -> None:
    network = averaging(FRRN(2, variant, width=3))
    image = torch.zeros(1, 3, 320, 320, requires_grad=True)
    rows, columns = torch.arange(128, 160), torch.arange(96, 128)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert row == pytest.approx(143.5, abs=0.1)
    assert column == pytest.approx(111.5, abs=0.1)


def test_checkpointing_keeps_less_and_changes_nothing() -> None:
    torch.manual_seed(0)
    plain = FRRN(3, width=6)
    thrifty = copy.deepcopy(plain)
    thrifty.checkpointing = True
    image = torch.randn(2, 3, 64, 64)
    kept = []
    for network in (plain, thrifty):
        numbers = []

        def count(tensor: torch.Tensor, numbers: list = numbers) -> torch.Tensor:
            numbers.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = network(image).square().sum()
        loss.backward()
        kept.append(sum(numbers))
    assert kept[1] < kept[0] / 3
    for (name, a), b in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        assert a.grad.any(), name
        torch.testing.assert_close(a.grad, b.grad)
    for (name, a), b in zip(plain.named_buffers(), thrifty.buffers(), strict=True):
        assert torch.equal(a, b), name  # the batch is counted once
    plain.eval()
    thrifty.eval()
    assert torch.equal(plain(image), thrifty(image))
    assert torch.equal(plain(image), plain(image))


@pytest.mark.parametrize("variant", ["A", "B"])
def test_every_parameter_learns_from_a_batch_of_one(variant) -> None:
    torch.manual_seed(0)
    network = FRRN(3, variant, width=3).train()
    side = network.least
    scores = network(torch.randn(1, 3, side, side))
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "C"}, "variant is 'C'; FRRN can be 'A' or 'B'"),
        ({"width": 16}, "width is 16; it can be a multiple of 3, 48 in the paper"),
    ],
)
def test_refuses_what_it_cannot_build(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        FRRN(3, **arguments)


def test_only_the_scores_start_anew() -> None:
    with torch.device("meta"):
        network = FRRN(5, width=3)
    assert [p.shape[0] for p in network.head_parameters()] == [5, 5]
