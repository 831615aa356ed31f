"""A picture of what a search found: every trial, by its two widths and its weight."""

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.files import write_atomically
from segment.tuning.search import SEARCHED, Trial

PANEL, MARGIN, DOT = 380, 62, 17
INK, FAINT = (40, 40, 40), (205, 205, 205)


def write_landscape(path: Path, trials: list[Trial], objective: str) -> None:
    """Draw one panel for each range of weights, both widths on logarithmic axes.

    Args:
        path: PNG to write.
        trials: Those with a point are drawn.
        objective: Which score.
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
            if scores[index] == scores.max():
                cv2.circle(canvas, (x, y), DOT + 3, INK, 2, cv2.LINE_AA)
            white = int(colors[index].sum()) < 330
            _write(canvas, f"{100 * scores[index]:.1f}", (x - 14, y + 4), white=white)
        panels.append(canvas)
    title = np.full((30, PANEL * len(panels), 3), 255, np.uint8)
    _write(title, f"{objective} in per cent, raw labels not drawn; ring: the best", (12, 20))
    done, data = cv2.imencode(".png", np.vstack([title, np.hstack(panels)]))
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
