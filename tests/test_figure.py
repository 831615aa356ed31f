"""The figure of score and belief maps shows what DenseCRF gives after so many iterations."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from segment.crf import DenseCRF
from segment.figure import GAP, HEAD, ITERATIONS, belief_figure

HEIGHT, WIDTH = 150, 220  # cells are then as large as the photo
WEAK = DenseCRF(position_weight=0.2, bilateral_weight=2.5)  # still moves after 5 iterations


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray]:
    """Bright, with an edge; two classes, unsure."""
    rng = np.random.default_rng(0)
    photo = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
    photo[:, 120:] = 160
    first = np.where(np.arange(WIDTH) < 110, 0.55, 0.45) + rng.uniform(-0.25, 0.25, (HEIGHT, WIDTH))
    return photo, np.stack([first, 1 - first]).astype(np.float32)


def cell(figure: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = HEAD + row * (HEIGHT + GAP), column * (WIDTH + GAP)
    return figure[top : top + HEIGHT, left : left + WIDTH]


def drawn(shade: np.ndarray) -> np.ndarray:
    levels = np.rint(255 * shade.clip(0, 1)).astype(np.uint8)
    return cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1]


def test_each_column_is_the_crf_after_its_iterations(case) -> None:
    photo, maps = case
    figure = belief_figure(photo, maps, replace(WEAK, iterations=3), ["tin", "can"])
    refined = [replace(WEAK, iterations=n)(photo, maps).numpy() for n in ITERATIONS]
    assert (refined[-1].argmax(0) == 0).mean() > 0.51  # so class 0 is drawn first
    for train_id in (0, 1):
        for column, belief in enumerate(refined, start=1):
            q = belief[train_id]
            for row, expected in ((0, 1 + np.log(q) / 8), (1, q)):
                found = cell(figure, 2 * train_id + row, column)
                off = np.abs(found.astype(int) - drawn(expected))
                assert np.percentile(off, 99) <= 4, (train_id, column, row)  # a level of rounding
    for one, other in pairwise(refined):  # columns differ
        assert np.percentile(np.abs(one - other), 95) > 0.03


def test_names_stand_on_a_dark_strip_and_colours_have_a_scale(case) -> None:
    photo, maps = case
    figure = belief_figure(photo, maps, DenseCRF(), ["tin", "very " * 30])
    for row in range(4):
        strip = cell(figure, row, 0)[:HEAD]
        assert (strip == 30).mean() > 0.5
        assert strip.max() == 255  # written on it
        assert (strip[:, -4:] == 30).all()  # and within it
    below = figure[HEAD + 4 * (HEIGHT + GAP) :]
    ends = [drawn(np.array([[end]]))[0, 0] for end in (0.0, 1.0)]
    for line in (below[:HEAD], below[HEAD:]):
        places = [np.flatnonzero((line[HEAD // 2] == end).all(1)) for end in ends]
        assert places[0].size
        assert places[0].max() < places[1].min()
    tall = belief_figure(photo[:, :20].copy(), maps[..., :20].copy(), DenseCRF(), ["tin", "can"])
    assert tall.ndim == 3
