"""What a difference between two scorings of the same photos is worth: a paired bootstrap.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: photos are drawn with
replacement, the same ones for both scorings, and both are scored on each draw. The interval speaks
of other photos like these, not of other trainings.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segment.metrics import PhotoCounts, Totals, scores_from_totals

LEVEL = 0.95
FEWEST_BLOCKS = 6  # draws from fewer are too much alike: their interval would be far too narrow
TRIMAP_WIDTH = "4"  # half-width in pixels of the band that `trimap_miou` is taken of


class Difference(NamedTuple):
    """After minus before, with its 95 % interval.

    All are NaN where a class was never seen, and the interval where there are under 6 blocks.
    """

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> int:
        """1 or -1 where the whole interval is on one side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def stacked(counts: Iterable[PhotoCounts]) -> Totals:
    """The totals of photos, one row per photo in each field."""
    totals = [Totals.of(one) for one in counts]
    return Totals(*(np.stack(field) for field in zip(*totals, strict=True)))


def measures(totals: Totals, background: int | None) -> dict[str, float]:
    """What is compared: `miou`, `boundary_f1`, `trimap_miou`, and `iou/<train id>` by class."""
    scores = scores_from_totals(totals, background)
    found = {
        "miou": scores["miou"],
        "boundary_f1": scores["boundary_f1"],
        "trimap_miou": scores["trimap_miou"][TRIMAP_WIDTH],
        **{f"iou/{train_id}": iou for train_id, iou in enumerate(scores["iou"])},
    }
    return {name: np.nan if value is None else value for name, value in found.items()}


def summed(totals: Totals, times: NDArray[np.integer] | None = None) -> Totals:
    """Stacked totals as one, each photo counted as often as `times` says."""
    if times is None:
        times = np.ones(len(totals.confusion), np.int64)
    return Totals(*(np.tensordot(times, field, 1) for field in totals))


def paired_bootstrap(
    before: Totals,
    after: Totals,
    background: int | None,
    blocks: NDArray[np.integer] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Difference]:
    """After minus before by measure, with its interval.

    Args:
        before: Stacked totals of photos.
        after: Those of the same photos, in the same order.
        background: Train id of the background, or None.
        blocks: Number of the block of each photo, from 0; photos of a block, such as frames of one
            drive, are drawn together. None: each photo is one.
        draws: Number of resamples.
        seed: Of the draws.
    """
    photos = len(before.confusion)
    assert len(after.confusion) == photos, (photos, len(after.confusion))
    if blocks is None:
        blocks = np.arange(photos)
    number = int(blocks.max()) + 1
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(number, np.full(number, 1 / number), size=draws)

    def gain(times: NDArray[np.integer] | None) -> dict[str, float]:
        old, new = (measures(summed(totals, times), background) for totals in (before, after))
        return {name: new[name] - old[name] for name in old}

    whole = gain(None)
    gains = [gain(times[blocks]) for times in drawn]
    found = {}
    for name, value in whole.items():
        values = np.array([one[name] for one in gains])
        values = values[~np.isnan(values)]  # draws without a photo of the class
        tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
        told = len(values) and number >= FEWEST_BLOCKS
        low, high = np.quantile(values, tails) if told else (np.nan, np.nan)
        found[name] = Difference(value, float(low), float(high))
    return found
