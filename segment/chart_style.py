"""How charts look, and users' names in them: shown as they are, told apart, none of it markup."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

# Okabe and Ito, "Color Universal Design", 2008: told apart by the colour-blind, and by lightness.
RAW, REFINED = "#E69F00", "#0072B2"
OF_KIND = {"raw": RAW, "refined": REFINED}
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999933")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot")
SCORE_SCALE = "Cividis"
CHANGE_SCALE = [
    [0, "#B35806"],
    [0.25, "#F1A340"],
    [0.5, "#F7F7F7"],
    [0.75, "#92C5DE"],
    [1, "#2166AC"],
]
LONGEST = 30


def text(name: str) -> str:
    """A name in a chart: Plotly takes tags in texts for markup."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short(name: str, longest: int = LONGEST) -> str:
    """The same, cut in the middle where it would leave no room for the chart."""
    if len(name) > longest:
        half = longest // 2 - 1
        name = f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"
    return text(name)


def line_of(number: int) -> dict[str, Any]:
    """Colour, dash and marker of the n-th run; no two of the first 32 are the same."""
    return {
        "line": {
            "color": PALETTE[number % len(PALETTE)],
            "dash": DASHES[number // len(PALETTE) % len(DASHES)],
            "width": 2,
        },
        "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 7},
    }


def named_axis(names: Sequence[str], **settings: Any) -> dict[str, Any]:
    """An axis of names at 0, 1, 2...: as categories, equal names would be one."""
    ticks = {"tickvals": list(range(len(names))), "ticktext": [short(name) for name in names]}
    return (
        {"tickmode": "array", "range": [-0.5, len(names) - 0.5], "zeroline": False}
        | ticks
        | settings
    )


def rows_axis(names: Sequence[str], **settings: Any) -> dict[str, Any]:
    """The same from top to bottom."""
    return named_axis(names, autorange=False, automargin=True, **settings) | {
        "range": [len(names) - 0.5, -0.5]
    }


def finished(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """A figure in the report's style."""
    height = max(height, 300)
    # Below ticks and title, which take the same room however high the chart is.
    below = -62 / (height - 150)
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 54, "b": 10},
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#222"},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "y": below, "yanchor": "top"},
        **layout,
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure
