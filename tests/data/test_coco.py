import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api
from real_data import DATA, needs_data

from segment.data.check import check
from segment.data.coco import CocoFile
from segment.data.taxonomy import IGNORE, Taxonomy


def box(x: float, y: float, width: float, height: float) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def outline(number: int, category: int, segmentation: object, **more: object) -> dict:
    base = {"id": number, "image_id": 5, "category_id": category, "segmentation": segmentation}
    return base | more


def sound() -> dict:
    """One photo of 8x10 pixels, with the id 5, and the categories 0 Bottle and 3 Cap."""
    return {
        "images": [{"id": 5, "file_name": "a.png", "height": 8, "width": 10}],
        "categories": [
            {"id": 3, "name": "Cap", "supercategory": "Small"},
            {"id": 0, "name": "Bottle", "supercategory": "Large"},
        ],
        "annotations": [outline(1, 0, box(1, 1, 4, 4))],
    }


def write(tmp_path: Path, content: object) -> Path:
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    path = tmp_path / "coco.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def paint(tmp_path: Path, annotations: list[dict], taxonomy: Taxonomy | None = None) -> np.ndarray:
    path = write(tmp_path, sound() | {"annotations": annotations})
    coco = CocoFile(path, tmp_path, taxonomy=taxonomy)
    return coco.paint(coco.photos[0])


def test_small_objects_lie_on_large_ones_whatever_the_order_and_the_jsons_area(
    tmp_path: Path,
) -> None:
    annotations = [
        outline(1, 3, box(3, 3, 2, 2), area=9999),
        outline(2, 0, box(1, 1, 6, 5), area=1),
    ]
    expected = np.zeros((8, 10), np.uint8)
    expected[1:6, 1:7] = 1  # Bottle, category id 0: not the background
    expected[3:5, 3:5] = 2
    for order in itertools.permutations(annotations):
        mask = paint(tmp_path, list(order))
        assert mask.tolist() == expected.tolist()
    assert mask.dtype == np.uint8
    assert mask.flags.c_contiguous


def test_of_equally_large_objects_the_higher_id_is_on_top_in_every_order(tmp_path: Path) -> None:
    annotations = [outline(i, i % 2 * 3, box(i, 0, 4, 4)) for i in range(4)]
    masks = [paint(tmp_path, list(order)) for order in itertools.permutations(annotations)]
    assert masks[0][0].tolist() == [1, 2, 1, 2, 2, 2, 2, 0, 0, 0]
    assert all((mask == masks[0]).all() for mask in masks)


def test_order_does_not_matter_even_where_ids_repeat(tmp_path: Path) -> None:
    annotations = [outline(1, 0, box(0, 0, 4, 4)), outline(1, 3, box(2, 0, 4, 4))]
    assert (paint(tmp_path, annotations) == paint(tmp_path, annotations[::-1])).all()


def test_objects_inside_a_crowd_stay_labelled(tmp_path: Path) -> None:
    mask = paint(
        tmp_path,
        [outline(1, 0, box(0, 0, 6, 6)), outline(2, 3, box(2, 2, 2, 2), iscrowd=1)],
    )
    assert set(np.unique(mask)) == {0, 1}  # the crowd lies wholly below the bottle
    mask = paint(
        tmp_path, [outline(1, 0, box(2, 2, 2, 2)), outline(2, 3, box(0, 0, 6, 6), iscrowd=1)]
    )
    assert (mask == IGNORE).sum() == 36 - 4
    assert (mask == 1).sum() == 4


def test_an_ignored_category_keeps_its_place_in_the_order(tmp_path: Path) -> None:
    taxonomy = Taxonomy("t", ("Bg", "Bottle"), ((0, 0, 0), (1, 1, 1)), 0, {"Bottle": 1, "Cap": 255})
    annotations = [
        outline(1, 0, box(0, 0, 8, 8)),
        outline(2, 3, box(1, 1, 4, 4)),
        outline(3, 0, box(2, 2, 2, 2)),
    ]
    mask = paint(tmp_path, annotations, taxonomy)
    assert [(mask == value).sum() for value in (0, 1, IGNORE)] == [16, 64 - 16 + 4, 12]


def test_merged_categories_share_a_train_id_and_no_background_means_255(tmp_path: Path) -> None:
    taxonomy = Taxonomy("t", ("Thing",), ((1, 1, 1),), None, {"Large": 0, "Cap": 0})
    annotations = [outline(1, 0, box(0, 0, 2, 2)), outline(2, 3, box(4, 0, 2, 2))]
    mask = paint(tmp_path, annotations, taxonomy)
    assert [(mask == value).sum() for value in (0, IGNORE)] == [8, 72]


