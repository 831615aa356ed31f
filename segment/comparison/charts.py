"""Charts of scores: by class, cost, and which classes fail."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from segment.chart_style import (
    OF_KIND,
    SCORE_SCALE,
    finished,
    log_axis,
    name_points,
    named_axis,
    rows_axis,
    shorts,
    text,
)
from segment.comparison.runs import KINDS, Run
from segment.comparison.tables import confusions_table

MOST_WRITTEN = 600  # cells of a heat map that still have room for their number
MOST_NAMED = 12  # runs whose names still have room beside their points
MOST_PAIRS = 12
MOST_LETTERS = 100  # of classes that stand level below one chart
IOU_RANGE = (-0.03, 1.03)  # an axis of IoU, with room for marks at 0 and 1


def class_names(runs: Sequence[Run]) -> list[str]:
    """Names of all runs' classes; one list where they have the same."""
    return list(dict.fromkeys(name for run in runs for name in run.classes))


def values_by_class(run: Run, kind: str, names: Sequence[str], key: str = "iou") -> list[Any]:
    """A score of each class by name; None where the run has none."""
    scores = run.evaluation.get(kind)
    if scores is None:
        return [None] * len(names)
    by_name = dict(zip(run.classes, scores[key], strict=True))
    return [by_name.get(name) for name in names]


def class_heatmap(runs: Sequence[Run]) -> go.Figure:
    """IoU of every class for all runs, raw beside refined."""
    names = class_names(runs)
    figure = make_subplots(1, 2, shared_yaxes=True, subplot_titles=KINDS, horizontal_spacing=0.02)
    for column, kind in enumerate(KINDS, start=1):
        rows = [values_by_class(run, kind, names) for run in runs]
        figure.add_heatmap(
            z=rows,
            zmin=0,
            zmax=1,
            colorscale=SCORE_SCALE,
            showscale=column == 2,
            colorbar={"thickness": 10, "title": "IoU"},
            hoverinfo="text",
            hovertext=[
                [f"{text(run.name)}<br>{text(n)}, {kind}: {number(v)}" for n, v in zip(names, row)]  # noqa: B905
                for run, row in zip(runs, rows, strict=True)
            ],
            **_written(rows),
            row=1,
            col=column,
        )
        figure.update_xaxes(**named_axis(names, tickangle=-60), row=1, col=column)
    figure.update_yaxes(**rows_axis([run.name for run in runs]))
    return finished(figure, 190 + 26 * len(runs))


def class_bars(run: Run, names: Sequence[str]) -> go.Figure:
    """IoU by class of one run, raw beside refined; the page puts in other runs."""
    figure = go.Figure()
    for kind in KINDS:
        figure.add_bar(
            x=list(range(len(names))),
            y=values_by_class(run, kind, names),
            name=kind,
            marker_color=OF_KIND[kind],
            hovertemplate="%{y:.3f}",
        )
    # Slanting the other way, a long last name would leave the chart, and Plotly leaves it out.
    slant = {"tickangle": -40} if sum(map(len, names)) > MOST_LETTERS else {}
    figure.update_xaxes(**named_axis(names, **slant))
    figure.update_yaxes(range=[0, 1], title="IoU")
    return finished(figure, 330, barmode="group", bargap=0.25)


def cost_against_score(runs: Sequence[Run]) -> go.Figure:
    """Mean IoU against multiply-adds and against seconds of a photo, CRF included if refined."""
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.03)
    for kind in KINDS:
        for column in (1, 2):
            having = [run for run in runs if kind in run.kinds]
            scores = [run.evaluation[kind]["miou"] for run in having]
            costs = [_cost(run, kind, column) for run in having]
            figure.add_scatter(
                x=costs,
                y=scores,
                mode="markers",
                name=kind,
                legendgroup=kind,
                showlegend=column == 1,
                marker={"color": OF_KIND[kind], "size": 10, "symbol": symbol_of(kind)},
                hoverinfo="text",
                hovertext=[
                    f"{text(run.name)}, {kind}<br>mIoU {number(score)}, {number(cost)}"
                    for run, score, cost in zip(having, scores, costs, strict=True)
                ],
                row=1,
                col=column,
            )
    if len(runs) <= MOST_NAMED:
        names = shorts([run.name for run in runs], 24)
        for column in (1, 2):
            found = [
                (_cost(run, kind, column), run.evaluation[kind]["miou"], name * (kind == "raw"))
                for run, name in zip(runs, names, strict=True)
                for kind in run.kinds
            ]
            points = [(x, y, name) for x, y, name in found if x and y is not None]
            if points and column == 2:  # where the axis begins
                points.append((0, points[0][1], ""))
            name_points(figure, points, (380, 240), log=column == 1, row=1, col=column)
    known = [adds for run in runs if (adds := _cost(run, "raw", 1))]
    title = "multiply-adds (10\u2079, 512x512)"
    figure.update_xaxes(**log_axis(known, title), row=1, col=1)
    figure.update_xaxes(rangemode="tozero", title="s per photo, where it was scored", row=1, col=2)
    figure.update_yaxes(title="mean IoU", row=1, col=1)
    return finished(figure, 420)


