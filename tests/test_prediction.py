import json
from pathlib import Path

from segment.prediction import find_photos


def test_of_a_json_the_images_alone_are_read(sample: Path, tmp_path: Path) -> None:
    content = json.loads((sample / "val.json").read_text())
    content["annotations"][0]["segmentation"] = []
    content["annotations"][1]["category_id"] = 99
    content["categories"] = {"not": "a list"}
    (tmp_path / "val.json").write_text(json.dumps(content))
    found = find_photos([str(tmp_path / "val.json")], str(sample), tmp_path / "out")
    assert {source.image_id: source.name for source in found} == {
        image["id"]: image["file_name"] for image in content["images"]
    }
