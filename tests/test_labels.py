import pytest
import torch
from torch.nn import functional as F

from segment.labels import labels_of


@pytest.mark.parametrize("size", [(600, 400), (37, 29), (300, 50), (20, 16)])
def test_labels_are_those_of_upsampled_probabilities(size: tuple[int, int]) -> None:
    # 600 rows go through three strips; the whole upsampling is torch's own.
    small = (torch.rand(5, 20, 16, generator=torch.Generator().manual_seed(0)) ** 4).softmax(0)
    whole = F.interpolate(small[None], size, mode="bilinear")[0]
    labels = labels_of(small, size)
    top = whole.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-5  # ties may fall either way
    assert clear.float().mean() > 0.99
    assert torch.equal(labels.ids[clear].long(), whole.argmax(0)[clear])
    assert torch.allclose(labels.confidence, top[0], atol=1e-5)
