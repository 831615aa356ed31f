"""Which differences between runs are real: every pair, raw and refined, and refined against raw.

Photos: both sides are scored on the same draws of photos with replacement, or of blocks of photos
that belong together (a paired bootstrap, Efron and Tibshirani, "An Introduction to the Bootstrap",
1993), which gives the error of their difference. Seeds: where a side is an experiment of several
seeds, its score is their mean, and the variance of that mean over trainings is added; drawing one
seed fewer than there are, with replacement, comes to the same over all draws.

The interval is the difference plus and minus its error times Student's quantile. Degrees of
freedom are of Welch and Satterthwaite: photos that show a class, less one, and seeds, less one.
Quantiles of the draws themselves are too narrow for two seeds, for eight blocks or for a class of
ten photos, and tell no p-value below one over their number, which Holm's correction needs.
tests/comparison/test_coverage.py holds the intervals to their rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from tqdm import tqdm

from segment.bootstrap import (
    FEWEST_BLOCKS,
    LEVEL,
    MEASURES,
    blocks_showing,
    draw_blocks,
    measure_names,
    measured,
)
from segment.comparison.runs import KINDS, Run, by_photo_set
from segment.comparison.sides import Side, block_numbers, experiments, singles

Values = NDArray[np.float64]
REFINING = "refining"
OVER_CLASSES = ("miou", "miou_foreground", "mean_accuracy", "trimap_miou")


@dataclass(frozen=True, eq=False)
class Comparison:
    """One side minus another by measure (M,), in the order of `measure_names`.

    Attributes:
        level: `checkpoints` where both sides are single runs, `experiments` where sides are
            experiments with all of their seeds.
        kind: `raw` or `refined`: the labels of both sides; `refining`: refined minus raw labels of
            one side.
        first: The side that is higher on raw mIoU.
        second: The other; the same one where the kind is `refining`.
        classes: Names by train id.
        photos: Number of photos.
        blocks: Number of blocks of photos that are drawn as one.
        value: The difference; NaN where a class was never seen.
        low: Lower end of the 95 % interval; NaN where fewer than 6 blocks show the class.
        high: Upper end.
        p: Probability of so large a difference, either way, if there is none.
        holm: The same, corrected for `tests` comparisons of that measure (of IoU by class: of all
            classes).
        tests: Number of comparisons that were made of the measure.
    """

    level: str
    kind: str
    first: Side
    second: Side
    classes: tuple[str, ...]
    photos: int
    blocks: int
    value: Values
    low: Values
    high: Values
    p: Values
    holm: Values
    tests: NDArray[np.int64]

    def verdict(self, measure: int) -> int:
        """1 or -1 where a difference is shown after correction, else 0."""
        shown = self.holm[measure] < 1 - LEVEL
        return int(np.sign(self.value[measure])) if shown else 0


@dataclass(frozen=True, eq=False)
class Scored:
    """A side's labels of one kind: its measures (M,), on draws (B, M), and by seed (S, M)."""

    draws: Values
    seeds: Values


_Todo = tuple[Scored, Scored | None, str, Side, Side]


def compare(
    runs: Sequence[Run], group: str | None = None, draws: int = 2000, seed: int = 0
) -> list[Comparison]:
    """Every pair of runs, and of experiments where one has several seeds; and what refining does.

    Runs of other photos, true labels or classes than each other's are not compared.

    Args:
        runs: The runs.
        group: Regular expression for photos' file names; photos that agree in its first group, or
            in all that it matches, are drawn together. None: each photo is one.
        draws: Number of resamples.
        seed: Of the draws.

    Raises:
        ValueError: The expression is none, or does not match a photo.
    """
    found: list[Comparison] = []
    sets = by_photo_set(runs)
    # A set of single seeds has that level too where another has several: each is spoken of there.
    seeded = any(len(experiments(same)) < len(same) for same in sets)
    for same in sets:
        found += _compare(same, group, draws, seed, seeded)
    return _holm_corrected(found)


def _compare(
    runs: Sequence[Run], group: str | None, draws: int, seed: int, seeded: bool
) -> list[Comparison]:
    """Runs of the same photos."""
    blocks = block_numbers(runs[0].files, group)
    number = int(blocks.max()) + 1
    times = draw_blocks(number, draws, seed)
    whole = np.ones((1, number))
    scored: dict[tuple[str, str], Scored] = {}
    for run in tqdm(runs, desc="drawing photos", unit="run", delay=2, disable=None):
        for kind in run.kinds:
            sums = run.sums[kind].by_block(blocks)
            rows = [measured(sums.summed(rows), run.background) for rows in (times, whole)]
            scored[run.name, kind] = Scored(*rows)
    names = measure_names(len(runs[0].classes))
    showing = blocks_showing(runs[0].sums["raw"].by_block(blocks))
    levels = {"checkpoints": singles(runs)}
    if seeded:
        levels["experiments"] = experiments(runs)
    found = []
    for level, sides in levels.items():
        kinds = {side: [k for k in KINDS if all(k in r.kinds for r in side.runs)] for side in sides}
        by_side = {
            (side, kind): _together([scored[run.name, kind] for run in side.runs])
            for side in sides
            for kind in kinds[side]
        }
        order = sorted(
            sides, key=lambda side: -np.nan_to_num(by_side[side, "raw"].seeds[:, 0].mean())
        )
        pairs = [(a, b, kind) for a, b in combinations(order, 2) for kind in KINDS]
        todo: list[_Todo] = [
            (by_side[a, k], by_side[b, k], k, a, b)
            for a, b, k in pairs
            if k in kinds[a] and k in kinds[b]
        ]
        for side in order:
            if len(kinds[side]) == 2:
                raw, refined = (by_side[side, kind] for kind in KINDS)
                gain = Scored(refined.draws - raw.draws, refined.seeds - raw.seeds)
                todo.append((gain, None, REFINING, side, side))
        for ours, theirs, kind, first, second in todo:
            result = _interval(ours, theirs, number, showing)
            empty = np.full(len(names), np.nan), np.zeros(len(names), np.int64)
            labels = level, kind, first, second, tuple(runs[0].classes), len(blocks), number
            found.append(Comparison(*labels, *result, *empty))
    return found