def test_an_annotated_json_without_outlines_shows_background_and_images_alone_nothing(
    tmp_path: Path,
) -> None:
    assert (paint(tmp_path, []) == 0).all()
    path = write(tmp_path, {"images": sound()["images"]})
    coco = CocoFile(path, tmp_path)
    assert coco.taxonomy.classes == ("Background",)
    assert (coco.paint(coco.photos[0]) == IGNORE).all()
    given = CocoFile(path, tmp_path, taxonomy=Taxonomy.load("trash10"))
    assert given.taxonomy.num_classes == 11


def test_photos_keep_the_jsons_order_and_the_file_its_hash(tmp_path: Path) -> None:
    content = sound()
    Image.new("RGB", (3, 2)).save(tmp_path / "b.png")
    content["images"].insert(0, {"id": 2**62, "file_name": "b.png", "height": 2, "width": 3})
    path = write(tmp_path, content | {"scene_annotations": [], "info": {}})
    coco = CocoFile(path, tmp_path)
    assert [photo.id for photo in coco.photos] == [2**62, 5]
    assert coco.photo_path(coco.photos[0]) == tmp_path / "b.png"
    assert list(coco.annotations) == [5]
    assert (len(coco.sha256), coco.warnings) == (64, [])


def test_a_long_list_of_defects_is_cut_and_counted(tmp_path: Path) -> None:
    content = sound()
    content["annotations"] = [outline(i, 0, []) for i in range(8)]
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=r"and 3 more; run python -m segment.prepare") as caught:
        CocoFile(path, tmp_path)
    assert len(str(caught.value).splitlines()) == 6
    assert len(check([path], tmp_path, decode=False)) == 8


def test_painting_decodes_no_mask_of_a_large_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_api, "decode", None)
    content = copy.deepcopy(sound())
    content["images"][0] |= {"height": 3000, "width": 4000}
    content["annotations"] = [outline(i, 0, box(i, i, 2000, 2000)) for i in range(100)]
    coco = CocoFile(write(tmp_path, content), tmp_path, check_photos=False)
    # 99 steps of one pixel: each adds a row and a column to the square
    assert (coco.paint(coco.photos[0]) == 1).sum() == 2000**2 + 99 * (2 * 2000 - 1)


def reference(coco: CocoFile, index: int) -> np.ndarray:
    """Pycocotools' own decoder in place of run lengths."""
    photo = coco.photos[index]
    background = coco.taxonomy.background
    mask = np.full((photo.height, photo.width), 255 if background is None else 0, np.uint8)
    categories = {category["id"]: category for category in coco.categories}
    objects = []
    for annotation in coco.annotations.get(photo.id, []):
        rle = annotation["segmentation"]
        if isinstance(rle, list):
            rle = mask_api.merge(mask_api.frPyObjects(rle, photo.height, photo.width))
        train_id = coco.taxonomy.train_id(categories[annotation["category_id"]])
        objects.append((-int(mask_api.area(rle)), annotation["id"], train_id, rle))
    for _, _, train_id, rle in sorted(objects, key=lambda entry: entry[:2]):
        mask[mask_api.decode(rle) > 0] = train_id
    return mask


@needs_data
@pytest.mark.parametrize(
    ("name", "preset", "expected"),
    [
        ("garbage6", "garbage6", {*range(7)}),
        ("bags", "bags", {*range(3)}),
        ("camvid", "camvid11", {*range(11), IGNORE}),
    ],
)
def test_real_data_load_and_paint(name: str, preset: str, expected: set[int]) -> None:
    coco = CocoFile(
        DATA / name / "val.json", DATA / name, taxonomy=Taxonomy.load(preset), check_photos=True
    )
    assert coco.warnings == []
    for index in range(3):
        mask = coco.paint(coco.photos[index])
        assert set(np.unique(mask)) <= expected
        assert (mask == reference(coco, index)).all()


@needs_data
@pytest.mark.parametrize("preset", ["taco60", "taco28"])
def test_taco_loads_without_its_photos(preset: str) -> None:
    path = DATA / "taco/annotations.json"
    coco = CocoFile(path, DATA / "taco", taxonomy=Taxonomy.load(preset), check_photos=False)
    assert len(coco.photos) == 1500
    assert sum(map(len, coco.annotations.values())) == 4784
    assert any("2 annotation ids stand on several annotations" in text for text in coco.warnings)
    assert coco.paint(coco.photos[0]).max() > 0
