"""Scores of a whole set of photos, from summed counts.

Every sum is one of 64-bit whole numbers, so neither the order of the photos nor the number of
processes changes a digit, and memory does not grow with the photos. int64 also works where float64
does not (MPS).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from segment.metrics.boundaries import UNLABELLED, IntArray
from segment.metrics.photo import (
    CALIBRATION_BINS,
    CONFIDENCE_UNIT,
    TRIMAP_WIDTHS,
    PhotoCounts,
)

F1_UNIT = 1_000_000_000  # a photo's F1 is a ratio: summed in billionths, in whole numbers


class Scores(TypedDict):
    """Ready for JSON. Scores are 0 to 1, higher is better but for `ece`; None is undefined.

    IoU and dice of a class come from the one summed matrix and are None if it is neither in the
    truth nor predicted; accuracy is None if it is not in the truth. Means leave out the None.

    Attributes:
        confusion: Pixels of true class (row) predicted as class (column), C x C.
        miou: Mean of `iou`.
        miou_foreground: The same without the background; without a background, `miou`.
        pixel_accuracy: Share of the pixels that are right.
        mean_accuracy: Mean of `accuracy`.
        fw_iou: Mean of `iou`, each class weighted by its true pixels.
        dice: Mean over classes of 2 * intersection / (truth + prediction).
        iou: By class.
        accuracy: Share of the class's true pixels that are right, by class.
        boundary_f1: Csurka et al., BMVC 2013: mean over classes within a photo, then over photos.
        boundary_f1_by_class: Mean over the photos in which the class has one.
        trimap_miou: mIoU near true label changes, by half-width of the band in pixels.
        calibration: `ece`, the expected calibration error (Guo et al., ICML 2017), and its `bins`.
    """

    confusion: list[list[int]]
    miou: float | None
    miou_foreground: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    fw_iou: float | None
    dice: float | None
    iou: list[float | None]
    accuracy: list[float | None]
    boundary_f1: float | None
    boundary_f1_by_class: list[float | None]
    trimap_miou: dict[str, float | None]
    calibration: dict[str, Any]


class Totals(NamedTuple):
    """What is summed over photos; `Totals.of` a photo, then add field by field.

    A bootstrap stacks each field over the photos once, (P, ...), and gets a resample as
    `np.tensordot(times_drawn, field, 1)`.

    Attributes:
        confusion: As in `PhotoCounts`, int64 (C, C).
        trimap: As in `PhotoCounts`, int64 (6, 3, C).
        boundary: F1 in billionths and number of photos that have one, by class; the last row is
            the photos' own means, int64 (C + 1, 2).
        calibration: As in `PhotoCounts`, int64 (15, 3).
    """

    confusion: IntArray
    trimap: IntArray
    boundary: IntArray
    calibration: IntArray

    @staticmethod
    def zeros(num_classes: int) -> "Totals":
        """The totals of no photo."""
        return Totals(
            confusion=np.zeros((num_classes, num_classes), np.int64),
            trimap=np.zeros((len(TRIMAP_WIDTHS), 3, num_classes), np.int64),
            boundary=np.zeros((num_classes + 1, 2), np.int64),
            calibration=np.zeros((CALIBRATION_BINS, 3), np.int64),
        )

    @staticmethod
    def of(counts: PhotoCounts) -> "Totals":
        """The totals of one photo."""
        present = counts.boundary_present
        boundary = np.zeros((len(present) + 1, 2), np.int64)
        if present.any():
            f1 = counts.boundary_f1
            boundary[:-1, 0] = np.rint(f1 * F1_UNIT)
            boundary[:-1, 1] = present
            boundary[-1] = np.rint(f1[present].mean() * F1_UNIT), 1
        return Totals(counts.confusion, counts.trimap, boundary, counts.calibration)


class SegmentationScores(Metric):
    """Sums the counts of photos, over processes too, and computes their `Scores`.

    Args:
        num_classes: Number of classes C, background included.
        background: The background's train id, None where the taxonomy has none.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    confusion: Tensor
    trimap: Tensor
    boundary: Tensor
    calibration: Tensor

    def __init__(self, num_classes: int, background: int | None) -> None:
        super().__init__()
        assert background is None or 0 <= background < num_classes, (background, num_classes)
        self.num_classes = num_classes
        self.background = background
        for name, zeros in Totals.zeros(num_classes)._asdict().items():
            self.add_state(name, torch.from_numpy(zeros), dist_reduce_fx="sum")

    def update(self, counts: PhotoCounts | Tensor) -> None:
        """Add one photo's counts, or no more than a confusion matrix, int64 (C, C)."""
        if isinstance(counts, Tensor):
            assert counts.dtype == torch.int64, counts.dtype  # a float would round
            self.confusion = self.confusion + counts.to(self.confusion.device)
            return
        assert len(counts.confusion) == self.num_classes, counts.confusion.shape
        for name, value in Totals.of(counts)._asdict().items():
            state = getattr(self, name)
            # Not in place: a state reset in inference mode could not be changed outside of it.
            setattr(self, name, state + torch.from_numpy(value).to(state.device))

    def update_confusion(self, prediction: Tensor, mask: Tensor) -> None:
        """Add a batch to the confusion matrix alone, on the batch's device.

        Args:
            prediction: Logits, float (N, C, H, W), or train ids, integer (N, H, W).
            mask: Train ids or 255, integer (N, H, W).

        Raises:
            ValueError: The mask has an id that is neither a class nor 255.
        """
        classes = self.num_classes
        if prediction.is_floating_point():
            assert prediction.shape[1] == classes, (prediction.shape, classes)
            prediction = prediction.argmax(dim=1)
        assert prediction.shape == mask.shape, (prediction.shape, mask.shape)
        mask, prediction = mask.long(), prediction.long()
        wrong = ((mask < 0) | (mask >= classes)) & (mask != UNLABELLED)
        outside = (prediction < 0) | (prediction >= classes)
        if (wrong | outside).any():  # one question, for each waits for the device
            assert not outside.any(), f"predicted train id {prediction[outside][0].item()}"
            raise ValueError(
                f"the mask has train id {mask[wrong][0].item()}, but there are {classes} classes, "
                f"0 to {classes - 1}; an unlabelled pixel is {UNLABELLED}. Check the taxonomy."
            )
        # Row C takes the unlabelled pixels.
        bins = mask.clamp(max=classes) * classes + prediction
        pixels = torch.bincount(bins.flatten(), minlength=(classes + 1) * classes)
        self.update(pixels.view(classes + 1, classes)[:-1])

    def compute(self) -> Scores:
        """The scores of everything added since the last reset."""
        totals = Totals(*(getattr(self, name).cpu().numpy() for name in Totals._fields))
        return scores_from_totals(totals, self.background)


