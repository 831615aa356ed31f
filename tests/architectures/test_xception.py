"""Aligned Xception-65 against the table of the release, and against timm's port of it."""

import pytest
import timm
import torch
from alignment import averaging, centroid
from torch import nn

from segment.architectures.xception import Xception65


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """timm's, with running statistics and affine maps that do something."""
    torch.manual_seed(0)
    network = timm.create_model("xception65", num_classes=0, global_pool="")
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.bias, std=0.3)
    return network.eval()


def test_has_as_many_parameters_as_the_release_adds_up_to() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Xception65().parameters()) == 37_867_312


@pytest.mark.parametrize(
    ("output_stride", "strides", "dilations"),
    [
        (32, (2, 2, 2, 1, 2, 1), (1, 1, 1, 1, 1, 1)),
        (16, (2, 2, 2, 1, 1, 1), (1, 1, 1, 1, 1, 2)),
        (8, (2, 2, 1, 1, 1, 1), (1, 1, 1, 2, 2, 4)),
    ],
)
def test_is_the_released_table(output_stride, strides, dilations) -> None:
    with torch.device("meta"):
        blocks = Xception65(output_stride).features["blocks"]
    middle = 3 + 16
    assert len(blocks) == middle + 2
    widths = [[conv.conv_pw.out_channels for conv in block.stack.values()] for block in blocks]
    assert widths[:3] == [[128] * 3, [256] * 3, [728] * 3]
    assert widths[3:middle] == [[728] * 3] * 16
    assert widths[middle:] == [[728, 1024, 1024], [1536, 1536, 2048]]
    kinds = [blocks[0], blocks[1], blocks[2], blocks[9], blocks[middle], blocks[middle + 1]]
    for block, stride, dilation in zip(kinds, strides, dilations, strict=True):
        convs = [conv.conv_dw for conv in block.stack.values()]
        assert [conv.stride[0] for conv in convs] == [1, 1, stride]  # in the third
        assert [conv.dilation[0] for conv in convs] == [dilation] * 3
        if block.shortcut is not None:
            assert block.shortcut.conv.stride[0] == stride
    assert [block.shortcut is not None for block in kinds] == [True] * 3 + [False, True, False]
    assert {tuple(vars(b.stack["conv2"].conv_dw)["dilation"]) for b in blocks[3:middle]} == {
        (dilations[3],) * 2
    }
    norms = [m for m in blocks.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}


@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_is_timm_s_network(theirs, output_stride) -> None:
    ours = Xception65(output_stride).eval()
    own = ours.features.state_dict()
    given = [v for k, v in theirs.state_dict().items() if not k.startswith("head.")]
    assert [v.shape for v in given] == [v.shape for v in own.values()]
    ours.features.load_state_dict(dict(zip(own, given, strict=True)))
    reference = timm.create_model(
        "xception65", num_classes=0, global_pool="", output_stride=output_stride
    ).eval()
    reference.load_state_dict(theirs.state_dict())
    seen = []
    reference.blocks[1].stack.conv2.register_forward_hook(
        lambda module, inputs, output: seen.append(output.clone())
    )
    image = torch.randn(1, 3, 97, 65)
    with torch.no_grad():
        expected = reference.forward_features(image)
        tap, found = ours.pyramid(image)
    cells = [(side - 1) // output_stride + 1 for side in (97, 65)]
    assert list(found.shape[-2:]) == cells
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert tap.shape == (1, 256, 25, 17)
    assert (tap - seen[0]).abs().max() < 1e-5 * tap.abs().max()
    assert tap.min() < 0  # before the ReLU


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_samples_the_function_that_striding_does(output_stride) -> None:
    torch.manual_seed(0)
    coarse, fine = Xception65(32).eval(), Xception65(output_stride).eval()
    fine.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 3, 97, 65)
    step = 32 // output_stride
    with torch.no_grad():
        expected = coarse(image)
        found = fine(image)[..., ::step, ::step]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_cells_lie_on_multiples_of_the_stride() -> None:
    network = averaging(Xception65(16))
    image = torch.zeros(1, 3, 257, 257, requires_grad=True)
    for level, stride in enumerate((4, 16)):
        cell = 128 // stride
        place = centroid(network.pyramid(image)[level][0, 0, cell, cell - 1], image)
        assert place == pytest.approx((128, 128 - stride), abs=0.1)


def test_takes_timm_s_weights_from_a_file(theirs, tmp_path) -> None:
    whole = {**theirs.state_dict(), "head.fc.weight": torch.zeros(1000, 2048)}
    torch.save({**whole, "head.fc.bias": torch.zeros(1000)}, tmp_path / "xception65.pth")
    ours = Xception65(16, pretrained=str(tmp_path / "xception65.pth"))
    for name, value in ours.features.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


def test_refuses_a_stride_nothing_has() -> None:
    with pytest.raises(ValueError, match="output_stride is 4; it can be 8, 16 or 32"):
        Xception65(4)
