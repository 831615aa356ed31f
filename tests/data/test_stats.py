import csv
import json
from pathlib import Path

import numpy as np
import pytest

from segment.data.coco import CocoFile
from segment.data.stats import Stats, count, table, write_csv
from segment.data.stats_picture import draw
from segment.data.taxonomy import Taxonomy


def box(number: int, image: int, category: int, left: int, width: int, **more) -> dict:
    """A box of `width` x 10 pixels at the photo's top."""
    right = left + width
    polygon = [[left, 0, right, 0, right, 10, left, 10]]
    ids = {"id": number, "image_id": image, "category_id": category}
    return ids | {"segmentation": polygon} | more


@pytest.fixture
def path(tmp_path) -> Path:
    """Two photos of 200 pixels. Metal 50; paper 100 + 40 = 140; glass none; background 210."""
    names = ["Metal", "Paper", "Glass"]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 10, "width": 20} for i in (1, 2)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": [box(1, 1, 1, 0, 5), box(2, 1, 2, 5, 10), box(3, 2, 2, 0, 4)],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def stats(path) -> Stats:
    return count(CocoFile(path, path.parent, check_photos=False))


def test_counts_two_photos_as_by_hand(stats) -> None:
    assert stats.photos == 2
    assert stats.pixels.tolist() == [210, 50, 140, 0]
    assert stats.objects == [0, 1, 2, 0]
    assert stats.together.tolist() == [[2, 1, 2, 0], [1, 1, 1, 0], [2, 1, 2, 0], [0, 0, 0, 0]]
    q1, q2, q3 = stats.quartiles()[2]
    small, large = 40**0.5, 100**0.5
    assert [q1, q2, q3] == pytest.approx(
        [small + (large - small) * share for share in (0.25, 0.5, 0.75)]
    )
    assert np.isnan(stats.quartiles()[3]).all()


def test_median_frequency_as_by_hand(stats) -> None:
    # 210 / 400, 50 / 200, 140 / 400; their median is 0.35.
    assert stats.median_frequency_weights() == pytest.approx([0.35 / 0.525, 0.35 / 0.25, 1, 0])


def test_inverse_frequency_as_by_hand(stats) -> None:
    # 400 pixels over 3 classes that occur.
    weights = stats.inverse_weights()
    assert weights == pytest.approx([400 / 630, 400 / 150, 400 / 420, 0])
    assert (weights * stats.pixels).sum() / 400 == pytest.approx(1)


def test_crowds_and_ignored_categories_count_nowhere(path) -> None:
    content = json.loads(path.read_text())
    content["annotations"] += [box(4, 2, 2, 10, 2, iscrowd=1), box(5, 2, 3, 15, 5)]
    path.write_text(json.dumps(content))
    taxonomy = Taxonomy.from_dict(
        {
            "name": "two",
            "classes": ["Background", "Metal", "Paper"],
            "colors": [[0, 0, 0], [255, 0, 0], [0, 255, 0]],
            "background": 0,
            "mapping": {"Metal": 1, "Paper": 2, "Glass": 255},
        }
    )
    stats = count(CocoFile(path, path.parent, taxonomy=taxonomy, check_photos=False))
    assert stats.objects == [0, 1, 2]
    assert stats.pixels.tolist() == [210 - 20 - 50, 50, 140]
    assert stats.seen.tolist() == [330, 200, 330]


def test_table_warns_and_gives_a_line_for_the_yaml(stats) -> None:
    text = table(stats)
    assert "warning: no pixel of Glass; the weight there is 0." in text
    assert "class_weights: [0.6667, 1.4, 1, 0]  # median frequency" in text
    assert "class_weights: [0.6349, 2.667, 0.9524, 0]  # inverse frequency" in text


def test_data_without_annotations_divide_by_nothing(path) -> None:
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    stats = count(CocoFile(path, path.parent, check_photos=False))
    assert not stats.pixels.any()
    assert not stats.inverse_weights().any()
    assert not stats.median_frequency_weights().any()
    assert "no pixel of Background, Metal, Paper, Glass" in table(stats)
    assert draw(stats).width > 100


def test_writes_tables_and_a_picture_with_the_class_colours(stats, tmp_path) -> None:
    write_csv(stats, tmp_path)
    with (tmp_path / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["Background", "Metal", "Paper", "Glass"]
    assert rows[2]["pixels"] == "140"
    assert rows[2]["pixel_percent"] == "35.000"
    assert rows[3]["size_median"] == ""
    with (tmp_path / "cooccurrence.csv").open() as file:
        assert list(csv.reader(file))[2] == ["Metal", "1", "1", "1", "0"]
    found = {color for _, color in draw(stats).getcolors(1_000_000)}
    assert set(stats.taxonomy.colors[:3]) <= found
