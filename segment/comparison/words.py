"""What a comparison found, in sentences."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segment.bootstrap import FEWEST_BLOCKS, LEVEL, MEASURES
from segment.comparison.differences import REFINING, Comparison
from segment.comparison.runs import KINDS
from segment.comparison.settings import kept_apart
from segment.comparison.sides import Side

TITLES = {
    "miou": "mean IoU",
    "miou_foreground": "mean IoU without background",
    "mean_accuracy": "class average accuracy",
    "pixel_accuracy": "pixel accuracy",
    "boundary_f1": "boundary F1",
    "trimap_miou": "mean IoU within 4 px of an edge",
}
MIOU, BOUNDARY = MEASURES.index("miou"), MEASURES.index("boundary_f1")
_LISTED = 4


def title(comparison: Comparison, measure: int) -> str:
    """What is measured, such as `mean IoU` or `IoU of Glass`."""
    if measure < len(MEASURES):
        return TITLES[MEASURES[measure]]
    return f"IoU of {comparison.classes[measure - len(MEASURES)]}"


def of_photos(comparison: Comparison) -> str:
    """How many photos there were, and blocks where they were drawn in such."""
    photos, blocks = comparison.photos, comparison.blocks
    words = f"{photos} photo{'' if photos == 1 else 's'}"
    if blocks == photos:
        return words
    return f"{words} in {blocks} block{'' if blocks == 1 else 's'}"


def figure(comparison: Comparison, measure: int) -> str:
    """The difference with its interval."""
    low, high = comparison.low[measure], comparison.high[measure]
    value = f"{comparison.value[measure]:+.3f}"
    if np.isnan(low):
        return value
    return f"{value}, 95 % interval {low:+.3f} to {high:+.3f}"


def sentence(comparison: Comparison, measure: int) -> str:
    """What one comparison says of one measure (a place in `measure_names`), and of whom."""
    return f"{finding(comparison, measure)} {scope(comparison)}"


def finding(comparison: Comparison, measure: int) -> str:
    """The same without whom it speaks of."""
    c, what = comparison, title(comparison, measure)
    first, second = c.first.name, c.second.name
    refining = c.kind == REFINING
    about = f"refining {first}" if refining else f"{first} and {second}"
    where = what if refining else f"{what} ({c.kind} labels)"
    value, numbers = c.value[measure], figure(c, measure)
    if np.isnan(value):
        return f"Nothing to say of {about} on {where}: the class was never seen."
    if np.isnan(c.low[measure]):
        unit = "blocks of photos" if c.blocks < c.photos else "photos"
        return (
            f"Too few {unit} to say how sure the difference of {about} on {where} is: "
            f"{numbers}; an interval takes {FEWEST_BLOCKS} that show the class."
        )
    verdict = c.verdict(measure)
    if verdict and refining:
        return f"Refining {'helps' if verdict > 0 else 'hurts'} {first} on {where}: {numbers}."
    if verdict:
        better, worse = (first, second) if verdict > 0 else (second, first)
        sign = "" if verdict > 0 else f", as {first} less {second}"
        return f"{better} beats {worse} on {where}: {numbers}{sign}."
    if c.p[measure] < 1 - LEVEL:
        return (
            f"Perhaps chance: {about} on {where}, {numbers}, which among {c.tests[measure]} "
            f"comparisons is not beyond chance (Holm's p {c.holm[measure]:.2f})."
        )
    between = f"that {evidence([c])} could show"
    told = f"by refining {first}" if refining else f"between {about}"
    return f"No difference {between} {told} on {where}: {numbers}."


def evidence(some: Sequence[Comparison]) -> str:
    """Photos, and seeds where sides have several: what was too little to show a difference."""
    sides = [side for one in some for side in (one.first, one.second)]
    seeds = sorted({side.seeds for side in sides if side.seeds > 1})
    told = of_photos(some[0])
    return f"{told} and {' or '.join(map(str, seeds))} seeds" if seeds else told


def _too_few(one: Comparison) -> str:
    return f"{of_photos(one)} {'is' if one.photos == 1 else 'are'} too few for intervals."


def scope(comparison: Comparison) -> str:
    """Whom a comparison speaks of: checkpoints, or trainings."""
    sides = [comparison.first, comparison.second]
    if comparison.kind == REFINING:
        seeds = sides[0].seeds
        if seeds == 1:
            return "This speaks of this checkpoint, not of the architecture: one seed."
        return f"This speaks of trainings like these {seeds}."
    if all(side.seeds == 1 for side in sides):
        return "This speaks of these two checkpoints, not of the architectures: one seed each."
    parts = [
        f"trainings like these {side.seeds} of {side.name}"
        if side.seeds > 1
        else f"one checkpoint of {side.name}"
        for side in sides
    ]
    return f"This speaks of {' and of '.join(parts)}."


def headline_level(comparisons: Sequence[Comparison]) -> str:
    """Experiments with all their seeds where there are such, else checkpoints."""
    return max((one.level for one in comparisons), default="checkpoints")


def findings(comparisons: Sequence[Comparison]) -> list[str]:
    """The most important differences: who leads, what refining does, to whom and to which class."""
    level = headline_level(comparisons)
    ours = [one for one in comparisons if one.level == level]
    found = photo_sets(comparisons)
    said = []
    for number, photo_set in enumerate(found, start=1):
        same = [one for one in ours if one.first.runs[0].photo_set == photo_set]
        where = f", set {number} of photos" if len(found) > 1 else ""
        for kind in KINDS:
            pairs = [one for one in same if one.kind == kind]
            said += _leader(pairs, kind, where) if pairs else []
        refining = [one for one in same if one.kind == REFINING]
        if refining:
            said += [_refining(refining, measure, where) for measure in (MIOU, BOUNDARY)]
            said += _classes(refining, where)
    runs = {
        run: None for one in comparisons for side in (one.first, one.second) for run in side.runs
    }
    return said + _checkpoints(ours) + kept_apart(list(runs))


def photo_sets(comparisons: Sequence[Comparison]) -> list[tuple[object, ...]]:
    """The sets of photos that something was compared on; see `Run.photo_set`."""
    return list(dict.fromkeys(one.first.runs[0].photo_set for one in comparisons))


def _checkpoints(comparisons: Sequence[Comparison]) -> list[str]:
    """Which sides are one training each, of which their differences speak alone."""
    sides = {side: None for one in comparisons for side in (one.first, one.second)}
    names = [side.name for side in sides if side.seeds == 1]
    if not names:
        return []
    if len(sides) == 1:
        return ["One seed: this speaks of this checkpoint, not of its architecture."]
    if len(names) == len(sides):
        return ["One seed each: this speaks of these checkpoints, not of their architectures."]
    some = _some(names, len(sides), "all")
    if len(names) == 1:
        return [f"One seed of {some}: what is said of it speaks of that checkpoint alone."]
    return [f"One seed each of {some}: what is said of them speaks of these checkpoints alone."]


def _leader(pairs: Sequence[Comparison], kind: str, where: str) -> list[str]:
    """The best of the sides that were scored on the same photos, and whom it beats by how much."""
    sides = {side: None for one in pairs for side in (one.first, one.second)}

    def wins(side: Side) -> int:
        signs = [(one, 1 if one.first is side else -1) for one in pairs]
        ours = [(one, s) for one, s in signs if side in (one.first, one.second)]
        return sum(s * float(np.nan_to_num(one.value[MIOU])) > 0 for one, s in ours)

    best = max(sides, key=wins)
    against = [
        (one.second.name, one) if one.first is best else (one.first.name, turned(one))
        for one in pairs
        if best in (one.first, one.second)
    ]
    text = f"Highest mean IoU of {kind} labels{where}: {best.name} ({_miou(best, kind):.3f})."
    if len(sides) <= _LISTED:
        return [" ".join([text, *(_against(name, one) for name, one in against)])]
    known = [(name, one) for name, one in against if not np.isnan(one.low[MIOU])]
    known.sort(key=lambda each: float(each[1].value[MIOU]))
    beaten = [each for each in known if each[1].verdict(MIOU)]
    undecided = [each for each in known if not each[1].verdict(MIOU)]
    if beaten:
        least = f" (the least: {figure(beaten[0][1], MIOU)}, from {beaten[0][0]})"
        names = _some([name for name, _ in beaten], len(against), "all")
        text += f" Better beyond chance than {names}{least}."
    perhaps = [each for each in undecided if each[1].p[MIOU] < 1 - LEVEL]
    none = [each for each in undecided if each not in perhaps]
    if perhaps:
        shown = [f"{name} ({figure(one, MIOU)})" for name, one in perhaps]
        names = _some(shown, len(against), "all")
        text += f" Perhaps chance, among {perhaps[0][1].tests[MIOU]} comparisons: over {names}."
    if none:
        shown = [f"{name} ({figure(one, MIOU)})" for name, one in none]
        names = _some(shown, len(against), "any")
        told = evidence([one for _, one in none])
        text += f" {told} do not show it to be better than {names}."
    if len(known) < len(against):
        text += f" {_too_few(pairs[0])}"
    return [text]


def _against(name: str, one: Comparison) -> str:
    """What stands behind the best side's name, of another one."""
    numbers = figure(one, MIOU)
    if np.isnan(one.low[MIOU]):
        unit = "blocks of photos" if one.blocks < one.photos else "photos"
        return f"Too few {unit} to say how sure its lead over {name} is: {numbers}."
    if one.verdict(MIOU):
        return f"{one.first.name} beats {name}: {numbers}."
    if one.p[MIOU] < 1 - LEVEL:
        return (
            f"Perhaps chance is its lead over {name}: {numbers}, which among {one.tests[MIOU]} "
            f"comparisons is not beyond chance (Holm's p {one.holm[MIOU]:.2f})."
        )
    return f"No difference from {name} that {evidence([one])} could show: {numbers}."


