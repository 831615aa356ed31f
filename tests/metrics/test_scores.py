import json
import pickle

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from segment.metrics import (
    UNLABELLED,
    SegmentationScores,
    Totals,
    count_photo,
    scores_from_counts,
    scores_from_totals,
)

X = UNLABELLED
TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [X, 0, 1, 2]])
PREDICTION = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]])


def random_photos(count, classes=5, size=40):
    rng = np.random.default_rng(0)
    for _ in range(count):
        truth = rng.integers(0, classes, (5, 5)).repeat(size // 5, 0).repeat(size // 5, 1)
        prediction = np.roll(truth, 1, 0)
        truth[rng.random(truth.shape) < 0.1] = UNLABELLED
        yield count_photo(truth, prediction, rng.random(truth.shape), classes)


def scores_of(photos, classes=5, background=0):
    metric = SegmentationScores(classes, background)
    for counts in photos:
        metric.update(counts)
    return metric.compute()


def test_four_by_four_pixels_by_hand():
    confidence = np.where(TRUTH == PREDICTION, 0.9, 0.3)
    scores = scores_of([count_photo(TRUTH, PREDICTION, confidence, 4)], classes=4)
    assert scores["confusion"] == [[6, 1, 0, 0], [0, 7, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert scores["iou"] == [pytest.approx(6 / 7), pytest.approx(7 / 9), 0, None]
    assert scores["miou"] == pytest.approx((6 / 7 + 7 / 9) / 3)
    assert scores["miou_foreground"] == pytest.approx(7 / 9 / 2)
    assert scores["pixel_accuracy"] == pytest.approx(13 / 15)
    assert scores["accuracy"] == [pytest.approx(6 / 7), 1, 0, None]
    assert scores["mean_accuracy"] == pytest.approx((6 / 7 + 1) / 3)
    assert scores["fw_iou"] == pytest.approx((7 * 6 / 7 + 7 * 7 / 9 + 1 * 0) / 15)
    assert scores["dice"] == pytest.approx((12 / 13 + 14 / 16) / 3)
    # Within 1 pixel every boundary pixel of classes 0 and 1 has its match, class 2 has none.
    assert scores["boundary_f1_by_class"] == [1, 1, 0, None]
    assert scores["boundary_f1"] == pytest.approx(2 / 3)
    # Band 1 is columns 1 and 2 and the two pixels of class 2's upper border: 3 of 4 and 5 of 7.
    # Every other labelled pixel is less than 2 away.
    wide = dict.fromkeys(("2", "4", "8", "16", "32"), pytest.approx(scores["miou"]))
    assert scores["trimap_miou"] == {"1": pytest.approx((3 / 4 + 5 / 7) / 3), **wide}
    # 13 right at 0.9, 2 wrong at 0.3; 0.9 * 15 = 13.5 and 0.3 * 15 = 4.5.
    assert scores["calibration"]["ece"] == pytest.approx((13 * 0.1 + 2 * 0.3) / 15)
    bins = scores["calibration"]["bins"]
    assert [b["pixels"] for b in bins] == [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 13, 0]
    assert bins[4] == {
        "lower": 4 / 15,
        "upper": 5 / 15,
        "pixels": 2,
        "accuracy": 0,
        "confidence": pytest.approx(0.3),
    }
    assert bins[0]["accuracy"] is None


def test_matrix_is_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 8, (3, 20, 30), generator=generator)
    mask[mask == 7] = UNLABELLED
    logits = torch.randn(3, 7, 20, 30, generator=generator)
    reference = MulticlassConfusionMatrix(num_classes=7, ignore_index=UNLABELLED)(logits, mask)
    for prediction in (logits, logits.argmax(1), logits.argmax(1).to(torch.uint8)):
        metric = SegmentationScores(7, background=0)
        metric.update_confusion(prediction, mask.to(torch.uint8))
        assert metric.compute()["confusion"] == reference.tolist()


def test_training_path_has_the_scores_of_the_matrix_and_no_others():
    metric = SegmentationScores(4, background=0)
    metric.update_confusion(torch.from_numpy(PREDICTION)[None], torch.from_numpy(TRUTH)[None])
    quick, full = metric.compute(), scores_of([count_photo(TRUTH, PREDICTION, None, 4)], 4)
    for name in ("confusion", "miou", "miou_foreground", "iou", "accuracy", "fw_iou", "dice"):
        assert quick[name] == full[name]
    assert quick["boundary_f1"] is None
    assert set(quick["trimap_miou"].values()) == {None}
    assert full["boundary_f1"] is not None
    assert full["calibration"]["ece"] is None


def test_forgets_what_it_computed_when_more_comes():
    metric = SegmentationScores(2, background=None)
    right, wrong = torch.zeros(1, 2, 2, dtype=int), torch.ones(1, 2, 2, dtype=int)
    metric.update_confusion(right, right)
    assert metric.compute()["pixel_accuracy"] == 1
    metric.update_confusion(wrong, right)
    assert metric.compute()["pixel_accuracy"] == 0.5
    metric.reset()
    metric.update_confusion(wrong, right)
    assert metric.compute()["pixel_accuracy"] == 0


def test_without_a_background_every_class_is_foreground():
    photo = count_photo(TRUTH, PREDICTION, None, 4)
    scores = scores_of([photo], 4, background=None)
    assert scores["miou_foreground"] == scores["miou"]
    assert scores_of([photo], 4, background=2)["miou_foreground"] == pytest.approx(
        (6 / 7 + 7 / 9) / 2
    )


def test_class_that_is_only_predicted_has_an_iou_of_0_and_no_accuracy():
    truth = np.zeros((2, 2), int)
    scores = scores_of([count_photo(truth, truth + np.array([0, 1]), None, 3)], 3)
    assert scores["iou"] == [0.5, 0, None]
    assert scores["accuracy"] == [0.5, None, None]
    assert scores["miou"] == 0.25
    assert scores["mean_accuracy"] == 0.5
    assert scores["fw_iou"] == 0.5


@pytest.mark.parametrize("photos", [0, 1])
def test_nothing_labelled_is_none_everywhere_and_valid_json(photos):
    nothing = count_photo(np.full((4, 4), X), np.zeros((4, 4), int), np.ones((4, 4)), 2)
    scores = json.loads(json.dumps(scores_from_counts([nothing] * photos, 2, 0), allow_nan=False))
    assert scores.pop("confusion") == [[0, 0], [0, 0]]
    assert scores.pop("iou") == scores.pop("accuracy") == [None, None]
    assert scores.pop("boundary_f1_by_class") == [None, None]
    assert set(scores.pop("trimap_miou").values()) == {None}
    assert scores.pop("calibration")["ece"] is None
    assert set(scores.values()) == {None}
    assert len(scores) == 7


def test_boundary_f1_is_a_mean_over_photos_not_over_pixels():
    small = np.zeros((8, 8), int)
    small[:, 4:] = 1
    large = np.zeros((80, 80), int)
    large[:, 40:] = 1
    photos = [count_photo(small, small, None, 3), count_photo(large, 0 * large, None, 3)]
    scores = scores_of([*photos, count_photo(0 * large, 0 * large, None, 3)], 3)
    assert scores["boundary_f1"] == 0.5  # the third photo has no boundary
    assert scores["boundary_f1_by_class"] == [0.5, 0.5, None]


def test_order_and_processes_do_not_change_a_digit():
    photos = list(random_photos(12))
    whole = scores_of(photos)
    assert 0 < whole["boundary_f1"] < 1
    assert whole["calibration"]["ece"] > 0
    assert scores_of(photos[::-1]) == whole
    assert scores_from_counts(photos, 5, 0) == whole
    for split in (1, 5):
        first, second = SegmentationScores(5, 0), SegmentationScores(5, 0)
        for i, counts in enumerate(photos):
            (first if i % 7 < split else second).update(counts)
        parts = [dict(m.metric_state) for m in (first, second)]
        first.merge_state(second)
        assert first.compute() == whole
        # What torchmetrics does between processes: gather every state from all, then reduce.
        gathered = SegmentationScores(5, 0)
        gathered.update(photos[0])
        names = iter(Totals._fields)

        def gather(state, group, parts=parts, names=names):
            name = next(names)
            return [part[name] for part in parts]

        gathered.sync(dist_sync_fn=gather, distributed_available=lambda: True)
        assert (
            scores_from_totals(
                Totals(*(getattr(gathered, name).numpy() for name in Totals._fields)), 0
            )
            == whole
        )


def test_resamples_from_stacked_totals():
    photos = list(random_photos(4))
    times = [2, 0, 1, 1]
    stacked = Totals(*(np.stack(f) for f in zip(*map(Totals.of, photos), strict=True)))
    drawn = Totals(*(np.tensordot(times, field, 1) for field in stacked))
    again = [p for p, n in zip(photos, times, strict=True) for _ in range(n)]
    assert scores_from_totals(drawn, 0) == scores_from_counts(again, 5, 0)


def test_state_stays_as_large_as_it_was():
    metric = SegmentationScores(5, background=0)
    sizes = {name: value.shape for name, value in metric.metric_state.items()}
    for counts in random_photos(3):
        metric.update(counts)
    assert {name: value.shape for name, value in metric.metric_state.items()} == sizes


def test_counts_beyond_32_bits_and_float_precision_are_exact():
    many = 2**53 + 1  # no float64 is this number
    metric = SegmentationScores(2, background=0)
    metric.update(torch.tensor([[many, 1], [0, 2**31]]))
    metric.update(torch.tensor([[0, 1], [0, 2**31]]))
    scores = metric.compute()
    assert scores["confusion"] == [[many, 2], [0, 2**32]]
    assert scores["accuracy"] == [pytest.approx(1), 1]
    assert scores["iou"][1] == pytest.approx(2**32 / (2**32 + 2))


def test_half_precision_models_keep_whole_numbers():
    metric = torch.nn.ModuleList([SegmentationScores(2, 0)]).half()[0]
    metric.update_confusion(torch.zeros(1, 60, 60, dtype=int), torch.zeros(1, 60, 60, dtype=int))
    assert metric.compute()["confusion"] == [[3600, 0], [0, 0]]
    with pytest.raises(AssertionError, match="float"):
        metric.update(torch.ones(2, 2))


def test_reset_in_inference_mode_can_be_updated_outside():
    metric = SegmentationScores(4, 0)
    photo = count_photo(TRUTH, PREDICTION, None, 4)
    with torch.inference_mode():
        metric.reset()
    metric.update(photo)
    assert metric.compute() == scores_of([photo], 4)


def test_survives_pickling():
    metric = SegmentationScores(4, 0)
    metric.update(count_photo(TRUTH, PREDICTION, None, 4))
    copy = pickle.loads(pickle.dumps(metric))
    copy.update(count_photo(TRUTH, PREDICTION, None, 4))
    assert np.array(copy.compute()["confusion"]).sum() == 30
    assert np.array(metric.compute()["confusion"]).sum() == 15


@pytest.mark.parametrize("wrong", [4, 254, -1])
def test_refuses_a_mask_with_an_unknown_class(wrong):
    mask = torch.tensor([[[0, X, wrong]]])
    with pytest.raises(ValueError, match=rf"train id {wrong}, but there are 4 classes, 0 to 3"):
        SegmentationScores(4, 0).update_confusion(torch.zeros_like(mask), mask)


@pytest.mark.parametrize("wrong", [4, -1])
def test_predictions_are_classes(wrong):
    with pytest.raises(AssertionError, match=f"train id {wrong}"):
        SegmentationScores(4, 0).update_confusion(
            torch.tensor([[[0, wrong]]]), torch.tensor([[[0, X]]])
        )
    with pytest.raises(AssertionError):
        SegmentationScores(4, 0).update_confusion(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2))
