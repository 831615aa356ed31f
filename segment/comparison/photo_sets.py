"""On which photos runs are compared, and how often, in sentences."""

from collections.abc import Sequence

from segment.comparison.differences import Comparison
from segment.comparison.runs import Run, by_photo_set
from segment.comparison.words import MIOU, headline_level, of_photos, photo_sets


def sets(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> list[str]:
    """Which runs share photos, true labels and classes, and are compared; empty: all of them do."""
    found = by_photo_set(runs)
    if len(found) == 1:
        return []
    numbers = {photo_set: n for n, photo_set in enumerate(photo_sets(comparisons), start=1)}
    said = []
    for same in found:
        names = ", ".join(run.name for run in same)
        number = numbers.get(same[0].photo_set)
        head = f"Set {number} of photos" if number else "Compared with no other"
        said.append(f"{head}: {photos_of(same[0], comparisons)}: {names}.")
    return [*said, "Runs of other photos, true labels or classes are not compared with each other."]


def photos_of(run: Run, comparisons: Sequence[Comparison]) -> str:
    """How many photos a run was scored on, and of which file and split."""
    same = [one for one in comparisons if one.first.runs[0].photo_set == run.photo_set]
    told = of_photos(same[0]) if same else f"{len(run.files)} photos"
    return f"{told} of {run.evaluation['annotations']['path']}, split {run.evaluation['split']}"


def tested(comparisons: Sequence[Comparison]) -> str:
    """How many comparisons Holm's correction was made for."""
    level = headline_level(comparisons)

    def most(level: str) -> int:
        return int(max((one.tests[MIOU] for one in comparisons if one.level == level), default=0))

    number = most(level)
    if not number:
        return "Nothing was tested."
    made = "1 comparison was" if number == 1 else f"{number} comparisons were"
    said = f"{made} made of each measure{' of experiments' if level == 'experiments' else ''}"
    if level == "experiments":
        said += f", and {most('checkpoints')} run by run, which are corrected by themselves"
    return said + "."
