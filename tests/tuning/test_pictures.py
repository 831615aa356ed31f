"""A landscape shows of every place that was tried the best."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from segment.tuning.pictures import landscape, write_landscape
from segment.tuning.search import Point, Trial


def scored(points: dict[Point, float]) -> list[Trial]:
    return [Trial(point, {"miou": score}) for point, score in points.items()]


def test_of_trials_at_one_place_the_best_is_shown() -> None:
    drawn = [((3.0, 30.0, 3.0), 0.4), ((3.1, 30.0, 3.0), 0.6), ((3.2, 30.0, 3.0), 0.5),
             ((3.0, 60.0, 6.0), 0.3), ((9.0, 30.0, 3.0), 0.2)]  # fmt: skip
    few, much = landscape(drawn, drawn[3][0])
    assert [(place.point, place.score) for place in few.places] == [drawn[3], drawn[1]]
    assert few.weights.tolist() == pytest.approx([3.0, 3.1, 3.2, 3.0])
    assert [(place.point, place.score) for place in much.places] == [drawn[4]]
    # What is taken is shown even where another at its place is better.
    kept, _ = landscape(drawn, drawn[0][0])
    assert drawn[0] in [(place.point, place.score) for place in kept.places]


def viridis(shade: int) -> list[int]:
    return cv2.applyColorMap(np.array([[shade]], np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0].tolist()


def test_no_dot_or_number_hides_another_s_middle(tmp_path: Path) -> None:
    """A fine round about the best: steps of 2^(1/4) in both widths."""
    steps = [2 ** (n / 4) for n in range(5)]
    coarse = {(5.0, px, levels): 0.5 for px in (30.0, 100.0, 500.0) for levels in (3.0, 20.0)}
    fine = {(5.0, 100 * a, 5 * b): 0.6 for a in steps for b in steps}
    best = (5.0, 100.0, 5.0)
    points = {**coarse, **fine}
    path = tmp_path / "landscape.png"
    write_landscape(path, scored(points), "miou", best)
    picture = cv2.imread(str(path))
    (panel,) = landscape(list(points.items()), best)
    above = len(picture) - picture.shape[1]  # panels are square
    assert len(panel.places) == len(points)
    for place in panel.places:
        color = picture[above + place.y, place.x].tolist()
        assert color == viridis(255 if place.score == 0.6 else 0)
