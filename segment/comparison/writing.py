"""The files of a report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segment.comparison.differences import Comparison
from segment.comparison.page import write_page
from segment.comparison.photo_sets import sets
from segment.comparison.photos import write_photos
from segment.comparison.runs import Run, Unfinished
from segment.comparison.tables import (
    calibration_table,
    classes_table,
    confusions_table,
    differences_table,
    literal,
    markdown,
    scores_markdown,
    scores_table,
    trimap_table,
)
from segment.comparison.truth import annotations_of, object_recalls, objects_by_class
from segment.comparison.words import MIOU, figure, findings, headline_level
from segment.data.coco import CocoFile

SIZES = ("run", "size_bin", "unit", "objects", "raw", "refined", "gain")


def write_report(
    out: Path,
    runs: Sequence[Run],
    unfinished: Sequence[Unfinished],
    comparisons: Sequence[Comparison],
    root: Path | None,
) -> list[str]:
    """Write everything.

    Args:
        out: An empty folder.
        runs: The runs.
        unfinished: Those without scores, which are listed.
        comparisons: What `compare` found.
        root: Folder of the photos; None: where each run's config.yaml has it.

    Returns:
        Sentences on what could not be shown.
    """
    scores_table(runs).to_csv(out / "scores.csv", index=False)
    classes_table(runs).to_csv(out / "classes.csv", index=False)
    differences_table(comparisons).to_csv(out / "differences.csv", index=False)
    confusions_table(runs).to_csv(out / "confusions.csv", index=False)
    trimap_table(runs).to_csv(out / "trimap.csv", index=False)
    calibration_table(runs).to_csv(out / "calibration.csv", index=False)
    (out / "report.md").write_text(summary(runs, unfinished, comparisons), encoding="utf-8")
    pictures: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    objects: dict[str, int] = {}
    recalls: list[pd.DataFrame] = []
    missing: list[str] = []
    units: set[str] = set()
    for same in _of_same_photos(runs):
        coco = _annotations(same, root, missing)
        if coco is None:
            continue
        units.add(unit_of(coco))
        counts = zip(coco.taxonomy.classes, objects_by_class(coco), strict=True)
        objects = dict(counts) | objects
        found = object_recalls(coco, [run for run in same if len(run.kinds) == 2])
        recalls.append(found.assign(unit=unit_of(coco)))
        photos, cards, gone = write_photos(out, coco, same, len(pictures[0]))
        missing.extend(gone)
        pictures[0].extend(photos)
        pictures[1].extend(cards)
    told = pd.concat(recalls) if recalls else None
    sizes = pd.DataFrame(columns=SIZES) if told is None else told[list(SIZES)]
    sizes.to_csv(out / "sizes.csv", index=False)
    page = out / "index.html"
    unit = "region" if units == {"region"} else "object"
    write_page(page, runs, unfinished, comparisons, pictures, objects, told, missing, unit)
    return missing


def _annotations(same: Sequence[Run], root: Path | None, missing: list[str]) -> CocoFile | None:
    """The file that runs were scored on, of the first that still has it; else `missing` says so."""
    faults = []
    for run in same:
        try:
            return annotations_of(run, root)
        except (ValueError, OSError) as error:
            faults.append(error)
    missing.append(
        f"No photos and objects of {same[0].name} and others like it: {faults[0]} If they were "
        f"moved, --root FOLDER finds them."
    )
    return None


def unit_of(coco: CocoFile) -> str:
    """`region` where no photo has two annotations of one category, which may hold many objects."""
    for annotations in coco.annotations.values():
        categories = [annotation["category_id"] for annotation in annotations]
        if len(set(categories)) < len(categories):
            return "object"
    return "region"


def _of_same_photos(runs: Sequence[Run]) -> list[list[Run]]:
    sets: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        sha256 = run.evaluation["annotations"]["sha256"]
        sets.setdefault((sha256, run.photo_set), []).append(run)
    return list(sets.values())


def summary(
    runs: Sequence[Run], unfinished: Sequence[Unfinished], comparisons: Sequence[Comparison]
) -> str:
    """The report as Markdown: findings, the comparison table, and every difference in mean IoU."""
    level = headline_level(comparisons)
    heads = ["labels", "first", "second", "difference in mean IoU", "p, Holm", "shown"]
    rows = [
        [
            one.kind,
            literal(one.first.name),
            literal(one.second.name) if one.second is not one.first else "-",
            figure(one, MIOU),
            "-" if np.isnan(one.holm[MIOU]) else f"{one.holm[MIOU]:.3g}",
            {1: "higher", -1: "lower", 0: "no"}[one.verdict(MIOU)],
        ]
        for one in comparisons
        if one.level == level
    ]
    lines = [
        "# Runs compared",
        "",
        *(f"- {literal(text)}" for text in [*sets(runs, comparisons), *findings(comparisons)]),
        "",
        *(f"- Left out: {literal(str(o.folder))}: {literal(o.reason)}" for o in unfinished),
        *([""] if unfinished else []),
        scores_markdown(scores_table(runs)),
        "",
        "## Which differences are real",
        "",
        "Paired bootstrap over photos; Holm's correction over all comparisons of a measure.",
        "",
        markdown(heads, rows),
        "",
    ]
    return "\n".join(lines)
