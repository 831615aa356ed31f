import pytest
import torch
from torch.nn import functional as F

from segment.modules import PlainFCNModule


@pytest.mark.parametrize("size", [(1, 1), (17, 30)])
@pytest.mark.parametrize("settings", [{"depth": 3, "width": 4}, {"variant": "context"}])
def test_the_loss_is_at_full_size_for_any_photo(settings, size) -> None:
    torch.manual_seed(0)
    module = PlainFCNModule(3, **settings)
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    mask = torch.randint(0, 3, (2, *size))
    logits = module(image)
    assert logits.shape == (2, 3, *size)
    expected = F.cross_entropy(logits, mask)
    torch.testing.assert_close(module.loss(image, mask), expected)
    mask[0] = 255
    half = F.cross_entropy(logits[1:], mask[1:])
    torch.testing.assert_close(module.loss(image, mask), half)


def test_builds_the_form_that_was_asked_for() -> None:
    with torch.device("meta"):
        parts = [
            PlainFCNModule(21).network,
            PlainFCNModule(21, depth=10).network,
            PlainFCNModule(21, variant="context").network.score,  # about 64 * 21 ** 2
        ]
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [224_725, 298_581, 28_392]


def test_learns_one_picture_by_heart() -> None:
    torch.manual_seed(0)
    module = PlainFCNModule(2, depth=4, width=8, lr=1e-2)
    image = torch.randint(0, 60, (2, 3, 24, 24), dtype=torch.uint8)
    image[:, :, :, 12:] += 150
    mask = torch.zeros(2, 24, 24, dtype=torch.long)
    mask[:, :, 12:] = 1
    optimizer = module.optimization.optimizer(module.parameter_groups())
    for _ in range(30):
        optimizer.zero_grad()
        module.loss(image, mask).backward()
        optimizer.step()
    assert (module(image).argmax(1) == mask).float().mean() > 0.95
