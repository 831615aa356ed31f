"""The paired bootstrap held to the closed form of a mean's interval, and to what must be."""

import numpy as np
import pytest

from segment.bootstrap import (
    Sums,
    measure_names,
    measured,
    measures,
    paired_bootstrap,
    stacked,
    summed,
)
from segment.metrics import Totals, count_photo
from segment.metrics.scores import F1_UNIT


def totals_of(f1: np.ndarray) -> Totals:
    """Photos of two classes whose boundary F1 is known; all their pixels are right."""
    photos = len(f1)
    boundary = np.zeros((photos, 3, 2), np.int64)
    boundary[:, 2] = np.stack([np.rint(f1 * F1_UNIT), np.ones(photos)], 1)
    confusion = np.tile(np.diag([60, 40]), (photos, 1, 1))
    zeros = Totals.zeros(2)
    return Totals(
        confusion,
        np.tile(zeros.trimap, (photos, 1, 1, 1)),
        boundary,
        np.tile(zeros.calibration, (photos, 1, 1)),
    )


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    before, gains = rng.uniform(0.2, 0.6, 200), rng.normal(0.02, 0.1, 200)
    found = paired_bootstrap(totals_of(before), totals_of(before + gains), 0)["boundary_f1"]
    half = 1.96 * gains.std(ddof=1) / np.sqrt(200)
    assert found.value == pytest.approx(gains.mean(), abs=1e-6)
    assert found.low == pytest.approx(gains.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(gains.mean() + half, abs=0.1 * half)


def test_photos_of_a_block_count_as_one() -> None:
    rng = np.random.default_rng(1)
    before, gains = np.full(160, 0.5), np.repeat(rng.normal(0, 0.1, 40), 4)  # four twins each
    totals = totals_of(before), totals_of(before + gains)
    alone = paired_bootstrap(*totals, 0)["boundary_f1"]
    together = paired_bootstrap(*totals, 0, np.repeat(np.arange(40), 4))["boundary_f1"]
    assert together.high - together.low == pytest.approx(2 * (alone.high - alone.low), rel=0.15)


def test_a_class_has_an_interval_where_six_blocks_show_it() -> None:
    """Class 1 in few photos of 40, and always better: others say nothing of how sure that is."""
    for shown, told in ((1, False), (5, False), (6, True)):
        before, after = totals_of(np.full(40, 0.5)), totals_of(np.full(40, 0.5))
        for totals in (before, after):
            totals.confusion[shown:, 1] = 0
        before.confusion[:shown, 1] = [10, 30]
        found = paired_bootstrap(before, after, 0, draws=100)
        assert found["iou/1"].value == pytest.approx(0.25)
        assert np.isnan(found["iou/1"].low) != told
        assert found["iou/1"].verdict == int(told)
        assert not np.isnan(found["iou/0"].low)
        # Three of a block are one: 6 photos in 2 blocks are too few again.
        together = paired_bootstrap(before, after, 0, np.arange(40) // 3, draws=100)
        assert np.isnan(together["iou/1"].low)


def test_boundary_f1_has_an_interval_where_six_photos_have_a_boundary() -> None:
    for having, told in ((1, False), (5, False), (6, True)):
        before, after = totals_of(np.full(40, 0.4)), totals_of(np.full(40, 0.5))
        for totals in (before, after):
            totals.boundary[having:] = 0
        found = paired_bootstrap(before, after, 0, draws=100)["boundary_f1"]
        assert found.value == pytest.approx(0.1)
        assert found.verdict == int(told)
        assert np.isnan(found.low) != told


def test_what_did_not_change_differs_by_nothing() -> None:
    totals = totals_of(np.linspace(0.1, 0.9, 12))
    for name, found in paired_bootstrap(totals, totals, 0, draws=50).items():
        if name != "trimap_miou":  # these photos have no trimap
            assert found == (0, 0, 0), name
            assert found.verdict == 0
    assert np.isnan(paired_bootstrap(totals, totals, 0, draws=50)["trimap_miou"].value)


def test_a_gain_in_every_photo_is_one() -> None:
    before = np.linspace(0.1, 0.8, 20)
    for gain, verdict in ((0.1, 1), (-0.1, -1)):
        found = paired_bootstrap(totals_of(before), totals_of(before + gain), 0, draws=200)
        assert found["boundary_f1"].verdict == verdict


def test_iou_of_a_class_by_hand() -> None:
    # Two photos, 60 and 40 pixels right; then 10 pixels of class 1 are called 0 in each.
    after = totals_of(np.full(2, 0.5))
    after.confusion[:, 1] = [10, 30]
    found = paired_bootstrap(totals_of(np.full(2, 0.5)), after, 0, draws=20)
    assert found["iou/0"].value == pytest.approx(60 / 70 - 1)
    assert found["iou/1"].value == pytest.approx(30 / 40 - 1)
    assert np.isnan(found["miou"].low)  # two photos are too few for an interval
    assert found["miou"].verdict == 0
    assert found["miou"].value == pytest.approx((60 / 70 + 30 / 40) / 2 - 1)


def test_many_rows_at_a_time_score_as_one_at_a_time() -> None:
    rng = np.random.default_rng(2)
    photos = []
    for _ in range(9):  # class 3 is never there, class 2 rarely
        truth = rng.choice(3, (12, 14), p=[0.6, 0.39, 0.01]).astype(np.uint8)
        prediction = np.where(rng.random((12, 14)) < 0.7, truth, rng.integers(0, 2, (12, 14)))
        photos.append(count_photo(truth, prediction, None, 4))
    totals = stacked(photos)
    times = rng.integers(0, 3, (5, 9))
    rows = measured(Sums.of(totals).summed(times), 0)
    blocks = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3])
    together = measured(Sums.of(totals).by_block(blocks).summed(np.array([[1, 0, 2, 1]])), 0)
    for drawn, row in [*zip(times, rows, strict=True), (np.array([1, 0, 2, 1])[blocks], *together)]:
        alone = measures(summed(totals, drawn), 0)
        assert list(alone) == measure_names(4)
        np.testing.assert_allclose(row, list(alone.values()), rtol=1e-12)
