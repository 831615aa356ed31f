"""What is compared: single runs, and experiments with all of their seeds; and blocks of photos."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.comparison.runs import Run
from segment.comparison.settings import settings, titles


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
        key, times = json.dumps(settings(run), sort_keys=True), 0
        while any(run.seed == other.seed for other in sides.get(f"{key} {times}", [])):
            times += 1
        sides.setdefault(f"{key} {times}", []).append(run)
    title = dict(zip(runs, titles(runs), strict=True))
    names = Counter(title[some[0]] for some in sides.values() if len(some) > 1)
    found = []
    for some in sides.values():
        name = some[0].name
        if len(some) > 1:
            same = names[title[some[0]]] > 1
            more = f" like {some[0].folder.resolve().name}" if same else ""
            name = f"{title[some[0]]}{more} ({len(some)} seeds)"
        found.append(Side(name, tuple(some)))
    return found


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
