import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segment.data.check import check
from segment.data.coco import CocoFile
from segment.data.taxonomy import Taxonomy

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]


def sound() -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": "a.png", "height": 8, "width": 10}],
        "categories": [{"id": 1, "name": "Bottle"}, {"id": 2, "name": "Cap"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 1, "segmentation": SQUARE}],
    }


def write(tmp_path: Path, content: object) -> Path:
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    path = tmp_path / "coco.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def first(key: str, **change: object) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        content[key][0].update(change)

    return apply


def extra(key: str, **change: object) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        content[key].append(content[key][0] | change)

    return apply


def test_sound_data_have_no_defects(tmp_path: Path) -> None:
    content = sound()
    content["categories"].pop()
    assert check([write(tmp_path, content)], tmp_path, decode=False) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"is not whole, valid JSON"),
        ('{"images": [', r"is not whole, valid JSON .*; copy or export it anew"),
        ("[" * 100_000, r"is nested too deeply|is not whole, valid JSON"),
        ('{"images": [' + "9" * 5000 + "]}", r"is not whole, valid JSON"),
        ("[]", r"is not a JSON object, so it is not COCO"),
        ('{"photos": []}', r"has no `images`, so it is not COCO"),
        ('{"images": {}}', r"`images` is not a list"),
        ('{"images": [3]}', r"`images` has 1 entries that are not objects"),
        ('{"images": []}', r"lists no photos in `images`; add some"),
    ],
)
def test_a_file_that_is_not_coco_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        CocoFile(path, tmp_path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.json: cannot be read \(No such file"):
        CocoFile(tmp_path / "none.json", tmp_path)
    path = write(tmp_path, sound())
    with pytest.raises(ValueError, match=r"should be in .*photos, which is no folder") as caught:
        CocoFile(path, tmp_path / "photos")
    assert "\n" not in str(caught.value)
    assert CocoFile(path, tmp_path / "photos", check_photos=False).photos


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (first("images", id=True), "id", r"photo 'a.png': `id` is True; make it a whole number"),
        (first("images", id="5"), "id", r"`id` is '5'"),
        (first("images", id=5.0), "id", r"`id` is 5.0"),
        (first("images", id=-1), "id", r"`id` is -1"),
        (first("images", id=2**63), "id", r"`id` is 9223372036854775808; .* 2\^63 - 1"),
        (extra("images", file_name="b.png"), "duplicate", r"'b.png': image id 5 is taken"),
        (extra("images", id=6), "duplicate", r"'a.png' stands in `images` twice"),
        (extra("images", id=6, file_name="./a.png"), "duplicate", r"'./a.png' stands in .* twice"),
        (first("images", width="10"), "image", r"`height` and `width` are 8 and '10'"),
        (first("images", width=0), "image", r"`height` and `width` are 8 and 0"),
        (first("images", height=10**9), "image", r"1000000000x10 is more than 200,000,000 pixels"),
        (first("images", height=10, width=8), "photo-size", r"8x10 .*, and 10x8 in the json; swap"),
        (first("images", width=11), "photo-size", r"and 8x11 in the json; use the photo that was"),
        (first("images", file_name=7), "file-name", r"entry 0 of `images`: `file_name` is 7"),
        (first("images", file_name=" "), "file-name", r"is empty or holds what no name"),
        (first("images", file_name="a\0"), "file-name", r"is empty or holds what no name"),
        (first("images", file_name="\ud800"), "file-name", r"is empty or holds what no name"),
        (first("images", file_name="/etc/a.png"), "file-name", r"is absolute; make it relative"),
        (first("images", file_name="C:\\a.png"), "file-name", r"is absolute; make it relative"),
        (first("images", file_name="../a.png"), "file-name", r"climbs with `..`; make it a path"),
        (first("images", file_name="x/../../a.png"), "file-name", r"climbs with `..`"),
        (first("images", file_name="..\\a.png"), "file-name", r"climbs with `..`"),
        (first("images", file_name="b.png"), "photo", r"b.png: no such photo; restore the file"),
        (first("images", file_name="x" * 300), "photo", r"no such photo"),
        (first("images", file_name="coco.json"), "photo", r"not a photo in a format that is read"),
        (first("categories", id="1"), "id", r"category 'Bottle': `id` is '1'"),
        (first("categories", name=3), "category", r"entry 0 of `categories`: `name` is 3"),
        (first("categories", name="Jar\n"), "category", r"'Jar\\n' has a line break or another"),
        (extra("categories", name="Jar"), "duplicate", r"'Jar': category id 1 is taken"),
        (extra("categories", id=9), "taxonomy", r"two categories are called 'Bottle'"),
        (first("annotations", id=None), "id", r"entry 0 of `annotations`: `id` is None"),
        (first("annotations", image_id="5"), "id", r"annotation 1: `image_id` is '5'"),
        (first("annotations", category_id=1.0), "id", r"annotation 1: `category_id` is 1.0"),
        (first("annotations", image_id=6), "annotation", r"on image id 6, which `images` does not"),
        (first("annotations", category_id=7), "annotation", r"category id 7, which `categories`"),
        (first("annotations", iscrowd="0"), "annotation", r"`iscrowd` is '0'; make it 0 or 1"),
        (first("annotations", segmentation=[]), "outline", r"annotation 1 on 'a.png' has an empty"),
        (first("annotations", segmentation=[[1, 1]]), "outline", r"of 1 points; it takes 3"),
    ],
)
def test_each_defect_is_told_and_stops_training(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], kind: str, message: str
) -> None:
    content = sound()
    damage(content)
    path = write(tmp_path, content)
    defects = check([path], tmp_path, decode=False)
    assert kind in {defect.kind for defect in defects if defect.fatal}
    with pytest.raises(ValueError, match=message):
        CocoFile(path, tmp_path)
    for defect in defects:
        assert defect.message.startswith(f"{path}: ")
        assert defect.message.endswith(".")
        assert "\n" not in defect.message


