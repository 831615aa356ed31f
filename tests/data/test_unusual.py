"""Sizes that stand out, objects outlined twice, and where classes lie: by hand."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segment.data.coco import CocoFile
from segment.data.stats import positions
from segment.data.unusual import find_unusual, picture_of

SIDE = 120


@pytest.fixture
def coco(tmp_path: Path) -> CocoFile:
    """Twelve squares of Paper, 18 to 22 pixels wide, one of 4 and one of 100; a Can, outlined
    as Paper too; a crowd and an ignored one that are small as well."""
    annotations: list[dict[str, Any]] = []

    def add(image: int, category: int, x: int, y: int, side: int, **more: Any) -> None:
        outline = [x, y, x + side, y, x + side, y + side, x, y + side]
        annotations.append(
            {"id": len(annotations) + 1, "image_id": image, "category_id": category}
            | {"segmentation": [outline], "iscrowd": 0}
            | more
        )

    for image, side in enumerate([18, 19, 20, 21, 22, 20, 19, 21, 20, 18, 22, 20, 4, 100]):
        add(image, 1, 10, 10, side)
    add(0, 2, 60, 60, 20)
    add(0, 1, 60, 60, 19)
    add(1, 1, 80, 80, 3, iscrowd=1)
    rng = np.random.default_rng(0)
    images = []
    for image in range(14):
        pixels = rng.integers(0, 200, (SIDE, SIDE, 3), np.uint8)
        (tmp_path / f"{image}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        images.append({"id": image, "file_name": f"{image}.png", "width": SIDE, "height": SIDE})
    categories = [{"id": 1, "name": "Paper"}, {"id": 2, "name": "Can"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "all.json").write_text(json.dumps(content))
    return CocoFile(tmp_path / "all.json", tmp_path)


def test_what_stands_out_is_found_and_nothing_else(coco: CocoFile) -> None:
    found = {one.annotation: one for one in find_unusual(coco)}
    assert set(found) == {13, 14, 15}
    assert found[13].reason == "small: 4 px, half of Paper are 19 to 21 px"
    assert found[14].reason.startswith("large: 100 px")
    # 19 x 19 of 20 x 20 pixels
    assert found[15].reason == (
        "covers the same pixels as annotation 16, Paper (intersection over union 0.90)"
    )
    assert (found[13].photo.file_name, found[13].box) == ("12.png", (10, 10, 4, 4))


def test_a_picture_shows_the_surroundings_with_a_box(coco: CocoFile) -> None:
    large = next(one for one in find_unusual(coco) if one.annotation == 14)
    picture = picture_of(coco, large, 240)
    assert picture.shape == (240, 240, 3)
    # 200 x 200 pixels around (60, 60), at 1.2: the box is from 60 to 180, the photo from 48 to 192.
    np.testing.assert_array_equal(picture[120, 60], (255, 230, 0))
    np.testing.assert_array_equal(picture[20, 20], 255)
    assert (picture[100:140, 100:140] < 200).all()


def test_positions_by_hand(coco: CocoFile) -> None:
    places = positions(coco, 12)  # cells of 10 x 10 pixels
    assert places.shape == (3, 12, 12)
    # The twin covers all but the last row and column: what is left of the can is an edge.
    edge = np.zeros((12, 12))
    edge[6:8, 7] = edge[7, 6:8] = 0.1
    edge[7, 7] = 0.19
    np.testing.assert_allclose(places[2], edge, atol=1e-6)
    # A photo's share of background: one where no object ever is.
    assert places[0][0, 0] == 1
    assert places[1][1, 1] == pytest.approx((13 + 0.16) / 14)
