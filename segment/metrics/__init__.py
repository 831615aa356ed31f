"""Scores: `count_photo` counts one photo, `SegmentationScores` sums and divides."""

from segment.metrics.boundaries import UNLABELLED
from segment.metrics.photo import CALIBRATION_BINS, TRIMAP_WIDTHS, PhotoCounts, count_photo
from segment.metrics.scores import (
    Scores,
    SegmentationScores,
    Totals,
    scores_from_counts,
    scores_from_totals,
)

__all__ = [
    "CALIBRATION_BINS",
    "TRIMAP_WIDTHS",
    "UNLABELLED",
    "PhotoCounts",
    "Scores",
    "SegmentationScores",
    "Totals",
    "count_photo",
    "scores_from_counts",
    "scores_from_totals",
]
