"""What one photo contributes to the scores: whole numbers, so that any order of adding is exact.

C classes, H x W pixels; 255 is unlabelled and counts nowhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.metrics.boundaries import (
    UNLABELLED,
    BoolMap,
    IntArray,
    LabelMap,
    find_edges,
    grow,
    match_boundaries,
)

TRIMAP_WIDTHS = (1, 2, 4, 8, 16, 32)  # pixels
CALIBRATION_BINS = 15  # Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, figure 4
CONFIDENCE_UNIT = 1_000_000  # confidences are summed in millionths, in whole numbers
CHUNK = 1 << 20  # pixels counted at a time: the 64-bit bin numbers of a whole photo take 100 MB


@dataclass(frozen=True, eq=False)
class PhotoCounts:
    """The counts of one photo.

    Attributes:
        confusion: Pixels of true class (row) predicted as class (column), int64 (C, C).
        trimap: Pixels within each of `TRIMAP_WIDTHS` of a true label change: intersection, truth,
            prediction, by class, int64 (6, 3, C). Wider bands contain the narrower ones.
        boundary: By class of the truth: matched predicted, predicted, matched true, true boundary
            pixels, int64 (C, 4); zeros for a class that the truth does not show.
        calibration: By bin of confidence: pixels, correct pixels, confidences summed in
            millionths, int64 (15, 3); zeros where no confidence was given.
    """

    confusion: IntArray
    trimap: IntArray
    boundary: IntArray
    calibration: IntArray

    @property
    def boundary_present(self) -> NDArray[np.bool_]:
        """Classes that have a boundary F1 in this photo, bool (C,).

        Those in the truth with a boundary there or in the prediction. A class that fills the photo
        has none in the truth: where the prediction leaves it whole there is nothing to score,
        where the prediction cuts into it, its F1 is 0.
        """
        return self.boundary[:, 1] + self.boundary[:, 3] > 0

    @property
    def boundary_f1(self) -> NDArray[np.float64]:
        """Boundary F1 by class, 0 to 1, float64 (C,); 0 where `boundary_present` is false."""
        matched_predicted, predicted, matched_true, true = self.boundary.T.astype(np.float64)
        # 2PR / (P + R) with P and R written out. Both matches are zero or neither is.
        numerator = 2 * matched_predicted * matched_true
        denominator = matched_predicted * true + matched_true * predicted
        return numerator / np.maximum(denominator, 1)

    def to_json(self) -> dict[str, Any]:
        """The counts as plain lists of what is not zero, for one line of JSON."""
        return {
            "classes": len(self.confusion),
            "confusion": [[*at, int(self.confusion[at])] for at in _nonzero(self.confusion)],
            "trimap": [
                [c, *self.trimap[:, :, c].ravel().tolist()]
                for (c,) in _nonzero(self.trimap[-1, 1] + self.trimap[-1, 2])
            ],
            "boundary": [
                [c, *self.boundary[c].tolist()] for (c,) in _nonzero(self.boundary.sum(axis=1))
            ],
            "calibration": [
                [b, *self.calibration[b].tolist()] for (b,) in _nonzero(self.calibration[:, 0])
            ],
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "PhotoCounts":
        """The counts that `to_json` wrote."""
        counts = _zeros(record["classes"])
        for truth, prediction, pixels in record["confusion"]:
            counts.confusion[truth, prediction] = pixels
        for c, *row in record["trimap"]:
            counts.trimap[:, :, c] = np.reshape(row, counts.trimap.shape[:2])
        for c, *row in record["boundary"]:
            counts.boundary[c] = row
        for b, *row in record["calibration"]:
            counts.calibration[b] = row
        return counts


def count_photo(
    truth: NDArray[np.integer[Any]],
    prediction: NDArray[np.integer[Any]],
    confidence: NDArray[np.floating[Any]] | None,
    num_classes: int,
) -> PhotoCounts:
    """Count one photo.

    The trimap follows Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with
    Gaussian Edge Potentials", NIPS 2011, section 5, and DeepLab. An edge pixel has a 4-neighbour of
    another label, both labelled; band w holds the pixels nearer than w pixels (Euclidean, between
    pixel centres) to an edge pixel, so band 1 is the two lines of pixels along a label change.

    The boundary follows Csurka et al., "What is a good evaluation measure for semantic
    segmentation?", BMVC 2013: the boundary of a class is its own edge pixels, and one is matched if
    the other map has a boundary pixel of that class within 0.75 % of the photo's diagonal. Here
    never under 1 pixel, which only photos of a diagonal under 133 pixels notice. Predictions
    on unlabelled pixels are taken as unlabelled; neither 255 nor the photo's edge makes a boundary.

    Args:
        truth: Train ids or 255, (H, W).
        prediction: Train ids, (H, W).
        confidence: Probability of the predicted class, 0 to 1, float (H, W), or None.
        num_classes: Number of classes C, background included, at most 255.

    Raises:
        ValueError: The truth has an id that is neither a class nor 255.
    """
    assert truth.ndim == 2, truth.shape
    assert truth.shape == prediction.shape, (truth.shape, prediction.shape)
    assert 0 < num_classes <= UNLABELLED, num_classes
    wrong = truth[((truth < 0) | (truth >= num_classes)) & (truth != UNLABELLED)]
    if wrong.size:
        raise ValueError(
            f"the mask has train id {wrong[0]}, but there are {num_classes} classes, 0 to "
            f"{num_classes - 1}; an unlabelled pixel is {UNLABELLED}. Check the taxonomy."
        )
    counts = _zeros(num_classes)
    if truth.size == 0:
        return counts
    assert prediction.min() >= 0, prediction.min()
    assert prediction.max() < num_classes, (prediction.max(), num_classes)

    true, predicted = truth.astype(np.uint8), prediction.astype(np.uint8)
    true_edges = find_edges(true)
    _count_pixels(counts, true, predicted, _bands(true_edges))
    classes = np.flatnonzero(counts.confusion.any(axis=1))
    counts.boundary[:] = match_boundaries(true, predicted, true_edges, classes, num_classes)
    if confidence is not None:
        assert confidence.shape == truth.shape, (confidence.shape, truth.shape)
        _count_confidences(counts, true, predicted, confidence)
    return counts


def _zeros(num_classes: int) -> PhotoCounts:
    return PhotoCounts(
        confusion=np.zeros((num_classes, num_classes), np.int64),
        trimap=np.zeros((len(TRIMAP_WIDTHS), 3, num_classes), np.int64),
        boundary=np.zeros((num_classes, 4), np.int64),
        calibration=np.zeros((CALIBRATION_BINS, 3), np.int64),
    )


def _nonzero(array: NDArray[Any]) -> list[tuple[int, ...]]:
    return [tuple(at) for at in np.argwhere(array).tolist()]


def _bands(edges: BoolMap) -> LabelMap:
    """Index of the narrowest trimap band of every pixel, 6 for outside all, uint8 (H, W)."""
    band = np.zeros(edges.shape, np.uint8)
    for width in TRIMAP_WIDTHS:
        # Nearer than the width: squared distances are whole numbers, so at most width**2 - 1.
        band += grow(edges.view(np.uint8), width**2 - 1) ^ 1
    return band


def _count_pixels(
    counts: PhotoCounts,
    truth: LabelMap,
    prediction: LabelMap,
    band: LabelMap,
) -> None:
    """Fill in `confusion` and `trimap` from one count of (band, truth, prediction)."""
    classes, bands = len(counts.confusion), len(TRIMAP_WIDTHS) + 1
    shape = (bands, classes + 1, classes)  # row C takes the unlabelled pixels
    joint = np.zeros(np.prod(shape), np.int64)
    for part in _chunks(truth.size):
        bins = band.ravel()[part].astype(np.int64)
        bins *= classes + 1
        bins += np.minimum(truth.ravel()[part], classes)
        bins *= classes
        bins += prediction.ravel()[part]
        joint += np.bincount(bins, minlength=joint.size)
    rings = joint.reshape(shape)[:, :-1]
    counts.confusion[:] = rings.sum(axis=0)
    within = rings.cumsum(axis=0)[:-1]
    counts.trimap[:, 0] = within.diagonal(axis1=1, axis2=2)
    counts.trimap[:, 1] = within.sum(axis=2)
    counts.trimap[:, 2] = within.sum(axis=1)


def _count_confidences(
    counts: PhotoCounts,
    truth: LabelMap,
    prediction: LabelMap,
    confidence: NDArray[np.floating[Any]],
) -> None:
    """Fill in `calibration`; a bin holds its lower bound, the last one both of its bounds."""
    totals = np.zeros((CALIBRATION_BINS, 3), np.int64)
    for part in _chunks(truth.size):
        true = truth.ravel()[part]
        labelled = true != UNLABELLED
        value = confidence.ravel()[part][labelled].astype(np.float64)
        # Softmax in half precision may exceed 1 by a rounding; NaN fails here.
        assert ((value > -0.01) & (value < 1.01)).all(), "confidences must be 0 to 1"
        value = value.clip(0, 1)
        bins = np.minimum((value * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        correct = true[labelled] == prediction.ravel()[part][labelled]
        totals[:, 0] += np.bincount(bins, minlength=CALIBRATION_BINS)
        totals[:, 1] += np.bincount(bins[correct], minlength=CALIBRATION_BINS)
        # Whole numbers below 2**53: exact as float64, in any order.
        millionths = np.rint(value * CONFIDENCE_UNIT)
        totals[:, 2] += np.bincount(bins, millionths, CALIBRATION_BINS).astype(np.int64)
    counts.calibration[:] = totals


def _chunks(size: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, size, CHUNK)]
