"""The torch backend held to the native one, and its gradient to differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segment.crf import CRFLayer, DenseCRF
from segment.crf.layer import mean_field
from segment.crf.permutohedral import Lattice

SMALL = DenseCRF(iterations=2, position_weight=1.0, bilateral_weight=1.5, max_side=None)


def batch(seed: int, photos: int, classes: int, height: int, width: int):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (photos, 3, 5, 6), generator=generator)
    noise = torch.randint(-8, 9, (photos, 3, height, width), generator=generator)
    photo = F.interpolate(coarse.float(), (height, width)) + noise
    scores = 2 * torch.randn(photos, classes, height, width, generator=generator)
    return photo.clamp(0, 255).to(torch.uint8), scores


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"normalization": "after", "bilateral_width_levels": 40.0},
        {"normalization": "before", "bilateral_width_px": 20.0},
        {"normalization": "none", "bilateral_weight": 0.02, "position_weight": 0.1},
        {"position_weight": 0.0},
        {"compatibility": [[0.0, 1.0, 0.2], [1.0, 0.0, 2.0], [0.2, 2.0, 0.5]]},
    ],
)
def test_gives_the_native_backend_s_probabilities(fields) -> None:
    photos, scores = batch(1, 2, 3, 60, 83)
    native, ours = (
        DenseCRF(**fields, backend=b)(photos, scores.softmax(1)) for b in ("native", "torch")
    )
    assert (native.argmax(1) == ours.argmax(1)).float().mean() >= 0.9999
    assert ((native - ours).abs() < 1e-3).float().mean() >= 0.9999
    assert (native - scores.softmax(1)).abs().mean() > 0.01  # the CRF did something


# A width of 0.0002 pixels makes 2^94 places for lattice points: more than one whole number holds.
@pytest.mark.parametrize("width", [2e-4, 0.01, 0.5, 1e4])
def test_widths_without_measure(width) -> None:
    photos, scores = batch(2, 1, 3, 40, 50)
    fields = {"position_width_px": width, "bilateral_width_px": width}
    crf = DenseCRF(**fields, bilateral_width_levels=max(width, 1e-3), backend="torch")
    q = crf(photos, scores.softmax(1))
    assert torch.isfinite(q).all()
    torch.testing.assert_close(q.sum(1), torch.ones(1, 40, 50))
    if width < 0.1:  # a pixel has no neighbour but itself, which changes no label
        assert torch.equal(q.argmax(1), scores.argmax(1))


def test_a_batch_s_photos_do_not_see_each_other() -> None:
    photos, scores = batch(3, 3, 4, 20, 31)
    together = mean_field(photos, scores, SMALL)
    for n in range(3):
        alone = mean_field(photos[n : n + 1], scores[n : n + 1], SMALL)
        torch.testing.assert_close(together[n : n + 1], alone, atol=1e-5, rtol=1e-5)


def test_filtering_is_linear_and_its_transpose_is_its_gradient() -> None:
    lattice = Lattice(torch.rand(60, 3) * 4)
    a, b = torch.randn(2, 60, 2, dtype=torch.double)
    torch.testing.assert_close(lattice.filter(a + 2 * b), lattice.filter(a) + 2 * lattice.filter(b))
    forth, back = lattice.apply(a, False), lattice.apply(b, True)
    torch.testing.assert_close((forth * b).sum(), (a * back).sum())
    # The blur's directions do not commute where neighbours are missing: the order counts.
    assert not torch.allclose(lattice.apply(a, False), lattice.apply(a, True))


@pytest.mark.parametrize("normalization", ["symmetric", "after", "before", "none"])
def test_gradients_of_scores_weights_and_compatibility(normalization) -> None:
    crf = replace(SMALL, normalization=normalization)
    photos, scores = batch(4, 2, 3, 4, 5)
    mu = 1 - torch.eye(3, dtype=torch.double)
    inputs = [scores.double(), *torch.tensor([1.0, 1.5]).double(), mu]
    for one in inputs:
        one.requires_grad_()

    def refined(scores, position, bilateral, mu):
        return mean_field(photos, scores, crf, (position, bilateral), mu)

    assert torch.autograd.gradcheck(refined, tuple(inputs))


def test_a_layer_learns_and_hands_what_it_learnt_to_the_fast_backend() -> None:
    # Labels follow the photo's colours and the scores hardly do: trusting the kernel helps.
    torch.manual_seed(5)
    photos = torch.zeros(1, 3, 24, 30, dtype=torch.uint8)
    photos[:, :, :, 15:] = 200
    labels = (photos[:, 0] > 0).long()
    scores = 1.5 * F.one_hot(labels, 3).permute(0, 3, 1, 2) + 2 * torch.randn(1, 3, 24, 30)
    weak = DenseCRF(iterations=3, position_weight=0.1, bilateral_weight=0.1, max_side=None)
    layer = CRFLayer(3, weak)
    optimizer = torch.optim.Adam(layer.parameters(), 0.1)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(layer(photos, scores), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    learnt = layer.dense_crf()
    assert learnt.bilateral_weight > weak.bilateral_weight
    fast = learnt(photos, scores.softmax(1))
    torch.testing.assert_close(fast, layer(photos, scores).softmax(1), atol=2e-3, rtol=0)
    assert np.allclose(learnt.compatibility, np.transpose(learnt.compatibility))


def test_refuses_costs_of_other_classes_and_photos_that_are_not_8_bit() -> None:
    costs = [[0.0, 1.0], [1.0, 0.0]]
    with pytest.raises(ValueError, match="compatibility is for 2 classes but there are 3"):
        CRFLayer(3, DenseCRF(compatibility=costs))
    photos, scores = batch(1, 1, 2, 8, 9)
    with pytest.raises(ValueError, match=r"8-bit grey levels, but the photos are torch.float32"):
        CRFLayer(2, SMALL)(photos / 255, scores)


@pytest.mark.parametrize(
    ("photos", "scores"),
    [
        ((1, 3, 8, 9), (2, 2, 8, 9)),  # would broadcast
        ((2, 3, 8, 9), (1, 2, 8, 9)),
        ((1, 4, 8, 9), (1, 2, 8, 9)),
        ((1, 3, 8, 9), (1, 2, 4, 5)),
        ((1, 3, 8, 9), (1, 1, 8, 9)),  # would broadcast against the compatibility
        ((1, 3, 8, 9), (1, 3, 8, 9)),
        ((3, 8, 9), (2, 8, 9)),
    ],
)
def test_a_layer_refuses_shapes_that_do_not_fit(photos, scores) -> None:
    with pytest.raises(ValueError, match=r"of 2 classes takes photos .*; give one score map per"):
        CRFLayer(2, SMALL)(torch.zeros(photos, dtype=torch.uint8), torch.zeros(scores))
