import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_data import DATA, needs_data

from segment.data.check import check, report
from segment.data.datamodule import TrashDataModule
from segment.data.duplicates import find_twins, take_print
from segment.data.sample_drawing import draw_photo
from segment.prepare import main

GARBAGE6 = DATA / "garbage6"


def scene(number: int) -> np.ndarray:
    return draw_photo(np.random.default_rng([9, number]), 192, number)[0]


def write(root: Path, name: str, photos: dict[str, np.ndarray], quality: int = 92) -> Path:
    images = []
    for number, (file_name, pixels) in enumerate(photos.items(), 1):
        Image.fromarray(pixels).save(root / file_name, quality=quality)
        height, width = pixels.shape[:2]
        images.append({"id": number, "file_name": file_name, "height": height, "width": width})
    square = [[10, 10, 60, 10, 60, 60, 10, 60]]
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "Paper"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": square}],
    }
    (root / name).write_text(json.dumps(content))
    return root / name


def brighter(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels * 1.25 + 8, 0, 255).astype(np.uint8)


def cropped(pixels: np.ndarray) -> np.ndarray:
    edge = round(0.03 * len(pixels))
    return np.ascontiguousarray(pixels[edge:-edge, edge:-edge])


def test_unrelated_photos_are_clean(tmp_path) -> None:
    path = write(tmp_path, "a.json", {f"{n}.png": scene(n) for n in range(12)})
    assert check([path], tmp_path) == []
    assert report([path], []).endswith("a.json: clean.")


def test_finds_planted_copies_within_and_across_files(tmp_path) -> None:
    scenes = [scene(number) for number in range(8)]
    a = write(tmp_path, "a.json", {f"a{n}.png": s for n, s in enumerate(scenes)})
    copies = {
        "same.png": scenes[0],
        "encoded.jpg": scenes[1],
        "bright.png": brighter(scenes[2]),
        "cropped.png": cropped(scenes[3]),
        "all.jpg": brighter(cropped(scenes[4])),
        "mirrored.png": np.ascontiguousarray(scenes[5][:, ::-1]),
        "other.png": scene(20),
    }
    b = write(tmp_path, "b.json", copies, quality=45)
    defects = check([a, b], tmp_path)
    assert not any(defect.fatal for defect in defects)
    pairs = {
        (f"a{n}.png", copy)
        for n, copy in enumerate(list(copies)[:6])
        for defect in defects
        if f"'a{n}.png'" in defect.message and f"'{copy}'" in defect.message
    }
    assert len(pairs) == len(defects) == 6
    assert [defect.kind for defect in defects].count("same-photo") == 1
    assert all("of b.json: it stands in two splits; remove one." in d.message for d in defects)
    turned = [defect.message for defect in defects if "turned or mirrored" in defect.message]
    assert len(turned) == 1
    assert "mirrored.png" in turned[0]
    within = check([write(tmp_path, "c.json", {"x.png": scenes[6], "y.png": scenes[6]})], tmp_path)
    assert [defect.kind for defect in within] == ["same-photo"]
    assert "two splits" not in within[0].message


def test_finds_copies_in_any_order_and_beyond_one_block() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (150, 8, 8, 3), dtype=np.uint8)
    photos = [np.asarray(Image.fromarray(p).resize((80, 80))) for p in noise]
    photos[140] = photos[3]
    twins = list(find_twins([take_print(photo) for photo in photos]))
    assert [(t.first, t.second, t.exact) for t in twins] == [(3, 140, True)]


def test_photos_of_nothing_are_no_near_copies() -> None:
    grey = [np.full((64, 64, 3), level, np.uint8) for level in (100, 101)]
    assert list(find_twins([take_print(photo) for photo in grey])) == []
    assert list(find_twins([])) == []


