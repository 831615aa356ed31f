"""What a comparison found, in sentences."""

from collections.abc import Sequence

import numpy as np

from segment.bootstrap import FEWEST_BLOCKS, LEVEL, MEASURES
from segment.comparison.differences import REFINING, Comparison
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
    return f"{photos} photos" + (f" in {blocks} blocks" if blocks < photos else "")


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
    between = f"that {of_photos(c)} could show"
    told = f"by refining {first}" if refining else f"between {about}"
    return f"No difference {between} {told} on {where}: {numbers}."


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
    said = [text for kind in ("raw", "refined") for text in _leader(ours, kind)]
    refining = [one for one in ours if one.kind == REFINING]
    if refining:
        said += [_refining(refining, measure) for measure in (MIOU, BOUNDARY)]
        said += _classes(refining)
    if ours and level == "checkpoints":
        said.append("One seed each: this speaks of these checkpoints, not of their architectures.")
    return said


def _leader(comparisons: Sequence[Comparison], kind: str) -> list[str]:
    """One sentence for each set of runs with the same photos: the best side, and whom it beats."""
    sets: dict[tuple[int, int, tuple[str, ...]], list[Comparison]] = {}
    for one in comparisons:
        if one.kind == kind:
            sets.setdefault((one.photos, one.blocks, one.classes), []).append(one)
    said = []
    for pairs in sets.values():
        sides = {side: None for one in pairs for side in (one.first, one.second)}

        def wins(side: Side, pairs: list[Comparison] = pairs) -> int:
            signs = [(one, 1 if one.first is side else -1) for one in pairs]
            ours = [(one, s) for one, s in signs if side in (one.first, one.second)]
            return sum(s * float(np.nan_to_num(one.value[MIOU])) > 0 for one, s in ours)

        best = max(sides, key=wins)
        beaten: list[str] = []
        undecided: list[str] = []
        unsure: list[str] = []
        for one in pairs:
            if best not in (one.first, one.second):
                continue
            other = one.second if one.first is best else one.first
            if np.isnan(one.low[MIOU]):
                unsure.append(other.name)
            else:
                (beaten if one.verdict(MIOU) else undecided).append(other.name)
        text = f"Highest mean IoU of {kind} labels: {best.name} ({_miou(best, kind):.3f})."
        if beaten:
            text += f" Better beyond chance than {_some(beaten, len(sides) - 1, 'all')}."
        if undecided:
            shown = f"{of_photos(pairs[0])} do not show it to be better than"
            text += f" {shown} {_some(undecided, len(sides) - 1, 'any')}."
        if unsure:
            text += f" {of_photos(pairs[0]).capitalize()} are too few for intervals."
        said.append(text)
    return said


def _miou(side: Side, kind: str) -> float:
    """The mean over the side's runs; NaN where one has none."""
    found = [run.evaluation[kind]["miou"] for run in side.runs]
    return float(np.mean([np.nan if value is None else value for value in found]))


def _refining(refining: Sequence[Comparison], measure: int) -> str:
    """Whom refining helps and hurts."""
    known = [one for one in refining if not np.isnan(one.low[measure])]
    what = title(refining[0], measure)
    if not known:
        return f"Refining, {what}: {of_photos(refining[0])} are too few for intervals."
    by_verdict = {sign: [o for o in known if o.verdict(measure) == sign] for sign in (1, -1, 0)}
    parts = []
    for sign, word in ((1, "helps"), (-1, "hurts")):
        some = sorted(by_verdict[sign], key=lambda one: -abs(one.value[measure]))
        if some:
            most = f"most {some[0].first.name}, " if len(some) > 1 else ""
            names = _some([one.first.name for one in some], len(known), "all")
            parts.append(f"{word} {names} ({most}{figure(some[0], measure)})")
    if by_verdict[0]:
        names = _some([one.first.name for one in by_verdict[0]], len(known), "any")
        parts.append(
            f"makes no difference that {of_photos(by_verdict[0][0])} could show to {names}"
        )
    return f"Refining with the CRF, {what}: {'; '.join(parts)}."


def _classes(refining: Sequence[Comparison]) -> list[str]:
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
    return [f"By class, refining: {'; '.join(parts)}."] if parts else []


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
