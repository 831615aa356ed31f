"""Where in the photo an output's cells lie."""

import torch
from torch import Tensor, nn

ACTIVATIONS = ("ReLU", "GELU", "SiLU", "Hardswish")


def averaging(network: nn.Module) -> nn.Module:
    """The network with every layer a weighted mean of its input, so that nothing hides a shift."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                taps = torch.ones(module.kernel_size[0])
                if len(taps) % 2:  # narrow, or the photo's border would cut the mean off
                    taps[:] = 0.001
                    taps[len(taps) // 2] = 1
                kernel = taps[:, None] * taps / taps.sum() ** 2
                module.weight.copy_((kernel / module.weight.shape[1]).expand_as(module.weight))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Linear):
                module.weight.fill_(1 / module.in_features)
                module.bias.zero_()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            kind = type(child).__name__
            if isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
                setattr(parent, name, pool)
            elif kind.startswith(ACTIVATIONS) or kind.startswith(("BatchNorm", "LayerNorm")):
                setattr(parent, name, nn.Identity())
    return without_squeezing(network).eval()


def without_squeezing(network: nn.Module) -> nn.Module:
    """The network without squeeze-and-excite, which looks at the whole photo."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in ("SqueezeExcite", "SEModule"):
                setattr(parent, name, nn.Identity())
    return network


def centroid(output: Tensor, image: Tensor) -> list[float]:
    """Mean row and column of the pixels that `output` is made of."""
    (gradient,) = torch.autograd.grad(output.sum(), image)
    mass = gradient.sum(dim=(0, 1))
    place = torch.arange(mass.shape[0], dtype=mass.dtype)
    return [(mass.sum(dim=d) * place).sum().item() / mass.sum().item() for d in (1, 0)]
