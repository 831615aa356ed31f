"""torch and torchvision must be a pair, and the CRF package must be the one that builds."""

import pydensecrf.densecrf
import torch
from torchvision.ops import nms


def test_torchvision_s_compiled_operators_load() -> None:
    # Two boxes that overlap by 81 / 119 = 0.68: the lower score goes at a threshold of 0.5.
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 11.0, 11.0], [50.0, 50.0, 60.0, 60.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]


def test_pydensecrf_is_the_compiled_one() -> None:
    assert hasattr(pydensecrf.densecrf, "DenseCRF2D")
