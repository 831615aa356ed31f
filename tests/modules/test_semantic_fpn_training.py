import torch
from torch import nn
from torch.nn import functional as F

from segment.modules import SemanticFPNModule


def test_freezes_the_backbone_s_norms_and_trains_on_one_photo() -> None:
    torch.manual_seed(0)
    module = SemanticFPNModule(3, "resnet18", width=64, pretrained=False).train()
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    groups = [m for m in module.modules() if isinstance(m, nn.GroupNorm)]
    assert len(groups) == 7
    assert all(norm.weight.requires_grad for norm in groups)
    image = torch.randint(0, 256, (1, 3, 60, 65), dtype=torch.uint8)
    mask = torch.randint(0, 3, (1, 60, 65))
    loss = module.loss(image, mask)
    assert torch.allclose(loss, F.cross_entropy(module(image), mask))
    loss.backward()
    assert all(norm.weight.grad.any() for norm in groups)
    assert module.optimization.lr == 0.01