def scores_from_counts(
    photos: Iterable[PhotoCounts], num_classes: int, background: int | None
) -> Scores:
    """The scores of some photos, without torch; equal to `SegmentationScores` to the last digit."""
    totals = Totals.zeros(num_classes)
    for counts in photos:
        for total, value in zip(totals, Totals.of(counts), strict=True):
            total += value
    return scores_from_totals(totals, background)


def scores_from_totals(totals: Totals, background: int | None) -> Scores:
    """Divide: the only place where counts become scores."""
    confusion = totals.confusion
    right, truth = confusion.diagonal(), confusion.sum(axis=1)
    union = truth + confusion.sum(axis=0) - right
    iou = _divide(right, union)
    accuracy = _divide(right, truth)
    foreground = np.arange(len(iou)) != (-1 if background is None else background)
    f1 = _divide(totals.boundary[:, 0], totals.boundary[:, 1] * F1_UNIT)
    return Scores(
        confusion=confusion.tolist(),
        miou=_mean(iou),
        miou_foreground=_mean(iou[foreground]),
        pixel_accuracy=_none(_divide(right.sum(), truth.sum())),
        mean_accuracy=_mean(accuracy),
        # A class without true pixels weighs nothing, even where its IoU is undefined.
        fw_iou=_none(_divide((truth * np.nan_to_num(iou)).sum(), truth.sum())),
        dice=_mean(_divide(2 * right, union + right)),
        iou=[_none(value) for value in iou],
        accuracy=[_none(value) for value in accuracy],
        boundary_f1=_none(f1[-1]),
        boundary_f1_by_class=[_none(value) for value in f1[:-1]],
        trimap_miou={
            str(width): _mean(_divide(both, true + predicted - both))
            for width, (both, true, predicted) in zip(TRIMAP_WIDTHS, totals.trimap, strict=True)
        },
        calibration=_calibration(totals.calibration),
    )


def _calibration(totals: IntArray) -> dict[str, Any]:
    """`ece` and, by bin, its bounds, pixels, accuracy and mean confidence."""
    pixels, correct, confidence = totals[:, 0], totals[:, 1], totals[:, 2] / CONFIDENCE_UNIT
    gaps = np.abs(correct - confidence).sum()  # the pixels of a bin, times its gap
    return {
        "ece": _none(_divide(gaps, pixels.sum())),
        "bins": [
            {
                "lower": b / CALIBRATION_BINS,
                "upper": (b + 1) / CALIBRATION_BINS,
                "pixels": int(pixels[b]),
                "accuracy": _none(_divide(correct[b], pixels[b])),
                "confidence": _none(_divide(confidence[b], pixels[b])),
            }
            for b in range(CALIBRATION_BINS)
        ],
    }


def _divide(numerator: Any, denominator: Any) -> NDArray[np.float64]:
    """The quotient, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def _none(value: NDArray[np.float64] | np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean of what is defined."""
    return None if np.isnan(values).all() else float(np.nanmean(values))
