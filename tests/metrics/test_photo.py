import json

import numpy as np
import pytest

from segment.metrics import TRIMAP_WIDTHS, UNLABELLED, PhotoCounts, count_photo
from segment.metrics.boundaries import grow


def blobs(seed, height, width, classes, block=4):
    """A random map of square patches, some unlabelled, and a prediction that is its noisy twin."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, classes + 1, (-(-height // block), -(-width // block)))
    small[small == classes] = UNLABELLED
    truth = small.repeat(block, 0).repeat(block, 1)[:height, :width].astype(np.uint8)
    prediction = np.roll(np.where(truth == UNLABELLED, 0, truth), (1, 2), (0, 1))
    noise = rng.random(truth.shape) < 0.05
    prediction[noise] = rng.integers(0, classes, noise.sum())
    return truth, prediction, rng.random(truth.shape, dtype=np.float32)


def halves(column, height=240, width=320):
    """Class 0 left of the column, class 1 from it on. The diagonal is 400 pixels: reach 3."""
    return np.broadcast_to(np.arange(width) >= column, (height, width)).astype(np.uint8)


def assert_same(a, b):
    for name in ("confusion", "trimap", "boundary", "calibration"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def slow_edges(labels, c):
    """The boundary pixels of class c, one by one, as the docstring of `count_photo` says it."""
    height, width = labels.shape
    found = []
    for y, x in np.argwhere(labels == c):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < height and 0 <= u < width and labels[v, u] not in (c, UNLABELLED):
                found.append((y, x))
                break
    return np.array(found, float).reshape(-1, 2)


def slow_distances(points, targets):
    return np.hypot(*(points[:, None] - targets[None]).transpose(2, 0, 1)).min(axis=1)


@pytest.mark.parametrize("shape", [(23, 31), (3, 40), (40, 3), (1, 50), (50, 1)])
def test_trimap_agrees_with_all_pairs_of_pixels(shape):
    truth, prediction, _ = blobs(1, *shape, classes=3)
    trimap = count_photo(truth, prediction, None, 3).trimap
    edges = np.concatenate([slow_edges(truth, c) for c in range(3)])
    pixels = np.argwhere(truth != UNLABELLED)
    near = slow_distances(pixels.astype(float), edges)
    true, predicted = truth[tuple(pixels.T)], prediction[tuple(pixels.T)]
    for i, width in enumerate(TRIMAP_WIDTHS):
        for c in range(3):
            a, b = (true == c) & (near < width), (predicted == c) & (near < width)
            assert trimap[i, :, c].tolist() == [(a & b).sum(), a.sum(), b.sum()]


@pytest.mark.parametrize("shape", [(30, 40), (240, 320), (240, 319)])  # reach 1, 3, 2.99 pixels
def test_boundary_agrees_with_all_pairs_of_boundary_pixels(shape):
    truth, prediction, _ = blobs(2, *shape, classes=4, block=shape[0] // 10)
    truth[truth == 3] = 0  # class 3 is only predicted
    reach = max(1, 0.0075 * np.hypot(*shape)) + 1e-9
    counts = count_photo(truth, prediction, None, 4)
    seen = np.where(truth == UNLABELLED, UNLABELLED, prediction)
    for c in range(3):
        ours, theirs = slow_edges(seen, c), slow_edges(truth, c)
        matched_ours = (slow_distances(ours, theirs) <= reach).sum()
        matched_theirs = (slow_distances(theirs, ours) <= reach).sum()
        row = [matched_ours, len(ours), matched_theirs, len(theirs)]
        assert counts.boundary[c].tolist() == row
        precision, recall = matched_ours / len(ours), matched_theirs / len(theirs)
        assert 0 < precision < 1
        assert counts.boundary_f1[c] == pytest.approx(2 * precision * recall / (precision + recall))
    assert (seen == 3).any()
    assert counts.boundary_present.tolist() == [True, True, True, False]


def test_twelve_classes_match_like_each_class_alone():
    truth, prediction, _ = blobs(3, 60, 80, classes=12, block=9)
    together = count_photo(truth, prediction, None, 12).boundary
    for c in range(12):
        # Its boundary does not depend on which other classes lie beyond it.
        alone = count_photo(
            np.where(truth == UNLABELLED, truth, truth == c), prediction == c, None, 2
        ).boundary
        assert alone[1].tolist() == together[c].tolist()


def test_grows_by_a_disk_that_includes_its_rim():
    bits = np.zeros((11, 11), np.uint8)
    bits[5, 5] = 128
    y, x = np.mgrid[-5:6, -5:6]
    for reach_squared in (0, 1, 2, 24, 25):
        disk = y**2 + x**2 <= reach_squared
        assert np.array_equal(grow(bits, reach_squared), disk * np.uint8(128))


def test_trimap_of_a_straight_edge():
    truth = halves(column=160)
    trimap = count_photo(truth, halves(column=163), None, 2).trimap
    assert trimap[:, 1].sum(axis=1).tolist() == [2 * 240 * width for width in TRIMAP_WIDTHS]
    # Band 4 is columns 156 to 163: class 0 is true in 4, predicted in 7, class 1 in 4 and in 1.
    assert trimap[2].tolist() == [[4 * 240, 1 * 240], [4 * 240, 4 * 240], [7 * 240, 1 * 240]]


@pytest.mark.parametrize(("shift", "f1"), [(0, 1), (3, 1), (4, 0), (-3, 1), (-4, 0)])
def test_boundary_is_matched_up_to_the_tolerance(shift, f1):
    counts = count_photo(halves(160), halves(160 + shift), None, 2)
    assert counts.boundary_f1.tolist() == [f1, f1]
    assert counts.boundary[:, [1, 3]].tolist() == [[240, 240], [240, 240]]


def test_boundary_of_an_edge_that_is_right_in_its_upper_half():
    prediction = halves(160)
    prediction[120:] = halves(180)[120:]
    counts = count_photo(halves(160), prediction, None, 2)
    # Class 0, predicted: 120 pixels above, 120 below, 19 more along the step; of these match the
    # 120 above and the 3 of the step in columns 160 to 162. True: rows 0 to 119 and the next 3.
    assert counts.boundary[0].tolist() == [123, 259, 123, 240]
    assert counts.boundary_f1[0] == pytest.approx(2 * 123 / (259 + 240))


def test_truth_and_prediction_are_alike_to_the_boundary():
    a, b = (np.clip(blobs(seed, 60, 80, classes=3)[1], 0, 2) for seed in (4, 5))
    there, back = count_photo(a, b, None, 3), count_photo(b, a, None, 3)
    assert there.boundary[:, [2, 3, 0, 1]].tolist() == back.boundary.tolist()
    assert there.boundary[:, 0].tolist() != there.boundary[:, 2].tolist()


def test_small_photos_still_match_the_next_pixel():
    near = count_photo(halves(4, 8, 8), halves(5, 8, 8), None, 2)
    far = count_photo(halves(4, 8, 8), halves(6, 8, 8), None, 2)
    assert near.boundary_f1.tolist() == [1, 1]
    assert far.boundary_f1.tolist() == [0, 0]


def test_unlabelled_surroundings_change_nothing():
    truth, prediction, confidence = blobs(6, 240, 320, classes=3)
    padded = count_photo(
        np.pad(truth, 2, constant_values=UNLABELLED),  # the tolerance stays between 3 and 4
        np.pad(prediction, 2, constant_values=2),
        np.pad(confidence, 2, constant_values=0.7),
        3,
    )
    assert_same(padded, count_photo(truth, prediction, confidence, 3))


def test_prediction_under_255_counts_nowhere():
    truth, prediction, confidence = blobs(7, 40, 40, classes=3)
    changed = np.where(truth == UNLABELLED, 2 - prediction, prediction)
    assert (changed != prediction).any()
    assert_same(
        count_photo(truth, changed, confidence, 3), count_photo(truth, prediction, confidence, 3)
    )


def test_neither_255_nor_the_photos_edge_is_a_boundary():
    truth = np.full((40, 40), UNLABELLED, np.uint8)
    truth[:, :10], truth[:, 30:] = 0, 1
    counts = count_photo(truth, np.ones_like(truth), None, 2)
    assert not counts.trimap.any()
    assert not counts.boundary_present.any()
    assert counts.confusion.tolist() == [[0, 400], [0, 400]]


def test_class_that_fills_the_photo_is_scored_only_if_the_prediction_cuts_it():
    truth = np.zeros((40, 40), np.uint8)
    cut = truth.copy()
    cut[10:20, 10:20] = 1
    whole = count_photo(truth, truth, None, 3)
    wrong = count_photo(truth, cut, None, 3)
    assert whole.boundary_present.tolist() == [False, False, False]
    assert wrong.boundary_present.tolist() == [True, False, False]
    assert wrong.boundary_f1.tolist() == [0, 0, 0]
    assert wrong.boundary[0].tolist() == [0, 40, 0, 0]


def test_missed_class_has_a_boundary_f1_of_0():
    truth = np.zeros((40, 40), np.uint8)
    truth[10:20, 10:20] = 1
    counts = count_photo(truth, np.zeros_like(truth), None, 2)
    assert counts.boundary_present.tolist() == [True, True]
    assert counts.boundary_f1.tolist() == [0, 0]
    assert counts.boundary.tolist() == [[0, 0, 0, 40], [0, 0, 0, 36]]


def test_confidence_bins_and_their_bounds():
    confidence = np.array([[0, 0.05, 0.5, 1.0, 0.9999996, 1 / 15, 0.2]])
    truth = np.array([[0, 0, 0, 0, 0, 1, UNLABELLED]])
    calibration = count_photo(truth, np.zeros((1, 7), int), confidence, 2).calibration
    expected = {0: [2, 2, 50_000], 1: [1, 0, 66_667], 7: [1, 1, 500_000], 14: [2, 2, 2_000_000]}
    assert calibration.tolist() == [expected.get(b, [0, 0, 0]) for b in range(15)]


def test_confidences_of_half_precision_softmax_may_exceed_1_by_a_rounding_and_nan_may_not():
    ones = np.full((2, 2), 1.001, np.float16)
    zeros = np.zeros((2, 2), np.uint8)
    assert count_photo(zeros, zeros, ones, 2).calibration[14].tolist() == [4, 4, 4_000_000]
    for bad in (np.nan, 1.1, -0.1):
        with pytest.raises(AssertionError, match="0 to 1"):
            count_photo(zeros, zeros, np.full((2, 2), bad), 2)


def test_photo_of_more_than_one_chunk(monkeypatch):
    photo = blobs(8, 50, 70, classes=5)
    whole = count_photo(*photo, 5)
    assert whole.confusion.sum() == (photo[0] != UNLABELLED).sum()
    monkeypatch.setattr("segment.metrics.photo.CHUNK", 333)
    assert_same(count_photo(*photo, 5), whole)


def test_dtype_of_the_maps_does_not_matter():
    truth, prediction, confidence = blobs(9, 40, 50, classes=3)
    assert_same(
        count_photo(truth.astype(np.int64), prediction.astype(np.int32), confidence, 3),
        count_photo(truth, prediction.astype(np.uint8), confidence, 3),
    )


def test_json_round_trip_is_exact_and_small():
    truth, prediction, confidence = blobs(10, 400, 400, classes=7, block=40)
    prediction[prediction == 3] = 8  # 3 is in the truth alone, 8 in the prediction, 7 in neither
    counts = count_photo(truth, prediction, confidence, 9)
    line = json.dumps(counts.to_json())
    assert len(line) < 5000
    assert_same(PhotoCounts.from_json(json.loads(line)), counts)
    for field in (counts.confusion, counts.trimap, counts.boundary, counts.calibration):
        assert field.any()


@pytest.mark.parametrize("wrong", [3, 254, -1])
def test_refuses_a_mask_with_an_unknown_class(wrong):
    truth = np.array([[0, UNLABELLED, wrong]])
    with pytest.raises(ValueError, match=rf"train id {wrong}, but there are 3 classes, 0 to 2"):
        count_photo(truth, np.zeros((1, 3), int), None, 3)


@pytest.mark.parametrize("wrong", [3, UNLABELLED, -1])
def test_predictions_are_classes(wrong):
    with pytest.raises(AssertionError):
        count_photo(np.zeros((1, 2), int), np.array([[0, wrong]]), None, 3)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_photo_without_pixels_counts_nothing(shape):
    counts = count_photo(np.zeros(shape, int), np.zeros(shape, int), np.zeros(shape), 2)
    assert_same(counts, PhotoCounts.from_json({**counts.to_json(), "confusion": []}))
    assert not counts.confusion.any()
