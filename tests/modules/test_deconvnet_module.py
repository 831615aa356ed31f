from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segment.modules import DeconvNetModule
from segment.modules.deconvnet import windows


def narrow(**settings: object) -> DeconvNetModule:
    torch.manual_seed(0)
    module = DeconvNetModule(3, **{"pretrained": False, "width": 1, **settings})  # type: ignore[arg-type]
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias, 0.5, 0.2)
    return module.eval()


def test_rates_are_the_release_s() -> None:
    module = narrow()
    module._trainer = SimpleNamespace(estimated_stepping_batches=20_000)  # type: ignore[assignment]
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = {g["name"]: (g["lr"], g["weight_decay"], g["momentum"]) for g in optimizer.param_groups}
    assert rates == {
        "backbone": (0.01, 5e-4, 0.9),
        "backbone_bias": (0.02, 0.0, 0.9),
        "head": (0.01, 5e-4, 0.9),
        "head_bias": (0.02, 0.0, 0.9),
    }
    seen = []
    for step in range(18_001):
        if step in (0, 8_999, 9_000, 18_000):
            seen.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx([0.01, 0.01, 0.001, 0.0001])


def test_windows_of_a_photo_by_hand() -> None:
    whole, *squares = windows(224, 336)
    assert whole == (0, 0, 224, 336)
    assert squares == [
        *((0, left, 224, 224) for left in (0, 112)),
        *((top, left, 112, 112) for top in (0, 56, 112) for left in (0, 56, 112, 168, 224)),
    ]
    assert windows(111, 400) == [(0, 0, 111, 400)]  # squares would be below 112
    assert windows(224, 224).count((0, 0, 224, 224)) == 1


@pytest.mark.parametrize("size", [(375, 500), (640, 130), (113, 113), (1000, 999)])
def test_windows_lie_in_the_photo_and_overlap_by_half(size) -> None:
    by_side: dict[int, list] = {}
    for top, left, height, width in windows(*size)[1:]:
        assert height == width >= 112
        assert 0 <= top <= size[0] - height
        assert 0 <= left <= size[1] - width
        by_side.setdefault(height, []).append((top, left))
    for side, corners in by_side.items():
        for axis in (0, 1):
            starts = sorted({corner[axis] for corner in corners})
            assert (starts[0], starts[-1]) == (0, size[axis] - side)
            gaps = [b - a for a, b in pairwise(starts)]
            assert all(gap <= side / 2 + 1 for gap in gaps)


def test_patches_keep_the_best_score_of_any_window() -> None:
    module = narrow()
    image = torch.randint(0, 256, (2, 3, 130, 190), dtype=torch.uint8)
    places = [(0, 0, 130, 190), (0, 0, 130, 130), (0, 60, 130, 130)]
    assert windows(130, 190) == places
    with torch.no_grad():
        maps = torch.zeros(4, 2, 3, 130, 190)  # the last stays 0, the initial value
        for number, (top, left, height, width) in enumerate(places):
            patch = image[:, :, top : top + height, left : left + width].float()
            # Enlarging, so there is nothing to blur away first.
            wide = F.interpolate(patch, (224, 224), mode="bilinear")
            scores = F.interpolate(module(wide), (height, width), mode="bilinear")
            maps[number, :, :, top : top + height, left : left + width] = scores
        assert [bool((maps.argmax(0) == number).any()) for number in range(4)] == [True] * 4
        expected = maps.max(0).values.softmax(1)
        torch.testing.assert_close(module.probabilities(image), expected, rtol=1e-3, atol=1e-5)
        whole = narrow(inference="whole")
        torch.testing.assert_close(whole.probabilities(image), module(image).softmax(1))


def test_patches_lose_scores_below_zero_as_released() -> None:
    module = narrow()
    nn.init.constant_(module.network.score.bias, -1e4)
    image = torch.randint(0, 256, (1, 3, 120, 120), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(module.probabilities(image), torch.full((1, 3, 120, 120), 1 / 3))


def test_refuses_an_inference_it_does_not_have() -> None:
    with pytest.raises(ValueError, match="inference is 'tiles'; it can be 'whole' or 'patches'"):
        narrow(inference="tiles")


def test_learns_one_picture_by_heart() -> None:
    torch.manual_seed(0)
    module = DeconvNetModule(2, pretrained=False, width=4)
    for layer in module.modules():
        if isinstance(layer, nn.ConvTranspose2d):  # 0.01 suits 64 times as many channels
            nn.init.kaiming_normal_(layer.weight)
    image = torch.randint(0, 60, (2, 3, 224, 224), dtype=torch.uint8)
    image[:, :, :, 112:] += 150
    mask = torch.zeros(2, 224, 224, dtype=torch.long)
    mask[:, :, 112:] = 1
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(12):
        optimizer.zero_grad()
        module.loss(image, mask).backward()
        optimizer.step()
    right = (module(image).argmax(1) == mask).float().mean()
    assert right > 0.9