def test_missing_keys_are_told(tmp_path: Path) -> None:
    content = sound()
    del content["annotations"][0]["category_id"]
    with pytest.raises(ValueError, match=r"annotation 1: `category_id` is missing"):
        CocoFile(write(tmp_path, content), tmp_path)


def test_a_photo_turned_by_exif_must_be_annotated_as_displayed(tmp_path: Path) -> None:
    path, exif = write(tmp_path, sound()), Image.Exif()
    exif[274] = 6
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png", exif=exif)
    with pytest.raises(ValueError, match=r"because its EXIF orientation 6 turns it .*displayed"):
        CocoFile(path, tmp_path)
    Image.new("RGB", (8, 10)).save(tmp_path / "a.png", exif=exif)
    assert CocoFile(path, tmp_path).photos[0].width == 10


def test_a_link_below_the_root_is_followed(tmp_path: Path) -> None:
    path = write(tmp_path, sound())
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.png").symlink_to(tmp_path / "a.png")
    assert CocoFile(path, tmp_path / "root").photos


def test_a_category_the_taxonomy_lacks_is_fatal_only_where_it_is_used(tmp_path: Path) -> None:
    taxonomy = Taxonomy("own", ("Cap",), ((0, 0, 0),), None, {"Cap": 0, "bottles": 0})
    content = sound()
    with pytest.raises(
        ValueError,
        match=r"category 'Bottle' \(1 annotations\) is not mapped by the taxonomy 'own', which has "
        r"'bottles'; put it into a class's `from` there, or into `ignore`",
    ):
        CocoFile(write(tmp_path, content), tmp_path, taxonomy=taxonomy)
    content["annotations"][0]["category_id"] = 2
    coco = CocoFile(write(tmp_path, content), tmp_path, taxonomy=taxonomy)
    assert len(coco.warnings) == 1
    assert "category 'Bottle' (0 annotations) is not mapped" in coco.warnings[0]


def test_clipped_outlines_and_repeated_annotation_ids_are_counted_and_used(tmp_path: Path) -> None:
    content = sound()
    content["annotations"] *= 2
    content["annotations"][1] = content["annotations"][0] | {
        "segmentation": [[8, 6, 12, 6, 12, 9, 8, 9]]
    }
    coco = CocoFile(write(tmp_path, content), tmp_path)
    assert "1 annotations reach outside their photo and are clipped" in coco.warnings[0]
    assert "1 annotation ids stand on several annotations" in coco.warnings[1]
    assert (coco.paint(coco.photos[0]) == 1).sum() == 9 + 2 * 2


def test_many_defects_are_found_at_once_fatal_ones_first(tmp_path: Path) -> None:
    content = sound()
    content["annotations"] = [
        content["annotations"][0] | {"id": 1, "segmentation": [[8, 6, 12, 6, 12, 9]]},
        content["annotations"][0] | {"id": 2, "segmentation": []},
        content["annotations"][0] | {"id": 3, "image_id": 77},
    ]
    defects = check([write(tmp_path, content)], tmp_path, decode=False)
    assert [defect.kind for defect in defects] == ["annotation", "outline", "clipped"]
    assert [defect.fatal for defect in defects] == [True, True, False]


def test_one_entry_may_have_several_defects(tmp_path: Path) -> None:
    content = sound()
    content["images"].append({"id": -1, "file_name": "../x.jpg", "height": 0, "width": 10})
    content["annotations"].append(
        {"id": 2, "image_id": 5, "category_id": 9, "iscrowd": 5, "segmentation": [[1, 1]]}
    )
    defects = check([write(tmp_path, content)], tmp_path, decode=False)
    assert [defect.kind for defect in defects if defect.fatal] == [
        "annotation", "annotation", "file-name", "id", "image", "outline",
    ]  # fmt: skip


def test_an_annotation_without_an_id_has_its_other_defects_told(tmp_path: Path) -> None:
    content = sound()
    content["annotations"].append(
        {"image_id": 6, "category_id": 9, "iscrowd": 5, "segmentation": SQUARE}
    )
    content["annotations"].append({"image_id": 5, "category_id": 1, "segmentation": [[1, 1]]})
    path = write(tmp_path, content)
    messages = [d.message for d in check([path], tmp_path, decode=False) if d.fatal]
    expected = [
        "entry 1 of `annotations` is on image id 6",
        "entry 1 of `annotations` is of category id 9",
        "entry 1 of `annotations`: `iscrowd` is 5",
        "entry 1 of `annotations`: `id` is missing",
        "entry 2 of `annotations`: `id` is missing",
        "entry 2 of `annotations` on 'a.png'",
    ]
    assert len(messages) == len(expected)
    for message, start in zip(messages, expected, strict=True):
        assert message.startswith(f"{path}: {start}")
