"""What networks that pool and unpool with switches are checked with."""

import torch
from alignment import averaging
from torch import Tensor, nn
from torch.nn import functional as F


class AveragePool(nn.Module):
    """The mean of 2x2 pixels, and nothing to remember."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False), None


class Repeat(nn.Module):
    """Every value four times."""

    def forward(self, x: Tensor, indices: None, size: torch.Size) -> Tensor:
        return F.interpolate(x, scale_factor=2)[..., : size[0], : size[1]]


def averaging_switches(network: nn.Module) -> nn.Module:
    """`averaging` where pools have switches: pools average, unpooling repeats."""
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            taps = torch.full(module.kernel_size[:1], 0.001)
            taps[len(taps) // 2] = 1
            kernel = taps[:, None] * taps / taps.sum() ** 2
            with torch.no_grad():
                module.weight.copy_((kernel / module.in_channels).expand_as(module.weight))
                module.bias.zero_()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MaxPool2d):
                setattr(parent, name, AveragePool())
            elif isinstance(child, nn.MaxUnpool2d):
                setattr(parent, name, Repeat())
            elif isinstance(child, nn.LocalResponseNorm):
                setattr(parent, name, nn.Identity())
    return averaging(network)


def unpool_by_hand(before: Tensor, values: Tensor) -> Tensor:
    """Put `values` where the maxima of 2x2 windows of `before` are, 0 elsewhere, one by one.

    Args:
        before: What was pooled, (N, C, H, W).
        values: (N, C, ceil(H / 2), ceil(W / 2)), or rounded down.
    """
    result = torch.zeros_like(before)
    for n, c, i, j in torch.ones(values.shape).nonzero().tolist():
        window = before[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = divmod(int(window.argmax()), window.shape[1])
        result[n, c, 2 * i + row, 2 * j + column] = values[n, c, i, j]
    return result
