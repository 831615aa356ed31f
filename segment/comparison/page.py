"""index.html: figures and rows as JSON for the page's own few lines of JavaScript."""

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.offline
from markupsafe import Markup

from segment import __version__
from segment.bootstrap import MEASURES
from segment.comparison import charts, curves, difference_charts, tables
from segment.comparison.differences import REFINING, Comparison
from segment.comparison.photo_sets import photos_of, sets, tested
from segment.comparison.photos import REASONS
from segment.comparison.runs import KINDS, Run, Unfinished, by_photo_set
from segment.comparison.words import (
    BOUNDARY,
    MIOU,
    finding,
    findings,
    headline_level,
    of_photos,
    scope,
)
from segment.evaluation import CHOSE, TRAINED, TUNED

# What stands beside a figure whose photos had decided something before.
MARKS = {TRAINED: "\u00a7", CHOSE: "\u2020", TUNED: "\u2021"}


def script_json(content: Any) -> Markup:
    """JSON that may stand inside <script>: nothing in it can close that or open a comment."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def figures(
    runs: Sequence[Run],
    comparisons: Sequence[Comparison],
    recalls: pd.DataFrame | None,
) -> dict[str, go.Figure]:
    """Every chart of the page by the id of its place."""
    runs = by_score(runs)
    level = headline_level(comparisons)
    ours = [one for one in comparisons if one.level == level]
    found = {
        "class-heatmap": charts.class_heatmap(runs),
        "class-bars": charts.class_bars(runs[0], charts.class_names(runs)),
        "trimap": curves.trimap_curves(runs),
        "reliability": curves.reliability(runs),
        "ece": curves.calibration_error(runs),
        "cost": charts.cost_against_score(runs),
        "failing": charts.failing_classes(pixel_shares(runs), runs),
        "pairs": charts.confused_pairs(runs),
    }
    for kind in KINDS:
        if any(one.kind == kind for one in ours):
            found[f"map-{kind}"] = difference_charts.pairs_map(ours, kind)
    if any(one.kind == REFINING for one in ours):
        found["refining"] = difference_charts.refining_forest(ours)
        found["gain-class"] = difference_charts.gain_by_class(ours)
    if recalls is not None and len(recalls):
        names = [run.name for run in runs]
        found["gain-size"] = difference_charts.gain_by_size(recalls, names)
    return found


def by_score(runs: Sequence[Run]) -> list[Run]:
    """The highest raw mIoU first."""
    return sorted(runs, key=lambda run: -(run.evaluation["raw"]["miou"] or 0))


def pixel_shares(runs: Sequence[Run]) -> dict[str, float]:
    """Share of the labelled pixels by class name; of the first run that has the class."""
    shares: dict[str, float] = {}
    for run in runs:
        pixels = np.sum(run.evaluation["raw"]["confusion"], axis=1)
        for name, number in zip(run.classes, pixels, strict=True):
            shares.setdefault(name, float(number / max(1, pixels.sum())))
    return shares


def class_rows(runs: Sequence[Run], objects: dict[str, int]) -> list[dict[str, Any]]:
    """For the table of classes: shares, and the median and the best IoU of the runs."""
    rows = []
    total = sum(objects.values())
    for name, share in pixel_shares(runs).items():
        row: dict[str, Any] = {"name": name, "share": share, "objects": objects.get(name)}
        row["object_share"] = objects[name] / total if total and name in objects else None
        for kind in KINDS:
            found = [charts.values_by_class(run, kind, [name])[0] for run in runs]
            known = [value for value in found if value is not None]
            row[kind] = float(np.median(known)) if known else None
            if kind == "raw":
                best = max(range(len(found)), key=lambda i: -1 if found[i] is None else found[i])
                row["best"] = f"{runs[best].name} ({found[best]:.3f})" if known else ""
        rows.append(row)
    return rows


def page_data(
    runs: Sequence[Run], comparisons: Sequence[Comparison], photos: Any, cards: Any
) -> dict[str, Any]:
    """What the page's JavaScript shows on choice: confusions, pairs, IoU by class, photos."""
    sides = {side: None for one in comparisons for side in (one.first, one.second)}
    place = {side: number for number, side in enumerate(sides)}

    def rounded(values: Any) -> list[float | None]:
        return [None if np.isnan(v) else round(float(v), 4) for v in values]

    pairs = [
        {
            "level": one.level,
            "kind": one.kind,
            "first": place[one.first],
            "second": place[one.second],
            "classes": list(one.classes),
            "value": rounded(one.value[len(MEASURES) :]),
            "low": rounded(one.low[len(MEASURES) :]),
            "high": rounded(one.high[len(MEASURES) :]),
            "shown": [bool(one.verdict(m)) for m in range(len(MEASURES), len(one.value))],
            "miou": [*rounded([one.value[0], one.low[0], one.high[0], one.holm[0]])],
            "verdict": one.verdict(MIOU),
            "said": [finding(one, MIOU), finding(one, BOUNDARY), scope(one)],
        }
        for one in comparisons
    ]
    names = charts.class_names(by_score(runs))  # as the chart of them has it
    return {
        "runs": [
            {
                "name": run.name,
                "classes": run.classes,
                "confusion": {kind: run.evaluation[kind]["confusion"] for kind in run.kinds},
                "iou": {kind: charts.values_by_class(run, kind, names) for kind in run.kinds},
            }
            for run in by_score(runs)
        ],
        "sides": [side.name for side in sides],
        "level": headline_level(comparisons),
        "pairs": pairs,
        "photos": photos,
        "cards": sorted(cards, key=_place_of_card(runs)),
    }


