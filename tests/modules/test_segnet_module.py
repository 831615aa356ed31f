from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from segment.modules import SegNetBasicModule, SegNetModule


@pytest.mark.parametrize(
    ("module", "rate"),
    [
        (lambda: SegNetModule(3, pretrained=False, width=2), 1e-3),
        (lambda: SegNetBasicModule(3, width=2), 0.1),
    ],
)
def test_rate_is_the_paper_s_and_stays(module, rate) -> None:
    module = module()
    module._trainer = SimpleNamespace(estimated_stepping_batches=100)
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert isinstance(optimizer, torch.optim.SGD)
    for _ in range(50):
        optimizer.step()
        scheduler.step()
    groups = optimizer.param_groups
    assert {(g["lr"], g["momentum"], g["weight_decay"]) for g in groups} == {(rate, 0.9, 5e-4)}
    assert sum(len(g["params"]) for g in groups) == len(list(module.parameters()))


def test_basic_s_photos_keep_their_8_bit_values() -> None:
    image = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    torch.testing.assert_close(SegNetBasicModule(3, width=2).pad(image), image.float())


@pytest.mark.parametrize("size", [(31, 47), (1, 1), (75, 100)])
def test_any_photo_size_works(size) -> None:
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    for module in (SegNetModule(3, pretrained=False, width=2), SegNetBasicModule(3, width=2)):
        assert module.eval()(image).shape == (1, 3, *size)


def test_class_weights_balance_the_loss() -> None:
    torch.manual_seed(0)
    weights = [0.2595, 4.5640, 9.6446]  # three of segnet_train.prototxt's
    module = SegNetModule(3, pretrained=False, width=2, class_weights=weights).eval()
    image = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    mask = torch.randint(0, 3, (2, 32, 48))
    expected = F.cross_entropy(module(image), mask, torch.tensor(weights))
    torch.testing.assert_close(module.loss(image, mask), expected)


@pytest.mark.parametrize("kind", ["segnet", "basic"])
def test_learns_one_picture_by_heart(kind) -> None:
    torch.manual_seed(0)
    module = (
        SegNetModule(2, pretrained=False, width=4)
        if kind == "segnet"
        else SegNetBasicModule(2, width=8)
    )
    image = torch.randint(0, 60, (2, 3, 48, 48), dtype=torch.uint8)
    image[:, :, :, 24:] += 150
    mask = torch.zeros(2, 48, 48, dtype=torch.long)
    mask[:, :, 24:] = 1
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        module.loss(image, mask).backward()
        optimizer.step()
    right = (module(image).argmax(1) == mask).float().mean()
    assert right > 0.9
