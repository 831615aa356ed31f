"""Pictures of a tuning: every trial of a search, every step of a learning."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.files import write_atomically
from segment.tuning.gradient import Step
from segment.tuning.search import SEARCHED, Point, Trial

PANEL, MARGIN, DOT = 380, 62, 17
INK, FAINT = (40, 40, 40), (205, 205, 205)
BLUE, ORANGE = (178, 114, 0), (0, 94, 213)  # told apart by colour-blind readers, too


def write_landscape(path: Path, trials: list[Trial], objective: str, taken: Point) -> None:
    """Draw one panel for each range of weights, both widths on logarithmic axes.

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
    scores = np.array([score for _, score in drawn])
    groups = _groups(points[:, 0])
    low, high = points[:, 1:].min(0) - 0.1, points[:, 1:].max(0) + 0.1
    shade = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-9)
    ramp = np.rint(255 * shade).astype(np.uint8)[:, None]
    colors = cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, 0]
    panels = []
    for group in groups:
        canvas = np.full((PANEL, PANEL, 3), 255, np.uint8)
        weights = np.exp(points[group, 0])
        _write(canvas, _span(SEARCHED[0], weights), (MARGIN, 22))
        _write(canvas, "bilateral_width_px", (PANEL // 2 - 60, PANEL - 8))
        _write(canvas, "levels", (4, 44))
        for axis in (0, 1):
            for value in _ticks(points[:, 1 + axis]):
                place = _place(np.array([value, value]), low, high)[axis]
                ends = ((place, MARGIN), (place, PANEL - MARGIN))
                if axis:
                    ends = ((MARGIN, place), (PANEL - MARGIN, place))
                cv2.line(canvas, *ends, FAINT, 1, cv2.LINE_AA)
                at = (8, place + 5) if axis else (place - 12, PANEL - MARGIN + 20)
                _write(canvas, f"{math.exp(value):.3g}", at)
        for index in group[np.argsort(scores[group])]:  # the best on top
            x, y = _place(points[index, 1:], low, high)
            cv2.circle(canvas, (x, y), DOT, colors[index].tolist(), -1, cv2.LINE_AA)
            if drawn[index][0] == taken:
                cv2.circle(canvas, (x, y), DOT + 3, INK, 2, cv2.LINE_AA)
            white = int(colors[index].sum()) < 330
            _write(canvas, f"{100 * scores[index]:.1f}", (x - 14, y + 4), white=white)
        panels.append(canvas)
    _save(path, panels, f"{objective} in per cent, raw labels not drawn; ring: what is taken")


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
    _save(path, [left, right], f"{len(steps)} steps, one photo each")


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


def _save(path: Path, panels: list[NDArray[np.uint8]], title: str) -> None:
    """Panels side by side below a title."""
    above = np.full((30, PANEL * len(panels), 3), 255, np.uint8)
    _write(above, title, (12, 20))
    done, data = cv2.imencode(".png", np.vstack([above, np.hstack(panels)]))
    assert done
    write_atomically(path, data.tobytes())


def _groups(weights: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Trials by a third of the weights' range, without the empty ones."""
    edges = np.linspace(weights.min(), weights.max() + 1e-9, 4)
    number = np.clip(np.searchsorted(edges, weights, side="right") - 1, 0, 2)
    return [np.flatnonzero(number == n) for n in range(3) if (number == n).any()]


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


def _write(canvas: NDArray[np.uint8], text: str, at: tuple[int, int], white: bool = False) -> None:
    color = (255, 255, 255) if white else INK
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, 1, cv2.LINE_AA)
