"""Intervals hold the truth as often as they say, over many simulated evaluations.

400 simulations; an interval that covers at 95 % is inside 372 to 388 of 400 nineteen times of
twenty. A class of few photos, and with it mean IoU, is known to fall short (a ratio of skewed
sums), so those must reach 90 %, and none may be so wide that it always covers.
"""

import numpy as np
import pytest

from segment.bootstrap import MEASURES, Sums, measured
from segment.comparison.differences import Comparison, compare
from segment.comparison.runs import Run
from segment.metrics.scores import F1_UNIT

TIMES = 400


def run_of(name: str, sums: Sums, seed: int = 0, block: int = 1) -> Run:
    photos = len(sums.pixels)
    evaluation = {"classes": list("abc"), "background": None, "seed": seed, "experiment": name}
    evaluation |= {"checkpoint": "best.ckpt", "crf": None}
    config = {"model": {"name": name}, "data": {}}
    files = tuple(f"{photo // block}_{photo}" for photo in range(photos))
    named = f"{name} {seed}"
    return Run(None, named, evaluation, config, files, {"raw": sums}, np.zeros(photos))  # type: ignore[arg-type]


def sums_of(pixels: np.ndarray, f1: np.ndarray) -> Sums:
    return Sums(pixels, pixels, np.stack([np.rint(f1 * F1_UNIT), np.ones(len(f1))], 1))


def population(rng: np.random.Generator, gain: float, hard: np.ndarray, size: np.ndarray) -> Sums:
    """Photos, some harder than others; what is missed of a class is taken for the next one."""
    accuracy = 1 / (1 + np.exp(-(1 + 0.8 * hard + gain + rng.normal(0, 0.5, size.shape))))
    both = np.rint(size * accuracy)
    pixels = np.stack([both, size, both + np.roll(size - both, 1, 1)], 1)
    return sums_of(pixels, np.clip(0.5 + 0.1 * hard[:, 0] + 0.1 * gain, 0, 1))


@pytest.mark.parametrize("photos", [25, 80])
def test_intervals_over_photos_cover_the_truth(photos: int) -> None:
    rng = np.random.default_rng(photos)
    everything = 20_000
    hard = rng.normal(0, 1, (everything, 1))
    size = rng.integers(1000, 5000, (everything, 3)).astype(float)
    size[:, 2] *= (rng.random(everything) < 0.4) * rng.lognormal(0, 1, everything)  # the rare one
    sides = [population(rng, gain, hard, size) for gain in (0.3, 0.0)]
    whole = np.ones((1, everything))
    truth = np.subtract(*(measured(side.summed(whole), None)[0] for side in sides))
    covered = np.zeros((TIMES, len(truth)))
    for time in range(TIMES):
        drawn = rng.integers(0, everything, photos)
        runs = [
            run_of(name, Sums(*(field[drawn] for field in side)))
            for name, side in zip("ab", sides, strict=True)
        ]
        (found,) = compare(runs, draws=200, seed=time)
        sign = 1 if found.first.name.startswith("a") else -1
        covered[time] = (found.low <= sign * truth) & (sign * truth <= found.high)
    rates = dict(zip((*MEASURES, 0, 1, 2), covered.mean(0), strict=True))
    for steady in ("pixel_accuracy", 0, 1):
        assert 0.92 <= rates[steady] <= 0.98, rates
    for skewed in ("miou", "mean_accuracy", 2):
        assert 0.9 <= rates[skewed] <= 0.98, rates


@pytest.mark.parametrize(("blocks", "size"), [(20, 5), (8, 10)])
def test_intervals_over_blocks_cover_the_truth(blocks: int, size: int) -> None:
    """Boundary F1: photos of a block share most of what sets them apart; the truth is 0.05."""
    rng = np.random.default_rng(blocks)
    photos = blocks * size
    pixels = np.tile(np.full((3, 3), 10.0), (photos, 1, 1))
    f1 = MEASURES.index("boundary_f1")
    covered, alone = [], []
    for time in range(TIMES):
        hard = rng.normal(0.5, 0.1, photos)
        gain = 0.05 + np.repeat(rng.normal(0, 0.05, blocks), size) + rng.normal(0, 0.02, photos)
        runs = [
            run_of(name, sums_of(pixels, f1s), block=size)
            for name, f1s in (("a", hard + gain), ("b", hard))
        ]
        for group, rates in ((r"^\d+", covered), (None, alone)):
            (found,) = compare(runs, group, draws=200, seed=time)
            truth = 0.05 if found.first.name.startswith("a") else -0.05
            rates.append(found.low[f1] <= truth <= found.high[f1])
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.mean(alone) < 0.8  # what grouping is for


@pytest.mark.parametrize(("seeds", "spread"), [((2, 2), 0.03), ((3, 3), 0.03), ((4, 2), 0.01)])
def test_intervals_over_seeds_cover_the_truth(seeds: tuple[int, int], spread: float) -> None:
    """Boundary F1, a mean: a seed moves it by N(0, spread); experiments differ by 0.05."""
    rng = np.random.default_rng(seeds)
    photos = 30
    pixels = np.tile(np.full((3, 3), 10.0), (photos, 1, 1))
    f1 = MEASURES.index("boundary_f1")
    both, photos_alone = [], []
    for time in range(TIMES):
        hard = rng.normal(0.5, 0.1, photos)
        runs = [
            run_of(name, sums_of(pixels, hard + mean + rng.normal(0, spread) + noise), seed)
            for name, mean, number in (("a", 0.05, seeds[0]), ("b", 0.0, seeds[1]))
            for seed, noise in enumerate(rng.normal(0, 0.05, (number, photos)))
        ]
        found = compare(runs, draws=100, seed=time)
        for level, rates in (("experiments", both), ("checkpoints", photos_alone)):
            pair = next(c for c in found if c.level == level and _apart(c))
            truth = 0.05 if pair.first.name.startswith("a") else -0.05
            rates.append(pair.low[f1] <= truth <= pair.high[f1])
    assert 0.92 <= np.mean(both) <= 0.985
    # What the seeds are drawn for: photos alone say nothing of other trainings.
    assert np.mean(photos_alone) < np.mean(both)


def _apart(found: Comparison) -> bool:
    return found.first.name[0] != found.second.name[0]


def test_seeds_that_differ_widen_the_interval_and_equal_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    pixels, hard = np.tile(np.full((3, 3), 10.0), (30, 1, 1)), rng.uniform(0.3, 0.6, 30)
    widths = {}
    for spread in (0.0, 0.04):
        runs = [
            run_of(name, sums_of(pixels, hard + shift + rng.normal(0, 0.02, 30)), seed)
            for name in "ab"
            for seed, shift in enumerate((-spread, spread))
        ]
        found = compare(runs, draws=200)
        for level in ("experiments", "checkpoints"):
            pair = next(c for c in found if c.level == level and _apart(c))
            f1 = MEASURES.index("boundary_f1")
            widths[spread, level] = pair.high[f1] - pair.low[f1]
    # Two means of two seeds: deviation 0.04 sqrt(2) each, so an error of 0.04 sqrt(2) at least.
    assert widths[0.04, "experiments"] > 2 * 1.96 * 0.04 * 2**0.5
    assert widths[0.04, "experiments"] > 4 * widths[0.04, "checkpoints"]
    assert widths[0.0, "experiments"] < widths[0.0, "checkpoints"] * 1.2
