from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from segment.modules import TorchvisionDeepLabV3Module, TorchvisionFCNModule


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_auxiliary_loss_is_added_at_its_weight(weight) -> None:
    torch.manual_seed(0)
    module = TorchvisionFCNModule(3, auxiliary_weight=weight, pretrained=False).eval()
    image = torch.randint(0, 256, (2, 3, 20, 7), dtype=torch.uint8)
    mask = torch.randint(0, 3, (2, 20, 7))
    mask[0, :5] = 255
    with torch.no_grad():
        scores = module.network.score_both(module.pad(image))
        assert len(scores) == (2 if weight else 1)
        terms = [F.cross_entropy(s[..., :20, :7], mask, ignore_index=255) for s in scores]
        expected = terms[0] + (weight * terms[1] if weight else 0)
        torch.testing.assert_close(module.loss(image, mask), expected)
        assert module(image).shape == (2, 3, 20, 7)


def test_rates_are_the_reference_script_s() -> None:
    module = TorchvisionDeepLabV3Module(3, pretrained=False)
    module._trainer = SimpleNamespace(estimated_stepping_batches=100)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert {g["name"]: (g["lr"], g["weight_decay"], g["momentum"]) for g in groups} == {
        "backbone": (0.02, 1e-4, 0.9),
        "head": (0.02, 1e-4, 0.9),
        "auxiliary_head": (0.2, 1e-4, 0.9),
    }
    count = sum(len(g["params"]) for g in groups)
    assert count == len({id(p) for g in groups for p in g["params"]})
    assert count == len(list(module.parameters()))


def test_frozen_batch_norm_is_the_backbone_s() -> None:
    module = TorchvisionFCNModule(3, pretrained=False, freeze_batch_norm=True).train()
    assert not module.network.backbone.layer4[0].bn1.training
    assert module.network.classifier[1].training
    assert module.network.aux_classifier[1].training


def test_refuses_a_negative_weight() -> None:
    with pytest.raises(ValueError, match=r"auxiliary_weight is -1\.0; give 0 or more"):
        TorchvisionFCNModule(3, auxiliary_weight=-1.0, pretrained=False)
