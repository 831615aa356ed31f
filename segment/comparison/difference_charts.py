"""Charts of differences: every pair as a map, what refining changes, by class and by size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from segment.bootstrap import MEASURES
from segment.chart_style import (
    CHANGE_SCALE,
    REFINED,
    finished,
    line_of,
    named_axis,
    rows_axis,
    shorts,
    text,
)
from segment.comparison.differences import REFINING, Comparison
from segment.comparison.sides import Side
from segment.comparison.words import BOUNDARY, MIOU, TITLES, finding

GREY = "#8a8a8a"
PALEST = 0.05  # the colours reach at least so far: a tiny change must not look like a large one


def sides_of(comparisons: Sequence[Comparison]) -> list[Side]:
    """The sides of some comparisons, the highest on raw mIoU first."""
    return list({side: None for one in comparisons for side in (one.first, one.second)})


def pairs_map(comparisons: Sequence[Comparison], kind: str, measure: int = MIOU) -> go.Figure:
    """Row less column; blue and orange where a difference is shown, grey where none is."""
    sides = sides_of(comparisons)
    place = {side: number for number, side in enumerate(sides)}
    size = len(sides)
    values: list[list[Any]] = [[None] * size for _ in range(size)]
    undecided: list[list[Any]] = [[None] * size for _ in range(size)]
    cells = [[""] * size for _ in range(size)]
    hovers = [[""] * size for _ in range(size)]
    for one in comparisons:
        if one.kind != kind or np.isnan(one.value[measure]):
            continue
        a, b, value = place[one.first], place[one.second], float(one.value[measure])
        for row, column, sign in ((a, b, 1), (b, a, -1)):
            (values if one.verdict(measure) else undecided)[row][column] = sign * value
            cells[row][column] = f"{100 * sign * value:+.1f}"
            hovers[row][column] = _wrapped(finding(one, measure))
    most = max((abs(v) for row in values for v in row if v is not None), default=0.0)
    most = max(most, PALEST)
    figure = go.Figure()
    common = {"hoverinfo": "text", "hovertext": hovers, "xgap": 1, "ygap": 1}
    if size <= 20:
        common |= {"text": cells, "texttemplate": "%{text}"}  # Plotly fits their size
    grey = [[0, "#e4e4e4"], [1, "#e4e4e4"]]
    figure.add_heatmap(z=undecided, colorscale=grey, showscale=False, **common)
    bar = {"thickness": 10, "title": "difference", "tickformat": "+.2f"}
    scale = {"zmin": -most, "zmax": most, "colorscale": CHANGE_SCALE, "colorbar": bar}
    figure.add_heatmap(z=values, **scale, **common)
    names = [side.name for side in sides]
    figure.update_yaxes(**rows_axis(names), showgrid=False)
    figure.update_xaxes(**named_axis(names, tickangle=-50), showgrid=False)
    return finished(figure, 200 + 26 * size)


def refining_forest(comparisons: Sequence[Comparison]) -> go.Figure:
    """What refining changes for each side, with its interval: mean IoU and boundary F1."""
    ours = [one for one in comparisons if one.kind == REFINING]
    measures = (MIOU, BOUNDARY)
    titles = [f"{TITLES[MEASURES[m]]}, refined minus raw" for m in measures]
    figure = make_subplots(1, 2, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    for column, measure in enumerate(measures, start=1):
        for shown in (True, False):
            some = [(p, o) for p, o in enumerate(ours) if bool(o.verdict(measure)) == shown]
            color = REFINED if shown else GREY
            figure.add_scatter(
                x=[float(one.value[measure]) for _, one in some],
                y=[place for place, _ in some],
                error_x={
                    "array": [_half(one, measure) for _, one in some],
                    "color": color,
                    "thickness": 2,
                    "width": 4,
                },
                mode="markers",
                marker={"color": color, "size": 9, "symbol": "circle" if shown else "circle-open"},
                name="shown" if shown else "not shown after correction",
                legendgroup=str(shown),
                showlegend=column == 1,
                hoverinfo="text",
                hovertext=[_wrapped(finding(one, measure)) for _, one in some],
                row=1,
                col=column,
            )
        figure.add_vline(x=0, line={"color": "#444", "width": 1}, row=1, col=column)
    figure.update_yaxes(**rows_axis([one.first.name for one in ours]))
    return finished(figure, 150 + 24 * len(ours))


def gain_by_class(comparisons: Sequence[Comparison]) -> go.Figure:
    """IoU refined minus raw, by class and side; numbers stand where the change is shown."""
    ours = [one for one in comparisons if one.kind == REFINING]
    names = list(dict.fromkeys(name for one in ours for name in one.classes))
    rows: list[list[Any]] = []
    cells, hovers = [], []
    for one in ours:
        values: list[Any] = [None] * len(names)
        said, hover = [""] * len(names), [""] * len(names)
        for train_id, name in enumerate(one.classes):
            measure, place = len(MEASURES) + train_id, names.index(name)
            if not np.isnan(one.value[measure]):
                values[place] = float(one.value[measure])
                said[place] = f"{100 * values[place]:+.1f}" if one.verdict(measure) else ""
                hover[place] = _wrapped(finding(one, measure))
        rows.append(values)
        cells.append(said)
        hovers.append(hover)
    most = max((abs(v) for row in rows for v in row if v is not None), default=0.0)
    most = max(most, PALEST)
    figure = go.Figure()
    figure.add_heatmap(
        z=rows,
        zmin=-most,
        zmax=most,
        colorscale=CHANGE_SCALE,
        colorbar={"thickness": 10, "title": "change", "tickformat": "+.2f"},
        text=cells,
        texttemplate="%{text}",
        hoverinfo="text",
        hovertext=hovers,
        xgap=1,
        ygap=1,
    )
    figure.update_yaxes(**rows_axis([one.first.name for one in ours]), showgrid=False)
    figure.update_xaxes(**named_axis(names, tickangle=-50), showgrid=False)
    return finished(figure, 170 + 26 * len(ours))


def gain_by_size(recalls: pd.DataFrame, runs: Sequence[str]) -> go.Figure:
    """What refining does to the recall of objects, by their size; see `object_recalls`.

    Args:
        recalls: As `object_recalls` made it, and `unit`, `object` or `region`.
        runs: Names of the runs, in the report's order.
    """
    sizes = recalls.drop_duplicates("size_bin").sort_values("order")
    unit = "object" if "object" in set(recalls["unit"]) else "region"
    # Of several sets of photos the counts differ.
    counts = recalls.groupby("size_bin")["objects"].agg(["min", "max"]).astype(int)
    spans = {name: f"{low} to {high}" if low < high else f"{low}"
             for name, low, high in counts.itertuples()}  # fmt: skip
    names = [f"{name} ({spans[name]} {unit}s)" for name in sizes["size_bin"]]
    figure, labels = go.Figure(), shorts(runs)
    for place, name in enumerate(runs):
        ours = recalls[recalls["run"] == name].dropna(subset=["gain"]).to_dict("records")
        if ours:
            figure.add_scatter(
                x=[int(np.flatnonzero(sizes["size_bin"] == row["size_bin"])[0]) for row in ours],
                y=[row["gain"] for row in ours],
                mode="lines+markers",
                name=labels[place],
                hoverinfo="text",
                hovertext=[
                    f"{text(name)}<br>raw {row['raw']:.3f}, refined {row['refined']:.3f}"
                    for row in ours
                ],
                **line_of(place),
            )
    figure.add_hline(y=0, line={"color": "#444", "width": 1})
    figure.update_xaxes(
        **named_axis(names, tickangle=-30), title=f"root of the {unit}'s visible pixels, px"
    )
    figure.update_yaxes(title="recall, refined minus raw", tickformat="+.3~f")
    return finished(figure, 380 + 10 * len(runs))


def _half(one: Comparison, measure: int) -> float | None:
    half = one.high[measure] - one.value[measure]
    return None if np.isnan(half) else float(half)


def _wrapped(said: str, width: int = 70) -> str:
    """A sentence in lines, for a hover."""
    lines: list[str] = [""]
    for word in said.split(" "):
        if len(lines[-1]) + len(word) > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(map(text, lines))
