"""What papers say of ways up, against numpy that scatters one value after the other."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures import DeconvNet, DeepContextualNetwork, SegNet, UpsamplingNet
from segment.architectures.upsampling import (
    Block,
    Interpolate,
    MaxUnpooling,
    TransposedConvolution,
)

NO_INDICES = torch.zeros(0)


def scatter_add(x: Tensor, layer: nn.ConvTranspose2d) -> np.ndarray:
    """Every value adds its copy of the kernel, `stride` pixels after its neighbour's."""
    (side, _), (stride, _), (margin, _) = layer.kernel_size, layer.stride, layer.padding
    values, kernel = x.numpy(), layer.weight.detach().numpy()
    n, _, height, width = values.shape
    size = [(cells - 1) * stride + side for cells in (height, width)]
    canvas = np.zeros((n, kernel.shape[1], *size), values.dtype)
    for i in range(height):
        for j in range(width):
            place = np.s_[:, :, i * stride : i * stride + side, j * stride : j * stride + side]
            canvas[place] += np.einsum("nc,cdkl->ndkl", values[:, :, i, j], kernel)
    bias = layer.bias.detach().numpy()[:, None, None]
    return canvas[:, :, margin:-margin, margin:-margin] + bias


def unpool(before: Tensor, values: Tensor) -> np.ndarray:
    """`values` at the maxima of the 2x2 windows of `before`, 0 elsewhere."""
    n, c, height, width = values.shape
    windows = before.numpy().reshape(n, c, height, 2, width, 2).transpose(0, 1, 2, 4, 3, 5)
    windows = windows.reshape(n, c, height, width, 4)
    chosen = np.eye(4)[windows.argmax(-1)] * values.numpy()[..., None]
    chosen = chosen.reshape(n, c, height, width, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return chosen.reshape(before.shape)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_transposed_convolutions_scatter_copies_of_their_kernel(stage) -> None:
    torch.manual_seed(0)
    if stage == 3:
        layer = TransposedConvolution(3).double().convolution
        geometry = 4, 2, 1
    else:
        branch = DeepContextualNetwork(2, width=2).double().branches[stage]
        layer = branch.up
        geometry = [(4, 2, 1), (8, 4, 2), (16, 8, 4)][stage]
    assert (layer.kernel_size[0], layer.stride[0], layer.padding[0]) == tuple(geometry)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, layer.in_channels, 5, 4).double()
    with torch.no_grad():
        found = layer(x)
    assert found.shape[-2:] == (5 * geometry[1], 4 * geometry[1])
    np.testing.assert_allclose(found.numpy(), scatter_add(x, layer), atol=1e-12)


def test_max_unpooling_puts_values_at_the_maxima_and_zero_elsewhere() -> None:
    torch.manual_seed(0)
    before, values = torch.randn(2, 3, 6, 8), torch.randn(2, 3, 3, 4)
    _, indices = F.max_pool2d(before, 2, return_indices=True)
    assert np.array_equal(MaxUnpooling()(values, indices).numpy(), unpool(before, values))


def test_overlapping_windows_would_overwrite_each_other_so_none_overlap() -> None:
    # The middle is the maximum of all four 3x3 windows: of their four values one is left.
    before = torch.zeros(1, 1, 5, 5)
    before[..., 2, 2] = 1
    _, indices = F.max_pool2d(before, 3, stride=2, return_indices=True)
    values = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    found = F.max_unpool2d(values, indices, 3, stride=2)
    assert found.count_nonzero() == 1
    assert found[0, 0, 2, 2] in values
    with torch.device("meta"):
        networks = SegNet(2, width=1), DeconvNet(2, width=1), UpsamplingNet(2, "max_unpooling")
    for network in networks:
        kept = [m for m in network.modules() if isinstance(m, nn.MaxPool2d) and m.return_indices]
        assert kept
        assert {(m.kernel_size, m.stride, m.padding) for m in kept} == {(2, 2, 0)}


def test_a_block_normalizes_before_its_relu() -> None:
    torch.manual_seed(0)
    block = Block(2, 3).eval()
    conv, norm, _ = block
    for values in (norm.running_mean, norm.weight, norm.bias):
        nn.init.normal_(values, 0.3, 0.5)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(2, 2, 8, 8)
    with torch.no_grad():
        y = F.conv2d(x, conv.weight, conv.bias, padding=1)
        shape = (3, 1, 1)
        y = (y - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
        y = y * norm.weight.view(shape) + norm.bias.view(shape)
        assert (y < 0).any()
        torch.testing.assert_close(block(x), y.clamp(min=0))


def keys_taps(a: float) -> list[float]:
    """What Keys' cubic kernel takes of four cells for a place a quarter beyond the second."""

    def tap(t: float) -> float:
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a

    return [tap(1.25), tap(0.25), tap(0.75), tap(1.75)]


def test_bicubic_with_antialiasing_has_another_kernel() -> None:
    impulses = torch.eye(12).view(12, 1, 1, 12).expand(12, 1, 12, 12)

    def taps(up) -> list[float]:
        return up[4:8, 0, 12, 11].tolist()  # output pixel 11 lies at 5.25

    plain = taps(Interpolate("bicubic")(impulses, NO_INDICES))
    smooth = taps(F.interpolate(impulses, scale_factor=2, mode="bicubic", antialias=True))
    assert plain == pytest.approx([-0.10547, 0.87891, 0.26172, -0.03516], abs=1e-5)
    assert smooth == pytest.approx([-0.07031, 0.86719, 0.22656, -0.02344], abs=1e-5)
    assert plain == pytest.approx(keys_taps(-0.75), abs=1e-6)
    assert smooth == pytest.approx(keys_taps(-0.5), abs=1e-6)
