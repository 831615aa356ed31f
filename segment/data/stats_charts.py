"""A data set's counts as charts to hover over, for notebooks; stats_picture.py draws a PNG."""

import math

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from segment.chart_style import SCORE_SCALE, finished, log_axis, named_axis, rows_axis, short, text
from segment.data.stats import Stats
from segment.data.taxonomy import Taxonomy

_COLUMNS = 4  # of heat maps beside each other
_CELL = 180  # pixels that one is high, with its title


def class_counts(stats: Stats) -> go.Figure:
    """Objects, photos and pixels of each class, on logarithmic scales."""
    names = stats.taxonomy.classes
    counts = {
        "objects": np.array(stats.objects),
        "photos": stats.together.diagonal(),
        "pixels": stats.pixels,
    }
    figure = make_subplots(1, 3, shared_yaxes=True, subplot_titles=list(counts))
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in stats.taxonomy.colors]
    for column, (word, numbers) in enumerate(counts.items(), start=1):
        figure.add_bar(
            x=numbers,
            y=list(range(len(names))),
            orientation="h",
            marker={"color": colors, "line": {"color": "#444", "width": 1}},
            text=[f"{number:,}" for number in numbers],
            textposition="auto",
            hoverinfo="text",
            hovertext=[f"{text(n)}: {c:,} {word}" for n, c in zip(names, numbers, strict=True)],
            showlegend=False,
            row=1,
            col=column,
        )
        most = math.log10(max(10, int(numbers.max())))
        figure.update_xaxes(type="log", dtick=1, range=[0, 1.05 * most], row=1, col=column)
    figure.update_yaxes(**rows_axis(names))
    return finished(figure, 120 + 26 * len(names))


def object_sizes(stats: Stats) -> go.Figure:
    """The root of each object's area in pixels, by class: median, quartiles, the farthest."""
    figure = go.Figure()
    names = stats.taxonomy.classes
    for place, sizes in enumerate(stats.sizes):
        figure.add_box(
            x=sizes,
            y=np.full(len(sizes), place),
            orientation="h",
            name=short(names[place]),
            marker={"color": "#0072B2", "size": 4, "opacity": 0.5},
            boxpoints="outliers",
            showlegend=False,
        )
    figure.update_yaxes(**rows_axis(names))
    every = [size for sizes in stats.sizes for size in sizes]
    figure.update_xaxes(**log_axis(every, "root of the object's area, px"))
    return finished(figure, 150 + 30 * len(names))


def cooccurrence(stats: Stats) -> go.Figure:
    """Of the photos with the row's class, the share that shows the column's too, %."""
    names = stats.taxonomy.classes
    photos = stats.together.diagonal()
    shares = 100 * stats.together / np.maximum(1, photos)[:, None]
    shares[photos == 0] = np.nan
    hovers = [
        [
            f"{both:,} of {number:,} photos with {text(row)} show {text(column)}"
            for column, both in zip(names, line, strict=True)
        ]
        for row, number, line in zip(names, photos, stats.together, strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            zmin=0,
            zmax=100,
            colorscale=SCORE_SCALE,
            colorbar={"thickness": 10, "title": "%"},
            texttemplate="%{z:.0f}" if len(names) <= 30 else None,
            hoverinfo="text",
            hovertext=hovers,
            xgap=1,
            ygap=1,
        )
    )
    figure.update_xaxes(**named_axis(names, tickangle=-50), showgrid=False)
    figure.update_yaxes(**rows_axis(names), showgrid=False)
    return finished(figure, 180 + 26 * len(names))


def position_maps(taxonomy: Taxonomy, places: NDArray[np.float64]) -> go.Figure:
    """A heat map for each class that occurs: where in the photo it lies.

    Args:
        taxonomy: The classes.
        places: As `positions` returns them; each map has its own scale, from 0 to its largest.
    """
    shown = [c for c in range(taxonomy.num_classes) if not np.isnan(places[c]).any()]
    lines = max(1, math.ceil(len(shown) / _COLUMNS))
    titles = [f"{short(taxonomy.classes[c], 18)}, to {places[c].max():.0%}" for c in shown]
    gaps = {"horizontal_spacing": 0.02, "vertical_spacing": 0.28 / lines}
    figure = make_subplots(lines, _COLUMNS, subplot_titles=titles, **gaps)
    for number, c in enumerate(shown):
        figure.add_heatmap(
            z=places[c],
            zmin=0,
            colorscale=SCORE_SCALE,
            showscale=False,
            hovertemplate="%{z:.1%}<extra></extra>",
            row=number // _COLUMNS + 1,
            col=number % _COLUMNS + 1,
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    return finished(figure, 60 + _CELL * lines)
