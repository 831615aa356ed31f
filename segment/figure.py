"""DeepLab's picture of what the CRF does: score and belief maps, iteration by iteration.

After Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected
CRFs", ICLR 2015, figure 2: the score map is the input of the softmax, the belief map its output.
"""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from segment.crf import DenseCRF
from segment.scoring import at_size, refine

ITERATIONS = (0, 1, 2, 5, 10)
SEEN = 0.005  # share of the pixels, before or after, from which on a class is drawn
SIDE, HEAD, GAP = 220, 22, 4
INK = (30,) * 3
LOWEST = -8.0  # log probability that is drawn as the darkest


def belief_figure(
    image: NDArray[np.uint8], maps: NDArray[np.float32], crf: DenseCRF, names: Sequence[str]
) -> NDArray[np.uint8]:
    """Two rows for each class that is seen, most pixels first; a column per number of iterations.

    Cells are SIDE pixels at their longer side, GAP apart, below HEAD pixels of heads and above a
    scale of the colours.

    Args:
        image: The photo, uint8 RGB (H, W, 3).
        maps: The network's probabilities, float32 (C, h, w).
        crf: Whose iterations are replaced.
        names: Of the classes.

    Returns:
        uint8 RGB.
    """
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    cell = max(1, round(height * scale)), max(1, round(width * scale))
    beliefs = [at_size(torch.from_numpy(maps), crf.working_size(height, width)).numpy()]
    beliefs += [refine(image, maps, replace(crf, iterations=n))[0] for n in ITERATIONS[1:]]
    shares = np.maximum(*(_shares(belief) for belief in (beliefs[0], beliefs[-1])))
    least = min(SEEN, shares.max())
    shown = [int(c) for c in np.argsort(-shares, kind="stable") if shares[c] >= least]
    photo = cv2.resize(image, cell[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8)
    heads = ["photo", "network", *(f"{n} iteration{'s' if n > 1 else ''}" for n in ITERATIONS[1:])]
    rows = [np.hstack([_head(word, cell[1]) for word in heads])]
    for train_id in shown:
        values = [belief[train_id] for belief in beliefs]
        scores = [(np.log(np.maximum(v, 1e-30)) / -LOWEST + 1).clip(0, 1) for v in values]
        for kind, drawn in (("score", scores), ("belief", values)):
            first = _named(photo, f"{kind}: {names[train_id]}")
            rows.append(np.hstack([_framed(first), *(_framed(_heat(v, cell)) for v in drawn)]))
    rows.append(_scale("score: log probability,", f"{LOWEST:g} or less", "0", rows[0].shape[1]))
    rows.append(_scale("belief: probability,", "0", "1", rows[0].shape[1]))
    widest = max(row.shape[1] for row in rows)
    room = [((0, 0), (0, widest - row.shape[1]), (0, 0)) for row in rows]
    return np.vstack(
        [np.pad(row, more, constant_values=255) for row, more in zip(rows, room, strict=True)]
    )


def _shares(belief: NDArray[np.float32]) -> NDArray[np.floating]:
    """Of the pixels, by class."""
    labels = belief.argmax(0).ravel()
    return np.bincount(labels, minlength=len(belief)) / labels.size


def _heat(values: NDArray[np.float32], cell: tuple[int, int]) -> NDArray[np.uint8]:
    small = cv2.resize(values.astype(np.float32), cell[::-1], interpolation=cv2.INTER_AREA)
    colored = cv2.applyColorMap(np.rint(255 * small).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(colored[..., ::-1])


def _framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def _head(word: str, width: int) -> NDArray[np.uint8]:
    canvas = np.full((HEAD, width + GAP, 3), 255, np.uint8)
    _write(canvas, word, (4, 15), INK)
    return canvas


def _named(photo: NDArray[np.uint8], words: str) -> NDArray[np.uint8]:
    """A photo with words on a dark strip, cut where they are too long."""
    named = photo.copy()
    shown = words
    while len(shown) > 1 and _width(shown) > photo.shape[1] - 8:
        shown = shown.removesuffix("...")[:-1] + "..."
    named[:HEAD] = INK
    _write(named, shown, (4, 15), (255,) * 3)
    return named


def _scale(words: str, low: str, high: str, width: int) -> NDArray[np.uint8]:
    """A row with the colours between two ends."""
    left = 4 + _width(f"{words} {low}") + 8
    canvas = np.full((HEAD, max(width, left + 108 + _width(high) + 4), 3), 255, np.uint8)
    _write(canvas, f"{words} {low}", (4, 15), INK)
    canvas[4 : HEAD - 4, left : left + 100] = _heat(
        np.linspace(0, 1, 100, dtype=np.float32)[None], (HEAD - 8, 100)
    )
    _write(canvas, high, (left + 108, 15), INK)
    return canvas


def _width(words: str) -> int:
    return cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]


def _write(
    canvas: NDArray[np.uint8], words: str, at: tuple[int, int], color: tuple[int, ...]
) -> None:
    cv2.putText(canvas, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)
