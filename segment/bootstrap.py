"""What a difference between two scorings of the same photos is worth: a paired bootstrap.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: photos are drawn with
replacement, the same ones for both scorings, and both are scored on each draw. The interval speaks
of other photos like these, not of other trainings.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segment.metrics import TRIMAP_WIDTHS, PhotoCounts, Totals, scores_from_totals
from segment.metrics.scores import F1_UNIT

LEVEL = 0.95
FEWEST_BLOCKS = 6  # draws from fewer are too much alike: their interval would be far too narrow
MEASURES = (
    "miou",
    "miou_foreground",
    "mean_accuracy",
    "pixel_accuracy",
    "boundary_f1",
    "trimap_miou",
)
TRIMAP_WIDTH = "4"  # half-width in pixels of the band that `trimap_miou` is taken of


class Difference(NamedTuple):
    """After minus before, with its 95 % interval.

    All are NaN where a class was never seen, and the interval where under 6 blocks show it.
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
    """What is compared: `MEASURES`, and `iou/<train id>` by class."""
    scores: dict[str, Any] = dict(scores_from_totals(totals, background))
    scores["trimap_miou"] = scores["trimap_miou"][TRIMAP_WIDTH]
    found = {name: scores[name] for name in MEASURES}
    found |= {f"iou/{train_id}": iou for train_id, iou in enumerate(scores["iou"])}
    return {name: np.nan if value is None else value for name, value in found.items()}


def summed(totals: Totals, times: NDArray[np.integer] | None = None) -> Totals:
    """Stacked totals as one, each photo counted as often as `times` says."""
    if times is None:
        times = np.ones(len(totals.confusion), np.int64)
    return Totals(*(np.tensordot(times, field, 1) for field in totals))


class Sums(NamedTuple):
    """What of `Totals` the measures need, with any leading axes: photos, blocks, or draws.

    Attributes:
        pixels: Intersection, truth and prediction by class, (..., 3, C).
        trimap: The same within `TRIMAP_WIDTH` of a true label change, (..., 3, C).
        boundary: Photos' boundary F1 in billionths, and photos that have one, (..., 2).
    """

    pixels: NDArray[Any]
    trimap: NDArray[Any]
    boundary: NDArray[Any]

    @staticmethod
    def of(totals: Totals) -> "Sums":
        """From totals with any leading axes."""
        confusion = totals.confusion
        both = np.diagonal(confusion, axis1=-2, axis2=-1)
        pixels = np.stack([both, confusion.sum(-1), confusion.sum(-2)], -2)
        width = TRIMAP_WIDTHS.index(int(TRIMAP_WIDTH))
        return Sums(pixels, totals.trimap[..., width, :, :], totals.boundary[..., -1, :])

    def summed(self, times: NDArray[Any]) -> "Sums":
        """Rows (P, ...) added up for every row of `times` (draws, P): (draws, ...).

        In float64, whose whole numbers are exact below 2**53 and faster than int64's.
        """
        rows = [np.reshape(field, (len(field), -1)).astype(np.float64) for field in self]
        widths = np.cumsum([row.shape[1] for row in rows])[:-1]
        parts = np.split(times.astype(np.float64) @ np.hstack(rows), widths, axis=1)
        pairs = zip(parts, self, strict=True)
        return Sums(*(part.reshape(len(times), *field.shape[1:]) for part, field in pairs))

    def by_block(self, blocks: NDArray[np.integer]) -> "Sums":
        """Photos of a block as one row; `blocks` as in `paired_bootstrap`."""
        found = [np.zeros((int(blocks.max()) + 1, *field.shape[1:])) for field in self]
        for total, field in zip(found, self, strict=True):
            np.add.at(total, blocks, field)
        return Sums(*found)


def measure_names(classes: int) -> list[str]:
    """The order of `measured`."""
    return [*MEASURES, *(f"iou/{train_id}" for train_id in range(classes))]


def measured(sums: Sums, background: int | None) -> NDArray[np.float64]:
    """Measures of each row by `measure_names`, (..., 6 + C); NaN where one is undefined.

    `scores_from_totals` for many rows at a time.
    """
    iou = _iou(sums.pixels)
    both, truth = sums.pixels[..., 0, :], sums.pixels[..., 1, :]
    objects = np.arange(iou.shape[-1]) != (-1 if background is None else background)
    columns = [
        _mean(iou),
        _mean(iou[..., objects]),
        _mean(_divide(both, truth)),
        _divide(both.sum(-1), truth.sum(-1)),
        _divide(sums.boundary[..., 0], sums.boundary[..., 1] * F1_UNIT),
        _mean(_iou(sums.trimap)),
    ]
    return np.concatenate([np.stack(columns, -1), iou], -1)


def blocks_showing(sums: Sums) -> NDArray[np.int64]:
    """Blocks (rows of `sums`) that have what a measure is of, by `measure_names`.

    A class, a boundary, a label change: where few have one, draws are too much alike.
    """
    number = len(sums.pixels)
    found = dict.fromkeys(MEASURES, number)
    found["boundary_f1"] = int((sums.boundary[:, 1] > 0).sum())
    found["trimap_miou"] = int((sums.trimap[:, 1].sum(-1) > 0).sum())
    return np.array([*found.values(), *(sums.pixels[:, 1] > 0).sum(0)])


def draw_blocks(blocks: int, draws: int, seed: int) -> NDArray[np.integer]:
    """How often each block is drawn with replacement, int (draws, blocks)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)


def paired_bootstrap(
    before: Totals,
    after: Totals,
    background: int | None,
    blocks: NDArray[np.integer] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Difference]:
    """After minus before by measure, with its interval: quantiles of the draws.

    Of few blocks that is too narrow. In 600 simulations of a mean's gain it held the truth in 86 %
    with 6 blocks, 89 % with 8 and 10, 92 % with 20, 95 % with 50. Reports take Student's quantile
    instead (`segment.comparison.differences`).

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
    drawn = draw_blocks(number, draws, seed)
    sums = [Sums.of(totals) for totals in (before, after)]
    whole = np.ones((1, photos))
    old, new = (measured(one.summed(whole), background)[0] for one in sums)
    ours, theirs = (measured(one.by_block(blocks).summed(drawn), background) for one in sums)
    found = {}
    names = measure_names(before.confusion.shape[-1])
    showing = blocks_showing(sums[0].by_block(blocks))
    rows = zip(names, new - old, (theirs - ours).T, showing, strict=True)
    for name, value, values, shown in rows:
        values = values[~np.isnan(values)]  # draws without a photo of the class
        tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
        told = len(values) and shown >= FEWEST_BLOCKS
        low, high = np.quantile(values, tails) if told else (np.nan, np.nan)
        found[name] = Difference(float(value), float(low), float(high))
    return found


def _divide(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    return np.divide(
        numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator != 0
    )


def _iou(counts: NDArray[Any]) -> NDArray[np.float64]:
    both, truth, predicted = np.moveaxis(counts, -2, 0)
    return _divide(both, truth + predicted - both)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over classes of what is defined."""
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0).sum(-1), defined.sum(-1))
