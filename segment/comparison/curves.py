"""Curves of every run, raw beside refined: near edges, and calibration."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from segment.chart_style import OF_KIND, finished, line_of, rows_axis, shorts, text
from segment.comparison.charts import number, symbol_of
from segment.comparison.runs import KINDS, Run

# A bin of confidence with fewer pixels shows chance alone and is left out.
FEWEST_PIXELS, FEWEST_SHARE = 100, 1e-4


def trimap_curves(runs: Sequence[Run]) -> go.Figure:
    """Mean IoU near true edges, by the band's half-width."""

    def curve(run: Run, kind: str) -> dict[str, Any]:
        scores = run.evaluation[kind]["trimap_miou"]
        hovers = [f"{text(run.name)}, {kind}: {number(value)}" for value in scores.values()]
        return {"x": [*map(int, scores)], "y": [*scores.values()], "hovertext": hovers}

    figure = _by_run(runs, curve)
    figure.update_xaxes(type="log", title="half-width of the band, px")
    figure.update_xaxes(tickvals=[1, 2, 4, 8, 16, 32])
    figure.update_yaxes(title="mean IoU", row=1, col=1)
    return figure


def reliability(runs: Sequence[Run]) -> go.Figure:
    """How often pixels of a confidence are right; on the dashed line confidence is honest."""

    def curve(run: Run, kind: str) -> dict[str, Any]:
        bins = run.evaluation[kind]["calibration"]["bins"]
        total = sum(b["pixels"] for b in bins)
        fewest = max(FEWEST_PIXELS, FEWEST_SHARE * total)
        bins = [b for b in bins if b["pixels"] >= fewest]
        accuracies = [b["accuracy"] for b in bins]
        hovers = [
            f"{text(run.name)}, {kind}: {b['accuracy']:.3f} right at {b['confidence']:.3f}"
            f"<br>{b['pixels']:,} pixels, {b['pixels'] / total:.2%}"
            for b in bins
        ]
        sizes = [4 + 8 * (b["pixels"] / total) ** 0.5 for b in bins]
        x = [b["confidence"] for b in bins]
        return {"x": x, "y": accuracies, "hovertext": hovers, "marker_size": sizes}

    figure = _by_run(runs, curve)
    for column, whose in ((1, "of the network"), (2, "after the CRF")):
        line: dict[str, Any] = {"color": "#888", "dash": "dash", "width": 1}
        honest = go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, showlegend=False)
        figure.add_trace(honest.update(hoverinfo="skip"), row=1, col=column)
        figure.update_xaxes(title=f"confidence {whose}", row=1, col=column)
    figure.update_xaxes(range=[0, 1.02])
    figure.update_yaxes(range=[0, 1.02])
    figure.update_yaxes(title="share of pixels that are right", row=1, col=1)
    return figure


def calibration_error(runs: Sequence[Run]) -> go.Figure:
    """Expected calibration error, raw and refined; 0 is best."""
    figure = go.Figure()
    for kind in KINDS:
        having = [(place, run) for place, run in enumerate(runs) if kind in run.kinds]
        errors = [run.evaluation[kind]["calibration"]["ece"] for _, run in having]
        figure.add_scatter(
            x=errors,
            y=[place for place, _ in having],
            mode="markers",
            name=kind,
            marker={"color": OF_KIND[kind], "size": 10, "symbol": symbol_of(kind)},
            hoverinfo="text",
            hovertext=[
                f"{text(r.name)}, {kind}: {number(e)}"
                for (_, r), e in zip(having, errors, strict=True)
            ],
        )
    figure.update_yaxes(**rows_axis([run.name for run in runs]))
    figure.update_xaxes(rangemode="tozero", title="expected calibration error")
    return finished(figure, 130 + 24 * len(runs))


def _by_run(runs: Sequence[Run], curve: Any) -> go.Figure:
    """A line for each run, raw on the left and refined on the right."""
    figure = make_subplots(1, 2, shared_yaxes=True, subplot_titles=KINDS, horizontal_spacing=0.03)
    names = shorts([run.name for run in runs])
    for place, run in enumerate(runs):
        for column, kind in enumerate(KINDS, start=1):
            if kind not in run.kinds:
                continue
            line = go.Scatter(
                mode="lines+markers",
                name=names[place],
                legendgroup=str(place),
                showlegend=kind == "raw",
                hoverinfo="text",
                **line_of(place),
            )
            figure.add_trace(line.update(curve(run, kind)), row=1, col=column)
    return finished(figure, 400 + 10 * len(runs))
