import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional as F
from torch.utils.data import DataLoader

from segment.modules import DeepContextualNetworkModule


def small(**settings) -> DeepContextualNetworkModule:
    torch.manual_seed(0)
    return DeepContextualNetworkModule(3, pretrained=False, width=2, **settings)


def photo() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    image = torch.randint(0, 256, (2, 3, 21, 30), dtype=torch.uint8)
    mask = torch.randint(0, 3, (2, 21, 30))
    mask[:, :4] = 255
    return image, mask


def test_every_branch_has_a_loss_at_full_size_beside_that_of_the_sum() -> None:
    image, mask = photo()
    module = small(auxiliary_weight=0.7)
    branches = [s[..., :21, :30] for s in module.network.score_branches(module.pad(image))]
    terms = [F.cross_entropy(s, mask, ignore_index=255) for s in branches]
    fused = F.cross_entropy(torch.stack(branches).sum(0), mask, ignore_index=255)
    expected = (fused + 0.7 * torch.stack(terms).sum()).item()
    assert module.loss(image, mask).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(module(image), torch.stack(branches).sum(0))


def test_the_branches_losses_fade() -> None:
    module = small(auxiliary_half_life=100)
    assert [module.fading_weight(step) for step in (0, 100, 300)] == [1.0, 0.5, 0.125]
    assert small().fading_weight(20000) < 0.01


def test_they_fade_with_the_steps_of_a_training() -> None:
    image, mask = photo()
    module = small(auxiliary_half_life=1)
    seen, fading = [], module.fading_weight
    module.fading_weight = lambda step: seen.append(step) or fading(step)
    trainer = Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = DataLoader([{"image": image, "mask": mask}] * 3, batch_size=None)
    trainer.fit(module, batches)
    assert seen == [0, 1, 2]


def test_refuses_a_loss_that_grows() -> None:
    with pytest.raises(ValueError, match="auxiliary_half_life 0; give 0 or more, and at least 1"):
        small(auxiliary_half_life=0)