def turned(one: Comparison) -> Comparison:
    """The second side less the first."""
    first, second, low, high = one.second, one.first, -one.high, -one.low
    return replace(one, first=first, second=second, value=-one.value, low=low, high=high)


def _miou(side: Side, kind: str) -> float:
    """The mean over the side's runs; NaN where one has none."""
    found = [run.evaluation[kind]["miou"] for run in side.runs]
    return float(np.mean([np.nan if value is None else value for value in found]))


def _refining(refining: Sequence[Comparison], measure: int, where: str) -> str:
    """Whom refining helps and hurts, and by how much."""
    known = [one for one in refining if not np.isnan(one.low[measure])]
    head = f"Refining with the CRF, {title(refining[0], measure)}{where}"
    if not known:
        return f"{head}: {_too_few(refining[0])}"
    parts = []
    for sign, word in ((1, "helps"), (-1, "hurts")):
        some = [one for one in known if one.verdict(measure) == sign]
        if some:
            parts.append(f"{word} {_by_how_much(some, measure, len(known))}")
    rest = [one for one in known if not one.verdict(measure)]
    perhaps = [one for one in rest if one.p[measure] < 1 - LEVEL]
    none = [one for one in rest if one not in perhaps]
    if perhaps:
        parts.append(f"is perhaps chance in {_by_how_much(perhaps, measure, len(known))}")
    if none:
        names = _by_how_much(none, measure, len(known), "any")
        parts.append(f"makes no difference that {evidence(none)} could show to {names}")
    return f"{head}: {'; '.join(parts)}."


