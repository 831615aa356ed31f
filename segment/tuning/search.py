"""Which parameters of the CRF score best: a search whose every trial is kept."""

import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from segment.bootstrap import measures, stacked, summed
from segment.crf import DenseCRF
from segment.crf.pool import WorkerPool
from segment.labels import labels_of
from segment.metrics import PhotoCounts, Totals, count_photo
from segment.tuning.cache import read_example

# Searched, as in DeepLab; the position kernel stays fixed. Ranges are those of DeepLab v1, section
# 5 (weight 5 to 10, 50 to 100 px, 3 to 10 levels), made wider: later presets lie below them.
Point = tuple[float, float, float]
SEARCHED = ("bilateral_weight", "bilateral_width_px", "bilateral_width_levels")
COARSE: tuple[tuple[float, ...], ...] = ((3.0, 5.0, 10.0), (30.0, 60.0, 100.0), (3.0, 6.0, 12.0))
PASCAL_SIDE = 500  # pixels of the longer side of the photos that these widths are for
STEPS = (math.sqrt(2), 2**0.25)  # of the finer rounds
LEVELS = 255.0  # all 8-bit levels: a wider kernel hardly tells colours apart any more
MOST_WEIGHT = 40.0  # four times the papers' most: few photos of one thing each ask for any
OBJECTIVES = ("miou", "boundary_f1", "trimap_miou")


class Trial(NamedTuple):
    """A point and its scores by name of the objective; the point None is the raw labels."""

    point: Point | None
    scores: dict[str, float]


class Task(NamedTuple):
    """A photo's file, what to refine it with, and the file of the photo whose edges guide."""

    path: Path
    crf: DenseCRF | None
    num_classes: int
    guide: Path


def _count(task: Task) -> PhotoCounts:
    example = read_example(task.path)
    maps = torch.from_numpy(example.probabilities)
    if task.crf is not None:
        photo = example.photo
        if task.guide != task.path:
            height, width = photo.shape[:2]
            other = read_example(task.guide).photo
            photo = cv2.resize(other, (width, height)).astype(np.uint8)
        maps = task.crf.at_working_size(*example.size)(torch.from_numpy(photo), maps)
    ids, confidence = labels_of(maps, example.truth.shape)
    return count_photo(example.truth, ids.numpy(), confidence.numpy(), task.num_classes)


Pool = WorkerPool[Task, PhotoCounts]


def pool_for(crf: DenseCRF, workers: int) -> Pool:
    """Workers that score photos with a CRF like this one."""
    return WorkerPool(_count, workers, crf.releases_lock)


def count_all(
    paths: Sequence[Path],
    crf: DenseCRF | None,
    num_classes: int,
    pool: Pool,
    guides: Sequence[Path] | None = None,
) -> Totals:
    """Score photos, refined or not; one row of totals for each.

    Args:
        paths: Their files.
        crf: The refinement; None scores the network's own labels.
        num_classes: Number of classes.
        pool: Who does it.
        guides: Files of the photos whose edges are followed; None is their own.
    """
    found: list[PhotoCounts] = []
    for path, guide in zip(paths, guides or paths, strict=True):
        found += pool.submit(Task(path, crf, num_classes, guide))
    found += pool.drain()
    return stacked(found)


TIMED = 5  # photos


def seconds_a_photo(paths: Sequence[Path], crf: DenseCRF) -> float:
    """Median seconds that refining a photo takes by itself, with every thread."""
    took = []
    for path in paths[:TIMED]:
        example = read_example(path)
        photo, maps = torch.from_numpy(example.photo), torch.from_numpy(example.probabilities)
        own = crf.at_working_size(*example.size)
        start = time.perf_counter()
        own(photo, maps)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