def _cost(run: Run, kind: str, column: int) -> float | None:
    cost = run.evaluation["cost"]
    if column == 1:
        adds = cost.get("multiply_adds_512")
        return None if adds is None else adds / 1e9
    seconds = cost.get("seconds_per_photo_forward")
    crf = (run.evaluation["crf"] or {}).get("seconds_per_photo") or 0
    return None if seconds is None else seconds + crf * (kind == "refined")


def failing_classes(shares: dict[str, float], runs: Sequence[Run]) -> go.Figure:
    """IoU of each class over the runs, against its share of the pixels.

    Args:
        shares: Share of the labelled pixels by class name, 0 to 1.
        runs: The runs.
    """
    figure = go.Figure()
    points: dict[str, tuple[float, float, str]] = {}
    names = dict(zip(shares, shorts(list(shares), 18), strict=True))
    for kind in KINDS:
        x, y, low, high, hovers = [], [], [], [], []
        for name, share in shares.items():
            found = [values_by_class(run, kind, [name])[0] for run in runs if name in run.classes]
            known = [value for value in found if value is not None]
            if not known or not share:
                continue
            middle = float(np.median(known))
            x.append(100 * share)
            y.append(middle)
            low.append(middle - min(known))
            high.append(max(known) - middle)
            points[name] = 100 * share, middle, names[name]
            spread = f"{min(known):.3f} to {max(known):.3f}"
            hovers.append(f"{text(name)}, {kind}: {middle:.3f} ({spread})<br>{share:.2%} of pixels")
        figure.add_scatter(
            x=x,
            y=y,
            error_y={"array": high, "arrayminus": low, "thickness": 1, "width": 3},
            mode="markers",
            name=kind,
            marker={"color": OF_KIND[kind], "size": 9, "symbol": symbol_of(kind)},
            hoverinfo="text",
            hovertext=hovers,
        )
    percent = [share for share, _, _ in points.values()]
    ends = [(min(percent), end, "") for end in IOU_RANGE if percent]
    name_points(figure, [*points.values(), *ends], (560, 280), log=True)
    figure.update_xaxes(**log_axis(percent, "share of the labelled pixels, %"))
    figure.update_yaxes(range=IOU_RANGE, title="IoU: median, least and most of the runs")
    return finished(figure, 440)


def confused_pairs(runs: Sequence[Run]) -> go.Figure:
    """The class pairs that most runs confuse: the share of a class that goes to another."""
    table = confusions_table(runs)
    means = table.groupby(["true", "predicted"])["share"].sum().sort_values(ascending=False)
    pairs = list(means.index[:MOST_PAIRS])
    figure = go.Figure()
    for kind, offset in zip(KINDS, (-0.15, 0.15), strict=True):
        ours = table[table["kind"] == kind]
        x, y, hovers = [], [], []
        for place, (true, predicted) in enumerate(pairs):
            rows = ours[(ours["true"] == true) & (ours["predicted"] == predicted)]
            for run, share in zip(rows["run"], rows["share"], strict=True):
                x.append(100 * share)
                y.append(place + offset)
                hovers.append(f"{text(run)}, {kind}: {share:.1%}")
        marker = {"color": OF_KIND[kind], "size": 8, "opacity": 0.65, "symbol": symbol_of(kind)}
        points = go.Scatter(x=x, y=y, mode="markers", name=kind, marker=marker, hovertext=hovers)
        figure.add_trace(points.update(hoverinfo="text"))
    words = [f"{true} \N{RIGHTWARDS ARROW} {predicted}" for true, predicted in pairs]
    figure.update_yaxes(**rows_axis(words))
    figure.update_xaxes(title="% of the true class's pixels; a mark is a run", rangemode="tozero")
    return finished(figure, 120 + 28 * max(1, len(pairs)))


def symbol_of(kind: str) -> str:
    """The mark of a kind of labels."""
    return {"raw": "circle-open", "refined": "circle"}[kind]


def _written(rows: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """The numbers in the cells, in hundredths, where there is room; Plotly fits their size."""
    if sum(len(row) for row in rows) > MOST_WRITTEN:
        return {}
    cells = [["" if v is None else f"{100 * v:.0f}" for v in row] for row in rows]
    return {"text": cells, "texttemplate": "%{text}"}


def number(value: float | None) -> str:
    """As a hover has it."""
    return "-" if value is None else f"{value:.3f}"
