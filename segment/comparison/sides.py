"""What is compared: single runs, and experiments with all of their seeds; and blocks of photos."""

import copy
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.comparison.runs import Run
from segment.crf import DenseCRF

# What does not make another experiment: where a run lies, and what it shows while it trains.
_ASIDE = ("default_root_dir", "logger", "enable_progress_bar", "log_every_n_steps", "num_nodes")


@dataclass(frozen=True, eq=False)
class Side:
    """What is compared: a run, or the runs of one experiment with other seeds."""

    name: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> int:
        """How many trainings speak for it."""
        return len(self.runs)


def singles(runs: Sequence[Run]) -> list[Side]:
    """Each run by itself."""
    return [Side(run.name, (run,)) for run in runs]


def experiments(runs: Sequence[Run]) -> list[Side]:
    """Runs with the same settings but for the seed as one side each.

    A second run of the same settings and the same seed stands alone: it is no other draw of chance.
    """
    sides: dict[str, list[Run]] = {}
    for run in runs:
        key, times = _settings(run), 0
        while any(run.seed == other.seed for other in sides.get(f"{key} {times}", [])):
            times += 1
        sides.setdefault(f"{key} {times}", []).append(run)
    names = Counter(some[0].evaluation["experiment"] for some in sides.values() if len(some) > 1)
    found = []
    for some in sides.values():
        name, experiment = some[0].name, some[0].evaluation["experiment"]
        if len(some) > 1:
            more = f" like {some[0].folder.resolve().name}" if names[experiment] > 1 else ""
            name = f"{experiment}{more} ({len(some)} seeds)"
        found.append(Side(name, tuple(some)))
    return found


def _settings(run: Run) -> str:
    """Everything that made the scores, but the seed."""
    config: dict[str, Any] = copy.deepcopy(run.config)
    trainer = config.get("trainer")
    for key in _ASIDE:
        if isinstance(trainer, dict):
            trainer.pop(key, None)
    for key in ("seed", "workers"):
        config["data"].pop(key, None)
    made = {key: config.get(key) for key in ("model", "data", "trainer")}
    evaluation = run.evaluation
    made["checkpoint"] = Path(evaluation["checkpoint"]).stem
    made["init_args"] = evaluation.get("init_args")
    # Runs of before a setting was there had what is its default now.
    usual = {field.name: field.default for field in fields(DenseCRF)}
    crf = (evaluation["crf"] or {}).get("parameters")
    made["crf"] = crf and {name: value for name, value in crf.items() if value != usual.get(name)}
    return json.dumps(made, sort_keys=True, default=str)


def block_numbers(files: Sequence[str], pattern: str | None) -> NDArray[np.int64]:
    """Number of each photo's block, from 0, by what a pattern finds in the photo's name.

    Raises:
        ValueError: The pattern is no regular expression, or does not match a photo.
    """
    if pattern is None:
        return np.arange(len(files))
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"--group {pattern}: is no regular expression ({error}); write one such as '^[^_]+'."
        ) from error
    found = [(name, expression.search(name)) for name in files]
    names = []
    for name, match in found:
        if match is None:
            raise ValueError(
                f"--group {pattern}: does not match the photo {name}; every photo must belong to "
                f"a block."
            )
        names.append(match[1 if expression.groups else 0] or "")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])
