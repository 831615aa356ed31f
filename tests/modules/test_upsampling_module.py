from typing import get_args

import pytest
import torch

from segment.architectures.upsampling import Upsampling
from segment.modules import UpsamplingNetModule


@pytest.mark.parametrize("form", get_args(Upsampling))
def test_learns_one_picture_by_heart_at_any_size(form) -> None:
    torch.manual_seed(0)
    module = UpsamplingNetModule(2, form, width=8)
    image = torch.randint(0, 60, (2, 3, 37, 45), dtype=torch.uint8)
    image[:, :, :, 21:] += 150
    mask = torch.zeros(2, 37, 45, dtype=torch.long)
    mask[:, :, 21:] = 1
    optimizer = torch.optim.AdamW(module.parameters(), 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        module.loss(image, mask).backward()
        optimizer.step()
    right = (module(image).argmax(1) == mask).float().mean()
    assert right > 0.9
