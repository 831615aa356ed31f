"""Pictures of a tuning: every trial of a search, every step of a learning."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.files import write_atomically
from segment.tuning.gradient import Step
from segment.tuning.search import SEARCHED, Point, Trial

PANEL, MARGIN, DOT = 460, 62, 6
INK, FAINT = (40, 40, 40), (205, 205, 205)
BLUE, ORANGE = (178, 114, 0), (0, 94, 213)  # told apart by colour-blind readers, too


class Place(NamedTuple):
    """Where a panel has a dot: the best trial of those whose widths lie there.

    Attributes:
        x: Pixels from the panel's left.
        y: Pixels from its top.
        point: Of that trial.
        score: Of that trial.
    """

    x: int
    y: int
    point: Point
    score: float


class Panel(NamedTuple):
    """Trials of a range of weights: how many, and the best of each place, the best of all last."""

    weights: NDArray[np.float64]
    places: list[Place]


def write_landscape(path: Path, trials: list[Trial], objective: str, taken: Point) -> None:
    """Draw one panel for each range of weights, both widths on logarithmic axes.

    Where trials differ in the weight alone their dots would lie on each other: the best is shown.

    Args:
        path: PNG to write.
        trials: Those with a point are drawn.
        objective: Which score.
        taken: The point with a ring, which is not the best where another search went further.
    """
    drawn = [(trial.point, trial.scores[objective]) for trial in trials if trial.point is not None]
    drawn = [(point, score) for point, score in drawn if not math.isnan(score)]
    if not drawn:
        return
    points = np.log([point for point, _ in drawn])
    panels = landscape(drawn, taken)
    shown = [place.score for panel in panels for place in panel.places]
    ends = min(shown), max(shown)
    canvases = []
    for panel in panels:
        canvas = np.full((PANEL, PANEL, 3), 255, np.uint8)
        tried = f"{len(panel.weights)} trials, the best of each of {len(panel.places)} places"
        _write(canvas, _span(SEARCHED[0], panel.weights), (MARGIN, 18))
        _write(canvas, tried, (MARGIN, 36))
        _write(canvas, "bilateral_width_px", (PANEL // 2 - 60, PANEL - 8))
        _write(canvas, "levels", (4, 48))
        _grid(canvas, points)
        _dots(canvas, panel.places, taken, ends)
        canvases.append(canvas)
    title = f"{objective} in per cent"
    if (score := dict(drawn).get(taken)) is not None:  # its number may find no room
        title += f"; ring: what is taken, {100 * score:.2f}"
    above = _above(PANEL * len(panels), title)
    x = 12 + _width(title) + 30
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_VIRIDIS)
    low, high = (f"{100 * end:.1f}" for end in ends)
    if x + 300 > above.shape[1]:  # a single panel has no room beside the words
        above, x = np.vstack([above, _above(PANEL, "")]), 12
    right = x + _width(low) + 8
    _write(above, low, (x, len(above) - 10))
    above[-22:-8, right : right + 120] = cv2.resize(ramp, (120, 14))
    _write(above, high, (right + 128, len(above) - 10))
    _save(path, canvases, above)


def landscape(drawn: Sequence[tuple[Point, float]], taken: Point) -> list[Panel]:
    """What the panels of a landscape show: of trials at one place the best, or the taken one."""
    points = np.log([point for point, _ in drawn])
    low, high = _corners(points)
    panels = []
    for group in _groups(points[:, 0]):
        places: dict[tuple[int, int], Place] = {}
        for index in sorted(group, key=lambda n: (drawn[n][0] == taken, drawn[n][1])):
            x, y = _place(points[index, 1:], low, high)
            places[x, y] = Place(x, y, *drawn[index])
        best_last = sorted(places.values(), key=lambda place: place.score)
        panels.append(Panel(np.exp(points[group, 0]), best_last))
    return panels


def _grid(canvas: NDArray[np.uint8], points: NDArray[np.float64]) -> None:
    """Lines and numbers of both logarithmic axes."""
    for axis in (0, 1):
        for value in _ticks(points[:, 1 + axis]):
            place = _place(np.array([value, value]), *_corners(points))[axis]
            ends = ((place, MARGIN), (place, PANEL - MARGIN))
            if axis:
                ends = ((MARGIN, place), (PANEL - MARGIN, place))
            cv2.line(canvas, *ends, FAINT, 1, cv2.LINE_AA)
            at = (8, place + 5) if axis else (place - 12, PANEL - MARGIN + 20)
            width = math.exp(value)
            _write(canvas, f"{width:.0f}" if width >= 100 else f"{width:.3g}", at)


def _dots(
    canvas: NDArray[np.uint8], places: list[Place], taken: Point, ends: tuple[float, float]
) -> None:
    """Dots, the best on top, and the numbers that find room, those of the best first."""
    held = np.zeros(canvas.shape[:2], bool)
    for x, y, point, score in places:
        shade = round(255 * (score - ends[0]) / max(ends[1] - ends[0], 1e-9))
        color = cv2.applyColorMap(np.array([[shade]], np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0]
        cv2.circle(canvas, (x, y), DOT, color.tolist(), -1, cv2.LINE_AA)
        reach = DOT + 1
        if point == taken:
            cv2.circle(canvas, (x, y), DOT + 3, INK, 2, cv2.LINE_AA)
            reach = DOT + 5
        held[y - reach : y + reach + 1, x - reach : x + reach + 1] = True
    for x, y, point, score in sorted(places, key=lambda p: (p.point != taken, -p.score)):
        text, off = f"{100 * score:.1f}", DOT + 4 + 3 * (point == taken)
        width = _width(text)
        for left, base in ((x + off, y + 4), (x - off - width, y + 4), (x - width // 2, y - off),
                           (x - width // 2, y + off + 9)):  # fmt: skip
            room = held[base - 10 : base + 2, left - 1 : left + width + 1]
            if left >= MARGIN - DOT and left + width < PANEL - 4 and not room.any():
                canvas[base - 10 : base + 2, left - 1 : left + width + 1] = 255
                _write(canvas, text, (left, base))
                room[:] = True
                break


def write_curves(path: Path, steps: Sequence[Step]) -> None:
    """Draw the loss of every step with the mean around it, and both kernels' weights.

    Args:
        path: PNG to write; none without a step.
        steps: In their order.
    """
    if not steps:
        return
    losses, position, bilateral = np.array(steps).T
    # Each step is another photo's: single losses go up and down, the mean of many tells.
    reach = max(1, len(steps) // 10)
    mean = [losses[max(0, n - reach) : n + reach + 1].mean() for n in range(len(steps))]
    left = _axes(losses, "loss (cross-entropy of Q), and its mean", len(steps))
    for at in _line(losses, losses):
        cv2.circle(left, at, 2, FAINT, -1, cv2.LINE_AA)
    cv2.polylines(left, [_line(np.array(mean), losses)], False, BLUE, 2, cv2.LINE_AA)
    weights = np.concatenate([position, bilateral])
    right = _axes(weights, "weights: position (blue), bilateral (orange)", len(steps))
    for values, color in ((position, BLUE), (bilateral, ORANGE)):
        cv2.polylines(right, [_line(values, weights)], False, color, 2, cv2.LINE_AA)
    _save(path, [left, right], _above(2 * PANEL, f"{len(steps)} steps, one photo each"))


def _axes(values: NDArray[np.float64], title: str, steps: int) -> NDArray[np.uint8]:
    """A panel with a scale for values on the left and for steps below."""
    canvas = np.full((PANEL, PANEL, 3), 255, np.uint8)
    _write(canvas, title, (12, 22))
    for value in np.linspace(values.min(), values.max(), 5):
        y = int(_line(np.array([value]), values)[0, 1])
        cv2.line(canvas, (MARGIN, y), (PANEL - MARGIN // 2, y), FAINT, 1, cv2.LINE_AA)
        _write(canvas, f"{value:.3g}", (8, y + 5))
    _write(canvas, "1", (MARGIN - 4, PANEL - MARGIN + 20))
    _write(canvas, str(steps), (PANEL - MARGIN // 2 - 20, PANEL - MARGIN + 20))
    _write(canvas, "step", (PANEL // 2, PANEL - MARGIN + 20))
    return canvas


def _line(values: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points of a curve on a panel from `_axes(scale)`, int (n, 2)."""
    low, span = scale.min(), max(float(np.ptp(scale)), 1e-9)
    x = np.linspace(MARGIN, PANEL - MARGIN // 2, len(values))
    y = PANEL - MARGIN - (values - low) / span * (PANEL - 2 * MARGIN)
    return np.stack([x, y], 1).round().astype(np.int32)


def _above(width: int, title: str) -> NDArray[np.uint8]:
    """A strip with a title."""
    canvas = np.full((30, width, 3), 255, np.uint8)
    _write(canvas, title, (12, 20))
    return canvas


def _save(path: Path, panels: list[NDArray[np.uint8]], above: NDArray[np.uint8]) -> None:
    """Panels side by side below their title."""
    done, data = cv2.imencode(".png", np.vstack([above, np.hstack(panels)]))
    assert done
    write_atomically(path, data.tobytes())


def _groups(weights: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Trials by a third of the weights' range, without the empty ones."""
    edges = np.linspace(weights.min(), weights.max() + 1e-9, 4)
    number = np.clip(np.searchsorted(edges, weights, side="right") - 1, 0, 2)
    return [np.flatnonzero(number == n) for n in range(3) if (number == n).any()]


def _corners(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and largest widths of all panels, as logarithms, with a margin."""
    return points[:, 1:].min(0) - 0.1, points[:, 1:].max(0) + 0.1


def _place(
    point: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[int, int]:
    part = (point - low) / np.maximum(high - low, 1e-9)
    room = PANEL - 2 * MARGIN
    return int(MARGIN + part[0] * room), int(PANEL - MARGIN - part[1] * room)


def _ticks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linspace(values.min(), values.max(), 4) if np.ptp(values) else values[:1]


def _span(name: str, values: NDArray[np.float64]) -> str:
    least, most = values.min(), values.max()
    return f"{name} {least:.3g}" + ("" if np.isclose(least, most) else f" to {most:.3g}")


def _write(canvas: NDArray[np.uint8], text: str, at: tuple[int, int]) -> None:
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)


def _width(text: str) -> int:
    """Of what `_write` draws, in pixels."""
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
