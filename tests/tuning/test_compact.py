"""What the cache keeps of a network's answer: nothing that the CRF would see is lost."""

import pytest
import torch
from torch.nn import functional as F

from segment.tuning.cache import compact, restored


@pytest.mark.parametrize("probable", [0.1, 0.47])
def test_thin_things_that_never_win_are_kept(probable: float) -> None:
    """The CRF may yet let them win: labels alone do not show them."""
    thin = torch.full((96, 128), 0.02)
    thin[:, 20::32] = probable  # poles of one pixel
    maps = torch.stack([1 - thin, thin])
    assert maps.argmax(0).max() == 0
    kept, grid = compact(maps)
    torch.testing.assert_close(restored(kept, grid, (96, 128)), maps, atol=0.02, rtol=0)


def test_a_network_of_stride_32_keeps_its_grid() -> None:
    logits = 3 * torch.randn(11, 3, 4, generator=torch.Generator().manual_seed(0))
    fine = F.interpolate(logits[None], (96, 128), mode="bilinear")[0].softmax(0)
    kept, grid = compact(fine)
    assert kept.shape == (11, 3, 4)
    torch.testing.assert_close(restored(kept, grid, (96, 128)), fine, atol=2e-3, rtol=0)