def test_reports_all_defects_of_all_files_grouped(tmp_path) -> None:
    a = write(tmp_path, "a.json", {"a.png": scene(0), "gone.png": scene(1)})
    b = write(tmp_path, "b.json", {"cut.png": scene(2)})
    (tmp_path / "gone.png").unlink()
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    content = json.loads(a.read_text())
    content["annotations"] += [
        {"id": 2, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 9, 0, 9, 9]]},
        {"id": 3, "image_id": 1, "category_id": 1, "segmentation": []},
    ]
    a.write_text(json.dumps(content))
    defects = check([a, b], tmp_path)
    assert sorted(d.kind for d in defects if d.fatal) == ["annotation", "outline", "photo", "photo"]
    text = report([a, b], defects)
    assert "photo: 2 (fatal)" in text
    assert "gone.png: no such photo" in text
    assert "cut.png: cannot be decoded" in text
    assert f"{a}, {b}: 4 fatal defects, 0 to look at." in text
    out = tmp_path / "out.json"
    words = ["check", "--annotations", a, b, "--root", tmp_path, "--json", out]
    assert main(list(map(str, words))) == 1
    assert len(json.loads((tmp_path / "out.json").read_text())["defects"]) == 4
    # Its end alone shows that it was cut, but not that a piece of its middle is missing.
    assert [d.kind for d in check([b], tmp_path, decode=False)] == ["photo"]
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2] + data[-12:])
    assert [d.kind for d in check([b], tmp_path, decode=False)] == []
    assert [d.kind for d in check([b], tmp_path)] == ["photo"]


def test_later_files_have_the_classes_of_the_first(tmp_path) -> None:
    train = write(tmp_path, "train.json", {"a.png": scene(0)})
    val = write(tmp_path, "val.json", {"b.png": scene(1)})
    content = json.loads(val.read_text())
    content["categories"][0]["name"] = "Bottle"
    val.write_text(json.dumps(content))
    data = TrashDataModule(str(tmp_path))
    with pytest.raises(ValueError, match=r"val.json: category 'Bottle' .* is not mapped") as told:
        data.setup("fit")
    fatal = [defect.message for defect in check([train, val], tmp_path) if defect.fatal]
    assert fatal == [str(told.value)]
    assert not [defect for defect in check([val], tmp_path) if defect.fatal]


def test_finds_annotations_and_classes_that_own_no_pixel(tmp_path) -> None:
    path = write(tmp_path, "a.json", {"a.png": scene(0)})
    content = json.loads(path.read_text())
    content["categories"] += [{"id": n, "name": name} for n, name in ((2, "Cap"), (3, "Lid"))]
    square = content["annotations"][0]["segmentation"]
    content["annotations"] += [
        # Wholly under another of the same size and a higher id, and thinner than a pixel.
        {"id": 0, "image_id": 1, "category_id": 2, "segmentation": square},
        {"id": 5, "image_id": 1, "category_id": 3, "segmentation": [[9, 9.2, 9.4, 9.2, 9.4, 9.4]]},
    ]
    path.write_text(json.dumps(content))
    messages = [d.message for d in check([path], tmp_path) if d.kind == "no-pixel"]
    assert "1 annotations are too small to own a pixel" in messages[0]
    assert "annotation 5." in messages[0]
    assert "no photo shows a pixel of Cap, Lid;" in messages[1]


def test_long_lists_are_cut_in_the_report_only(tmp_path) -> None:
    path = write(tmp_path, "a.json", {f"{n}.png": scene(0) for n in range(6)})
    defects = check([path], tmp_path)
    assert len(defects) == 15
    assert "... and 5 more" in report([path], defects)


@needs_data
def test_finds_the_pair_that_garbage6_holds_in_both_splits() -> None:
    files = [GARBAGE6 / "train.json", GARBAGE6 / "val.json"]
    messages = [d.message for d in check(files, GARBAGE6) if d.kind.endswith("-photo")]
    across = [message for message in messages if "two splits" in message]
    assert len(across) == 1
    assert "cardboard_955_" in across[0]
    assert "cardboard_2077_" in across[0]
    # Looked at: both pairs within train are copies as well.
    assert len(messages) == 3
