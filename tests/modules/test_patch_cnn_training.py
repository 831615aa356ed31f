import pytest
import torch
from torch.nn import functional as F

from segment.modules import PatchCNNModule
from segment.modules.patch_cnn import balanced_pixels


def test_draws_as_many_pixels_of_every_class() -> None:
    mask = torch.zeros(2, 20, 30, dtype=torch.long)
    mask[0, 5, 7] = 1  # a class of one pixel
    mask[1, 3:6, 3:6] = 4
    mask[:, 10:] = 255
    torch.manual_seed(0)
    photo, row, column = balanced_pixels(mask, 100)
    assert mask[photo, row, column].bincount().tolist() == [33, 33, 0, 0, 33]
    rare = mask[photo, row, column] == 1
    assert torch.stack([photo, row, column])[:, rare].unique(dim=1).tolist() == [[0], [5], [7]]
    common = mask[photo, row, column] == 0
    assert photo[common].unique().tolist() == [0, 1]
    assert torch.stack([photo, row, column])[:, common].unique(dim=1).shape[1] > 25
    other = balanced_pixels(mask, 100)
    assert not torch.equal(other[2], column)


def test_the_loss_is_that_of_the_drawn_windows() -> None:
    torch.manual_seed(0)
    module = PatchCNNModule(3, mode="naive", width=4, patches=12).eval()
    image = torch.randint(0, 256, (2, 3, 9, 11), dtype=torch.uint8)
    mask = torch.randint(0, 3, (2, 9, 11))
    mask[:, 0] = 255
    torch.manual_seed(5)
    drawn = balanced_pixels(mask, 12)
    assert len(drawn[0]) == 12
    photo, row, column = drawn
    expected = F.cross_entropy(module(image)[photo, :, row, column], mask[drawn])
    torch.manual_seed(5)
    assert module.loss(image, mask).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_batch_without_labels_has_no_loss() -> None:
    module = PatchCNNModule(3, width=4, patches=12)
    image = torch.zeros(1, 3, 9, 11, dtype=torch.uint8)
    loss = module.loss(image, torch.full((1, 9, 11), 255))
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in module.parameters())


def test_scores_a_photo_of_any_size() -> None:
    module = PatchCNNModule(3, width=4)
    assert module(torch.zeros(1, 3, 37, 50, dtype=torch.uint8)).shape == (1, 3, 37, 50)


def test_refuses_fewer_patches_than_classes() -> None:
    with pytest.raises(ValueError, match="patches is 10; give at least one per class, 11"):
        PatchCNNModule(11, width=4, patches=10)