def _place_of_card(runs: Sequence[Run]) -> Callable[[dict[str, Any]], tuple[int, int]]:
    order = {run.name: place for place, run in enumerate(by_score(runs))}
    return lambda card: (order[card["run"]], min(REASONS.index(why) for why in card["why"]))


def score_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The comparison table's cells: text, what sorts them, whether best, marks of roles."""
    table = tables.scores_table(by_score(runs))
    best = tables.best_in(table)
    rows = []
    for run, record in zip(by_score(runs), table.to_dict("records"), strict=True):
        cells = []
        for column in [f"{key}_{kind}" for key in tables.SCORES for kind in KINDS]:
            kind = column.rpartition("_")[2]
            marks = "".join(MARKS[role] for role in run.roles(kind))
            cells.append(_cell(column, record[column], best) | {"marks": marks})
        cells += [_cell(column, record[column], best) | {"marks": ""} for column in tables.COSTS]
        rows.append({"name": run.name, "cells": cells, "weights": run.weights})
    return rows


def _cell(column: str, value: Any, best: dict[str, float]) -> dict[str, Any]:
    text = tables.shown(column, value)
    known = text != "-"
    return {
        "text": text if known else "\N{EN DASH}",
        "sort": float(value) if known else "",
        "best": known and value == best.get(column),
    }


def write_page(
    path: Path,
    runs: Sequence[Run],
    unfinished: Sequence[Unfinished],
    comparisons: Sequence[Comparison],
    photos: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    objects: dict[str, int],
    recalls: pd.DataFrame | None,
    missing: Sequence[str],
    unit: str,
) -> None:
    """Write index.html, with everything in it but the photos.

    Args:
        path: The file.
        runs: The runs.
        unfinished: Runs without scores.
        comparisons: What `compare` found.
        photos: What `write_photos` gave.
        objects: Number of annotated objects by class name; empty if unknown.
        recalls: What `object_recalls` gave; None if unknown.
        missing: Sentences on what could not be shown.
        unit: What an annotation is of: `object` or `region`.
    """
    here = files("segment.comparison") / "template"
    # Names come from users: escaping is on, and JSON goes through `script_json`.
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((here / "report.html.jinja").read_text(encoding="utf-8"))
    made = figures(runs, comparisons, recalls)
    plain = {name: json.loads(figure.to_json()) for name, figure in made.items()}
    text = template.render(
        version=__version__,
        unit=unit,
        runs=by_score(runs),
        unfinished=unfinished,
        findings=findings(comparisons),
        missing=missing,
        photos_told=_photos_told(runs, comparisons),
        scored_on=sets(runs, comparisons) or [photos_of(runs[0], comparisons)],
        colors=_colors(runs),
        tested=tested(comparisons),
        experiments=headline_level(comparisons) == "experiments",
        score_heads=list(tables.SCORES.values()),
        cost_heads=list(tables.COSTS.values()),
        score_rows=score_rows(runs),
        marks=[(mark, role) for role, mark in MARKS.items() if _has_role(runs, role)],
        untouched=not any(run.roles("refined") for run in runs),
        class_rows=class_rows(runs, objects),
        charts=plain,
        figures=script_json(plain),
        data=script_json(page_data(runs, comparisons, *photos)),
        has_photos=bool(photos[1]),
        class_names=charts.class_names(runs),
        plotly=Markup(plotly.offline.get_plotlyjs()),
        style=Markup((here / "report.css").read_text(encoding="utf-8")),
        script=Markup((here / "report.js").read_text(encoding="utf-8")),
    )
    path.write_text(text, encoding="utf-8")


def _photos_told(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> str:
    if len(by_photo_set(runs)) > 1:
        return "the photos of a set"
    return of_photos(comparisons[0]) if comparisons else f"{len(runs[0].files)} photos"


def _colors(runs: Sequence[Run]) -> list[tuple[str, list[int]]]:
    """Each class with its colour; twice where runs paint it in different ones."""
    found = {
        (name, tuple(color)): None
        for run in runs
        for name, color in zip(run.classes, run.evaluation["colors"], strict=True)
    }
    return [(name, list(color)) for name, color in found]


def _has_role(runs: Sequence[Run], role: str) -> bool:
    return any(role in run.roles("refined") for run in runs)