def _together(seeds: Sequence[Scored]) -> Scored:
    draws = np.zeros_like(seeds[0].draws)
    for one in seeds:
        draws += one.draws / len(seeds)
    return Scored(draws, np.concatenate([one.seeds for one in seeds]))


def _interval(
    ours: Scored, theirs: Scored | None, blocks: int, showing: NDArray[np.int64]
) -> tuple[Values, Values, Values, Values]:
    """Difference, low, high and p by measure; theirs None: ours are differences already."""
    value, draws = ours.seeds.mean(0), ours.draws
    if theirs is not None:
        value, draws = value - theirs.seeds.mean(0), draws - theirs.draws
    # Of each part: its variance, and the degrees of freedom with which that is known.
    spread = _variance(draws) * blocks / max(1, blocks - 1)
    parts = [(spread, _freedom(draws, showing))]
    for side in (ours, theirs):
        if side is not None and len(side.seeds) > 1:
            number = len(side.seeds)
            known = np.full(len(value), number - 1.0)
            parts.append((side.seeds.var(0, ddof=1) / number, known))
    total = np.sum([variance for variance, _ in parts], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = total**2 / np.sum([each**2 / known for each, known in parts], axis=0)
        freedom = np.where(total > 0, freedom, 1)
        error = np.sqrt(total)
        p = 2 * student.sf(np.abs(value) / error, freedom)
    p = np.where(error > 0, p, np.where(value == 0, 1.0, 0.0))
    half = student.ppf((1 + LEVEL) / 2, freedom) * error
    told = (showing >= FEWEST_BLOCKS) & ~np.isnan(value) & ~np.isnan(total)
    low, high, p = (np.where(told, each, np.nan) for each in (value - half, value + half, p))
    return value, low, high, p


def _variance(draws: Values) -> Values:
    """By measure, of the draws in which it is defined; NaN where that is under half of them."""
    defined = ~np.isnan(draws)
    number = defined.sum(0)
    squares = (_deviations(draws) ** 2).sum(0) / np.maximum(1, number - 1)
    return np.where(2 * number >= len(draws), squares, np.nan)


def _deviations(draws: Values) -> Values:
    """Of each measure's draws from their mean; 0 where it is undefined."""
    defined = ~np.isnan(draws)
    mean = np.where(defined, draws, 0).sum(0) / np.maximum(1, defined.sum(0))
    return np.where(defined, draws - mean, 0)


def _freedom(draws: Values, showing: NDArray[np.int64]) -> Values:
    """Degrees of freedom of the photos' part, by measure.

    A mean over classes has those of the classes that it varies with, by their share in that.
    """
    freedom = np.maximum(1, showing - 1.0)
    iou = draws[:, len(MEASURES) :]
    deviations = _deviations(iou)
    with_mean = np.maximum(0, _deviations(draws[:, :1])[:, 0] @ deviations)
    if with_mean.sum() > 0:
        shares = with_mean / with_mean.sum()
        mean = 1 / (shares**2 / freedom[len(MEASURES) :]).sum()
        for name in OVER_CLASSES:
            freedom[MEASURES.index(name)] = min(mean, freedom[MEASURES.index(name)])
    return freedom


def holm(p: Values) -> Values:
    """P-values corrected so that with 95 % probability none is below 0.05 by chance alone.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979. NaN stays NaN and is no comparison.
    """
    corrected = np.full(len(p), np.nan)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return corrected


def _holm_corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """Each level and measure is a question of its own; IoU by class is one question."""
    done = list(found)
    for level in dict.fromkeys(one.level for one in found):
        places = [place for place, one in enumerate(found) if one.level == level]
        heads = np.stack([found[place].p[: len(MEASURES)] for place in places])
        heads_holm = np.stack([holm(column) for column in heads.T], 1)
        made = (~np.isnan(heads)).sum(0)
        classes = holm(np.concatenate([found[place].p[len(MEASURES) :] for place in places]))
        classes_made = int((~np.isnan(classes)).sum())
        start = 0
        for place, row in zip(places, heads_holm, strict=True):
            number = len(found[place].classes)
            corrected = np.concatenate([row, classes[start : start + number]])
            tests = np.concatenate([made, np.full(number, classes_made)])
            done[place] = replace(found[place], holm=corrected, tests=tests)
            start += number
    return done