class Search:
    """Scores points on photos, each once: what is known from before is not done again.

    Args:
        crf: What every point starts from; its widths are for photos of `reference_size`.
        paths: Files of the photos.
        num_classes: Number of classes.
        background: Train id of the background, or None.
        known: File of the trials, one JSON a line; made if it is new.
        objective: One of `OBJECTIVES`.
        pool: Who scores the photos.
    """

    def __init__(
        self,
        crf: DenseCRF,
        paths: Sequence[Path],
        num_classes: int,
        background: int | None,
        known: Path,
        objective: str,
        pool: Pool,
    ) -> None:
        self.crf, self.paths, self.num_classes = crf, paths, num_classes
        self.background, self.known, self.objective = background, known, objective
        self.pool = pool
        self.trials = {trial.point: trial for trial in _read(known)}
        if known.exists() and not known.read_bytes().endswith(b"\n"):
            known.write_bytes(known.read_bytes() + b"\n")  # a killed process's half a line
        self.best: Trial | None = None  # of the points that this search came by
        self.told: Callable[[Trial, Trial | None], None] = lambda trial, best: None

    def at(self, point: Point) -> DenseCRF:
        """The CRF of a point."""
        fields: dict[str, Any] = dict(zip(SEARCHED, point, strict=True))
        return replace(self.crf, **fields)

    def score(self, point: Point | None) -> Trial:
        """Score a point, or find it among the trials."""
        if point not in self.trials:
            crf = None if point is None else self.at(point)
            totals = count_all(self.paths, crf, self.num_classes, self.pool)
            scores = measures(summed(totals), self.background)
            trial = Trial(point, {name: scores[name] for name in OBJECTIVES})
            with self.known.open("a") as file:
                file.write(json.dumps(trial._asdict()) + "\n")
            self.trials[point] = trial
        trial = self.trials[point]
        if point is not None and (self.best is None or self._value(trial) > self._value(self.best)):
            self.best = trial
        self.told(trial, self.best)
        return trial

    def _value(self, trial: Trial) -> float:
        value = trial.scores[self.objective]
        return -math.inf if math.isnan(value) else value

    def grid(self, reference_size: int) -> None:
        """Coarse to fine, as DeepLab does: a grid, then steps around its best while they help.

        What was tried before is looked up, in the same order: stopped anywhere, a search goes the
        same way again. The width in pixels stays within the photo's longer side, that in colour
        within 8 bits: beyond them a kernel hardly sees distance, or colour, at all. The weight
        stays within `MOST_WEIGHT`.
        """
        scale = reference_size / PASCAL_SIDE
        widest = (MOST_WEIGHT, float(reference_size), LEVELS)
        for weight, px, levels in itertools.product(*COARSE):
            self.score((weight, round(px * scale, 2), levels))
        for step in STEPS:
            centre = None
            while centre != self.best:
                centre = self.best
                assert centre is not None
                assert centre.point is not None
                for point in around(centre.point, step, widest):
                    self.score(point)

    def optuna(self, reference_size: int, trials: int, seed: int) -> None:
        """Let Optuna's sampler choose points in the same ranges, a factor 2 wider on both sides.

        Raises:
            ValueError: Optuna is not installed.
        """
        try:
            import optuna
        except ImportError as error:
            raise ValueError(
                "--method optuna: the package is not installed; pip install 'optuna>=4', or take "
                "--method grid."
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed)
        )
        scale = reference_size / PASCAL_SIDE
        scales = (1.0, scale, 1.0)

        def objective(trial: "optuna.Trial") -> float:
            weight, px, levels = (
                round(trial.suggest_float(name, by * min(row) / 2, by * max(row) * 2, log=True), 4)
                for name, row, by in zip(SEARCHED, COARSE, scales, strict=True)
            )
            return self._value(self.score((weight, px, levels)))

        # The sampler is seeded: resumed, it asks for the same points, which are known by then.
        study.optimize(objective, n_trials=trials)


def around(centre: Point, step: float, most: Point) -> Iterator[Point]:
    """A point's neighbours: each coordinate by a factor smaller and larger, up to `most`."""
    for axis in range(len(centre)):
        for factor in (1 / step, step):
            point = list(centre)
            point[axis] = min(round(point[axis] * factor, 4), most[axis])
            if point[axis] != centre[axis]:
                yield point[0], point[1], point[2]


def _read(path: Path) -> Iterator[Trial]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the line that a killed process was writing
            continue
        except UnicodeDecodeError:
            record = None
        try:
            point, scores = record["point"], record["scores"]
            known = {name: float(scores[name]) for name in OBJECTIVES}
            yield Trial(None if point is None else (point[0], point[1], point[2]), known)
        except (TypeError, KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"{path}: line {number} is no trial; delete the file, and the search starts over."
            ) from error
