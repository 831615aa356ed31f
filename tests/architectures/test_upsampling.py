"""The network, and what papers.md's section n says of each way up."""

from typing import get_args

import pytest
import torch
from alignment import centroid
from torch import Tensor, nn
from torch.nn import functional as F
from unpooling import AveragePool, averaging_switches, unpool_by_hand

from segment.architectures import UpsamplingNet
from segment.architectures.upsampling import (
    BedOfNails,
    Block,
    Interpolate,
    MaxUnpooling,
    TransposedConvolution,
    Upsampling,
)

FORMS = get_args(Upsampling)
NO_INDICES = torch.zeros(0)


def adjoint(up: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What the transpose of a linear `up` makes of `y`; `x` only gives the shape."""
    x = torch.zeros_like(x, requires_grad=True)
    (result,) = torch.autograd.grad((up(x, NO_INDICES) * y).sum(), x)
    return result


# ---- each operation


def test_nearest_repeats_and_its_adjoint_sums() -> None:
    torch.manual_seed(0)
    x, y, up = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 10, 8), Interpolate("nearest")
    assert torch.equal(up(x, NO_INDICES), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(adjoint(up, x, y), 4 * F.avg_pool2d(y, 2))


def test_bed_of_nails_is_a_one_hot_transposed_convolution_and_its_adjoint_strides() -> None:
    torch.manual_seed(0)
    x, y, up = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 10, 8), BedOfNails()
    out = up(x, NO_INDICES)
    kernel = torch.zeros(3, 1, 2, 2)
    kernel[..., 0, 0] = 1
    assert torch.equal(out, F.conv_transpose2d(x, kernel, stride=2, groups=3))
    assert torch.equal(out[..., ::2, ::2], x)
    torch.testing.assert_close(out.sum((2, 3)), x.sum((2, 3)))
    assert torch.equal(adjoint(up, x, y), y[..., ::2, ::2])


def test_max_unpooling_needs_that_pool_s_indices() -> None:
    torch.manual_seed(0)
    x, up = torch.randn(2, 3, 6, 8), MaxUnpooling()
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    masked = up(pooled, indices)
    assert torch.equal(masked, x * (masked != 0))
    assert int((masked != 0).sum()) == pooled.numel()
    other = torch.randn_like(pooled)
    assert torch.equal(up(other, indices), unpool_by_hand(x, other))
    assert not torch.equal(up(pooled, indices.roll(1, dims=1)), masked)


def test_transposed_convolution_is_the_transpose_of_the_convolution_with_its_weight() -> None:
    torch.manual_seed(0)
    up = TransposedConvolution(3)
    nn.init.normal_(up.convolution.weight)
    weight = up.convolution.weight
    u, v = torch.randn(1, 3, 10, 8), torch.randn(1, 3, 5, 4)
    down = F.conv2d(u, weight, stride=2, padding=1)
    torch.testing.assert_close((down * v).sum(), (u * up(v, NO_INDICES)).sum(), rtol=1e-4, atol=0)
    # (n - 1) s - 2 p + d (k - 1) + op + 1
    assert up(v, NO_INDICES).shape[-2:] == (4 * 2 - 2 + 3 + 1, 3 * 2 - 2 + 3 + 1)


def test_transposed_convolution_starts_bilinear_without_a_checkerboard() -> None:
    torch.manual_seed(0)
    up, x = TransposedConvolution(3), torch.randn(1, 3, 6, 7)
    bilinear = Interpolate("bilinear")(x, NO_INDICES)
    torch.testing.assert_close(up(x, NO_INDICES)[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])
    ones = up(torch.ones(1, 3, 6, 7), NO_INDICES)[..., 1:-1, 1:-1]
    torch.testing.assert_close(ones, torch.ones_like(ones))
    # A side that its stride does not divide: neighbours get unlike numbers of taps.
    uneven = F.conv_transpose2d(torch.ones(1, 1, 6, 6), torch.ones(1, 1, 3, 3), stride=2)
    assert set(uneven[0, 0, 2:-2, 2:-2].unique().tolist()) == {1.0, 2.0, 4.0}
    even = F.conv_transpose2d(torch.ones(1, 1, 6, 6), torch.ones(1, 1, 4, 4), stride=2)
    assert set(even[0, 0, 2:-2, 2:-2].unique().tolist()) == {4.0}


def test_bilinear_reproduces_ramps_between_pixel_centres() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    out = Interpolate("bilinear")(ramp, NO_INDICES)
    # Half-pixel centres: output pixel i lies at (i + 0.5) / 2 - 0.5.
    place = (torch.arange(16) + 0.5) / 2 - 0.5
    torch.testing.assert_close(out, place.clamp(0, 7).expand(1, 1, 16, 16))


def test_bicubic_has_torch_s_taps_sums_to_one_and_overshoots() -> None:
    up = Interpolate("bicubic")
    impulses = torch.eye(12).view(12, 1, 1, 12).expand(12, 1, 12, 12)
    # What output pixel 11, at 5.25, takes of pixels 4 to 7.
    taps = up(impulses, NO_INDICES)[:, 0, 12, 11]
    expected = torch.zeros(12)
    expected[4:8] = torch.tensor([-0.10547, 0.87891, 0.26172, -0.03516])
    torch.testing.assert_close(taps, expected, rtol=0, atol=1e-5)
    ones = up(torch.ones(1, 1, 5, 5), NO_INDICES)
    torch.testing.assert_close(ones, torch.ones_like(ones))
    step = (torch.arange(12) >= 6).float().expand(1, 1, 12, 12)
    assert up(step, NO_INDICES).max() > 1.05
    assert up(step, NO_INDICES).min() < -0.05
    bilinear = Interpolate("bilinear")(step, NO_INDICES)
    assert (bilinear.min(), bilinear.max()) == (0, 1)


@pytest.mark.parametrize("rate", [2, 4])
def test_dilation_is_a_stuffed_kernel_and_plain_convolutions_of_every_phase(rate) -> None:
    torch.manual_seed(0)
    conv = Block(2, 3, rate)[0]
    x = torch.randn(1, 2, 16, 24)
    out = conv(x)
    assert out.shape[-2:] == x.shape[-2:]
    stuffed = torch.zeros(3, 2, 2 * rate + 1, 2 * rate + 1)  # k + (k - 1)(r - 1)
    stuffed[..., ::rate, ::rate] = conv.weight
    by_stuffing = F.conv2d(x, stuffed, conv.bias, padding=rate)
    torch.testing.assert_close(out, by_stuffing, rtol=1e-4, atol=1e-5)
    for row in range(rate):
        for column in range(rate):
            phase = F.conv2d(x[..., row::rate, column::rate], conv.weight, conv.bias, padding=1)
            found = out[..., row::rate, column::rate]
            torch.testing.assert_close(found, phase, rtol=1e-4, atol=1e-5)


def test_two_layers_of_dilation_2_never_mix_parities() -> None:
    x = torch.zeros(1, 1, 21, 21, requires_grad=True)
    Block(1, 1, 2)[0](Block(1, 1, 2)[0](x))[0, 0, 10, 10].backward()
    seen = x.grad[0, 0] != 0
    assert int(seen.sum()) == 25
    assert int(seen[::2, ::2].sum()) == 25


# ---- the network


@pytest.mark.parametrize("form", FORMS)
def test_forms_have_the_same_convolutions(form) -> None:
    with torch.device("meta"):
        network = UpsamplingNet(11, form, width=32)
    found = [
        (m.in_channels, m.out_channels, m.kernel_size[0])
        for m in network.modules()
        if isinstance(m, nn.Conv2d)
    ]
    widths = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 128)]
    widths += [(128, 64), (64, 32), (32, 32)]
    assert found == [*((a, b, 3) for a, b in widths), (32, 11, 1)]
    # Weight, bias, and BN's two; the scores have none.
    count = sum(9 * a * b + 3 * b for a, b in widths) + 32 * 11 + 11
    if form == "transposed_convolution":
        count += sum(16 * c * c + c for c in (128, 64, 32))
    assert sum(p.numel() for p in network.parameters()) == count


def test_dilation_looks_as_far_per_layer_as_cells_would() -> None:
    with torch.device("meta"):
        network = UpsamplingNet(2, "dilation")
        other = UpsamplingNet(2, "nearest")
    rates = [m.dilation[0] for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert rates == [1, 1, 2, 2, 4, 4, 8, 4, 2, 1, 1]
    assert {m.dilation[0] for m in other.modules() if isinstance(m, nn.Conv2d)} == {1}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(512, 512), (375, 500)])
def test_scores_every_pixel(form, size) -> None:
    with torch.device("meta"):
        network = UpsamplingNet(5, form, width=4)
        valid = network.valid_size(*size)
        assert valid == (size if form == "dilation" or size == (512, 512) else (376, 504))
        assert network(torch.zeros(2, 3, *valid)).shape == (2, 5, *valid)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "bed_of_nails"])
def test_a_pixel_s_score_is_centred_on_that_pixel(form) -> None:
    network = averaged(UpsamplingNet(2, form, width=2))
    image = torch.zeros(1, 3, 288, 288, requires_grad=True)
    rows, columns = torch.arange(130, 162), torch.arange(100, 132)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert row == pytest.approx(145.5, abs=0.1)
    assert column == pytest.approx(115.5, abs=0.1)


def test_a_nail_lies_three_and_a_half_pixels_before_its_cell() -> None:
    network = averaged(UpsamplingNet(2, "bed_of_nails", width=2))
    image = torch.zeros(1, 3, 288, 288, requires_grad=True)
    row, column = centroid(network(image)[0, 0, 136, 104], image)
    assert (row, column) == pytest.approx((139.5, 107.5), abs=0.1)


def averaged(network: UpsamplingNet) -> nn.Module:
    kernels = [m.convolution.weight.clone() for m in transposed(network)]
    network = averaging_switches(network)
    for module, kernel in zip(transposed(network), kernels, strict=True):
        module.convolution.weight.data.copy_(kernel)  # bilinear: an average already
    assert isinstance(network.pool, AveragePool)
    if network.upsampling == "max_unpooling":
        # Switches of averages are nowhere; values are repeated instead.
        network.up = nn.ModuleList(Interpolate("nearest") for _ in network.up)
    return network


def transposed(network: nn.Module) -> list[TransposedConvolution]:
    return [m for m in network.modules() if isinstance(m, TransposedConvolution)]


def test_forms_differ_in_what_they_make_of_the_same_weights() -> None:
    torch.manual_seed(0)
    first = UpsamplingNet(3, width=4).eval()
    image = torch.randn(1, 3, 32, 40)
    seen = []
    with torch.no_grad():
        for form in FORMS:
            network = UpsamplingNet(3, form, width=4).eval()
            network.load_state_dict(first.state_dict(), strict=False)
            seen.append(network(image))
    for place, one in enumerate(seen):
        for other in seen[place + 1 :]:
            # At the start transposed convolution and bilinear part at the photo's border alone.
            assert (one - other).abs().max() > 1e-3


def test_max_unpooling_takes_the_switches_of_its_own_pool() -> None:
    torch.manual_seed(0)
    network = UpsamplingNet(3, "max_unpooling", width=2).eval()
    image = torch.randn(1, 3, 32, 40)
    with torch.no_grad():
        befores, x = [], image
        for stage in network.down:
            befores.append(stage(x))
            x = F.max_pool2d(befores[-1], 2)
        x = network.middle(x)
        for mix, before in zip(network.mix, befores[::-1], strict=True):
            x = mix(unpool_by_hand(before, x))
        torch.testing.assert_close(network(image), network.score(x))


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_learns_and_evaluation_is_deterministic(form) -> None:
    torch.manual_seed(0)
    network = UpsamplingNet(3, form, width=4).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0.5, 0.2)
    images = torch.randn(2, 3, 32, 40)
    scores = network(images)
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    with torch.no_grad():
        assert torch.equal(network(images), scores)
        torch.testing.assert_close(network(images[1:]), scores[1:], rtol=1e-4, atol=1e-4)
        network.to(memory_format=torch.channels_last)
        last = network(images.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(last, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_one_photo_of_the_least_size_trains(form) -> None:
    network = UpsamplingNet(3, form, width=2).train()
    assert network(torch.randn(1, 3, 16, 16)).isfinite().all()


def test_refuses_what_it_cannot_do() -> None:
    message = "upsampling is 'cubic'; it can be 'nearest', 'bed_of_nails', .*, 'dilation'"
    with pytest.raises(ValueError, match=message):
        UpsamplingNet(3, "cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"heights and widths of 8k from 16 on; got 20x32\. Pad"):
        UpsamplingNet(3)(torch.zeros(1, 3, 20, 32))
    with pytest.raises(ValueError, match=r"heights and widths from 16 on; got 15x32\. Pad it to"):
        UpsamplingNet(3, "dilation")(torch.zeros(1, 3, 15, 32))