def _by_how_much(some: Sequence[Comparison], measure: int, of: int, whole: str = "all") -> str:
    """Names with their figures, or, of many, the figure of the one that changes most."""
    some = sorted(some, key=lambda one: -abs(float(one.value[measure])))
    if len(some) <= _LISTED:
        return _some([f"{o.first.name} ({figure(o, measure)})" for o in some], of, whole)
    names = _some([one.first.name for one in some], of, whole)
    return f"{names}, most {some[0].first.name} ({figure(some[0], measure)})"


def _classes(refining: Sequence[Comparison], where: str) -> list[str]:
    """The class that refining helps most, and the one it hurts most."""
    found = [
        (one.value[place], one, place)
        for one in refining
        for place in range(len(MEASURES), len(one.value))
        if one.verdict(place)
    ]
    parts = []
    for word, chosen in (("gains", max), ("loses", min)):
        some = [each for each in found if (each[0] > 0) == (word == "gains")]
        if some:
            _, one, place = chosen(some, key=lambda each: float(each[0]))
            name = one.classes[place - len(MEASURES)]
            parts.append(f"{name} {word} most, in {one.first.name} ({figure(one, place)})")
    return [f"Refining by class{where}: {'; '.join(parts)}."] if parts else []


def _some(names: Sequence[str], of: int, whole: str) -> str:
    """Names, or the number of them and the first few; `whole`, all or any, where it is all."""
    if len(names) == 1:
        return names[0]
    if len(names) <= _LISTED:
        return f"{', '.join(names[:-1])} and {names[-1]}"
    if len(names) == of:
        return f"{whole} of the {of}"
    listed = ", ".join(names[:_LISTED])
    return f"{len(names)} of {of} ({listed} and {len(names) - _LISTED} more)"
