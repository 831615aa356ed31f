"""How charts look, and users' names in them: shown as they are, told apart, none of it markup."""

import math
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
_LINE = 14  # pixels that a line of small text takes
_LETTER = 6  # and a letter of it, about
_Line = tuple[float, float, float, float]


def text(name: str) -> str:
    """A name in a chart: Plotly takes tags in texts for markup."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short(name: str, longest: int = LONGEST) -> str:
    """The same, cut in the middle where it would leave no room for the chart."""
    return text(_cut(name, longest))


def shorts(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """Names that belong together, cut where they are long, and still told apart.

    Words that all begin with go first, then the middle, and of that no more than keeps unlike
    names unlike.
    """
    different = len(set(names))
    widest = max(map(len, names), default=0)
    if widest <= longest:
        return [text(name) for name in names]
    first, last = min(names), max(names)  # what these two begin with, all do
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    begin = max(first.rfind(sign, 0, same) for sign in " _-./") + 1
    if begin > 2:
        names = [f"\N{HORIZONTAL ELLIPSIS}{name[begin:]}" for name in names]
    cut = list(names)
    for length in range(longest, widest + 1):
        cut = [_cut(name, length) for name in names]
        if len(set(cut)) == different:
            break
    return [text(name) for name in cut]


def _cut(name: str, longest: int) -> str:
    half = longest // 2 - 1
    if len(name) <= longest:
        return name
    return f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


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
    ticks = {"tickvals": list(range(len(names))), "ticktext": shorts(names)}
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


def log_axis(values: Sequence[float], title: str) -> dict[str, Any]:
    """A logarithmic axis whose every tick is written in full: 0.5, 1, 2, 5, 10.

    Plotly's own ticks between powers of ten are digits alone: 5, 1, 2, 5, 10.
    """
    known = [value for value in values if value > 0]
    low, high = min(known, default=1), max(known, default=1)
    steps = (1, 2, 5) if high < 300 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{step}e{power}") for power in powers for step in steps]
    words = [f"{tick:,.10g}" for tick in ticks]
    return {"type": "log", "title": title, "tickvals": ticks, "ticktext": words}


def name_points(
    figure: go.Figure,
    points: Sequence[tuple[float, float, str]],
    size: tuple[int, int],
    log: bool = False,
    **cell: int,
) -> None:
    """Write names beside points, where they cover neither points nor each other.

    Lines from points to names cross neither each other nor other points; a point without such a
    place has no name.

    Args:
        figure: The chart; its y axis spans the points.
        points: x, y and name, which is as `shorts` gives it, of each; "": it stays without.
        size: Pixels, at the least, that the points span from left to right and from top to bottom.
        log: Whether x is logarithmic.
        cell: `row` and `col` of a subplot.
    """

    def place(value: float, values: Sequence[float], pixels: int) -> float:
        return pixels * (value - min(values)) / ((max(values) - min(values)) or 1)

    xs = [math.log10(x) if log else x for x, _, _ in points]
    ys = [-y for _, y, _ in points]
    spots = [(place(x, xs, size[0]), place(y, ys, size[1])) for x, y in zip(xs, ys, strict=True)]
    taken = [(x - 8, x + 8, y) for x, y in spots]
    drawn: list[_Line] = []  # points as crosses, leaders, and names as lines
    for x, y in spots:
        drawn += [(x - 6, y, x + 6, y), (x, y - 6, x, y + 6)]
    for (x, y), at, point in sorted(zip(spots, xs, points, strict=True)):
        if not point[2]:
            continue
        inward = -1 if x > size[0] / 2 else 1
        steps = sorted(range(-8, 9), key=abs)
        for step, side in ((step, side) for step in steps for side in (inward, -inward)):
            middle = y + _LINE * step
            begin, end = x + 14 * side, x + (20 + _LETTER * len(point[2])) * side
            left, right = sorted((begin, end))
            inside = side == inward or (left >= 0 and right <= size[0])
            if not inside or not -_LINE < middle <= size[1]:
                continue
            free = all(left >= b or a >= right or abs(middle - c) >= _LINE for a, b, c in taken)
            lines: list[_Line] = [(x, y, begin, middle), (begin, middle, end, middle)]
            if not free or any(_cross(line, other) for line in lines for other in drawn):
                continue
            taken.append((left, right, middle))
            drawn += lines
            figure.add_annotation(
                x=at,
                y=point[1],
                ax=14 * side,
                ay=middle - y,
                text=point[2],
                xanchor="left" if side > 0 else "right",
                arrowhead=0,
                arrowwidth=1,
                arrowcolor="#999",
                font={"size": 10},
                **cell,
            )
            break


def _cross(one: _Line, other: _Line) -> bool:
    """Whether two lines, each as x, y, x, y, cross; to touch is not to cross."""

    def turn(line: _Line, x: float, y: float) -> float:
        return (line[2] - line[0]) * (y - line[1]) - (line[3] - line[1]) * (x - line[0])

    return (
        turn(one, *other[:2]) * turn(one, *other[2:]) < 0
        and turn(other, *one[:2]) * turn(other, *one[2:]) < 0
    )


def finished(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """A figure in the report's style; the legend has room of its own below ticks and titles."""
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}
    figure.update_layout(
        height=max(height, 300),
        margin={"l": 10, "r": 10, "t": 54, "b": 10},
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#222"},
        hoverlabel={"align": "left"},
        legend=legend | {"tracegroupgap": 0},
        **layout,
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure
