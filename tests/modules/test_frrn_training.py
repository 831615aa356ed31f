import math

import pytest
import torch
from torch.nn import functional as F

from segment.modules import FRRNModule
from segment.modules.frrn import bootstrapped_cross_entropy


def test_the_hardest_pixels_are_chosen_photo_by_photo() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 6, 5)
    logits[1] *= 0.01  # none of its pixels is as hard as the first photo's hardest
    mask = torch.randint(0, 4, (2, 6, 5))
    mask[0, 0] = 255
    means = []
    for scores, ids in zip(logits, mask, strict=True):
        terms = []
        for y in range(6):
            for x in range(5):
                label = int(ids[y, x])
                terms.append(0.0 if label == 255 else -scores[:, y, x].log_softmax(0)[label].item())
        means.append(sum(sorted(terms)[-7:]) / 7)
    found = bootstrapped_cross_entropy(logits, mask, 7).item()
    assert found == pytest.approx(sum(means) / 2, rel=1e-5)
    over_all = F.cross_entropy(logits, mask, ignore_index=255, reduction="none").flatten()
    assert found < over_all.topk(14).values.mean().item() - 0.1


def test_unlabelled_pixels_count_as_nothing_where_labels_are_few() -> None:
    logits = torch.zeros(1, 3, 4, 4)
    mask = torch.full((1, 4, 4), 255)
    mask[0, 0, :2] = 1
    assert bootstrapped_cross_entropy(logits, mask, 8).item() == pytest.approx(math.log(3) / 4)
    assert bootstrapped_cross_entropy(logits, mask, 2).item() == pytest.approx(math.log(3))
    # Fewer pixels than K: all of them.
    assert bootstrapped_cross_entropy(logits, mask, 99).item() == pytest.approx(math.log(3) / 8)
    mask[:] = 255
    assert bootstrapped_cross_entropy(logits, mask, 8).item() == 0


def test_class_weights_multiply_a_class_s_terms() -> None:
    logits, mask = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    found = bootstrapped_cross_entropy(logits, mask, 2, torch.tensor([1.0, 5.0]))
    assert found.item() == pytest.approx(math.log(2) * 3)


def test_the_rate_is_divided_by_1_25_every_5000_steps_down_to_5e_5() -> None:
    module = FRRNModule(3, width=3)
    assert module.hardest == 32768
    optimizer = module.optimization.optimizer(module.parameter_groups())
    assert isinstance(optimizer, torch.optim.Adam)
    factor = module.optimization.scheduler(optimizer, 1e5).lr_lambdas[0]
    rates = [1e-3 * factor(step) for step in (0, 4999, 5000, 12000, 65000, 70000, 99999)]
    expected = [1e-3, 1e-3, 1e-3 / 1.25, 1e-3 / 1.25**2, 1e-3 / 1.25**13, 5e-5, 5e-5]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("variant", ["A", "B"])
def test_trains_and_scores_a_photo_of_any_size(variant) -> None:
    torch.manual_seed(0)
    module = FRRNModule(3, variant, width=3, hardest=50, checkpointing=True)
    image = torch.randint(0, 256, (1, 3, 37, 50), dtype=torch.uint8)
    mask = torch.randint(0, 3, (1, 37, 50))
    logits = module(image)
    assert logits.shape == (1, 3, 37, 50)
    expected = bootstrapped_cross_entropy(logits, mask, 50)
    assert module.loss(image, mask).item() == pytest.approx(expected.item(), rel=1e-4)
    module.loss(image, mask).backward()


def test_refuses_to_choose_no_pixel() -> None:
    with pytest.raises(ValueError, match=r"model\.hardest is 0; give at least 1 pixel"):
        FRRNModule(3, width=3, hardest=0)
