import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from segment.data import sample
from segment.data.coco import CocoFile
from segment.data.sample import make_sample
from segment.data.sample_drawing import KINDS


def digests(root: Path) -> dict[str, str]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("set") / "sample"
    make_sample(root, train=160, val=40, size=64)
    return root


def objects(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour and category of every object."""
    coco = COCO(str(root / f"{split}.json"))
    photos = {
        i: np.asarray(Image.open(root / image["file_name"])) for i, image in coco.imgs.items()
    }
    means, categories = [], []
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation) > 0
        if mask.any():
            means.append(photos[annotation["image_id"]][mask].mean(0))
            categories.append(annotation["category_id"])
    return np.array(means), np.array(categories)


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_sample(tmp_path / name, train=3, val=2, size=64, seed=seed)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert len(a) == 7
    assert a == b
    assert all(a[name] != c[name] for name in a)


def test_photo_depends_on_its_place_alone(tmp_path) -> None:
    make_sample(tmp_path / "few", train=2, val=1, size=64)
    make_sample(tmp_path / "more", train=3, val=3, size=64)
    few, more = digests(tmp_path / "few"), digests(tmp_path / "more")
    photos = [name for name in few if name.endswith(".jpg")]
    assert [few[name] for name in photos] == [more[name] for name in photos]
    assert few["train/000001.jpg"] != few["val/000001.jpg"]


def test_all_classes_are_in_both_splits(small) -> None:
    for split in ("train", "val"):
        content = json.loads((small / f"{split}.json").read_text())
        found = {annotation["category_id"] for annotation in content["annotations"]}
        assert found == set(range(1, 11))
        assert all((small / image["file_name"]).is_file() for image in content["images"])


def test_frequencies_are_skewed_as_stated(small) -> None:
    content = json.loads((small / "train.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    count = Counter(names[a["category_id"]] for a in content["annotations"])
    share = {name: 100 * number / count.total() for name, number in count.items()}
    assert abs(share["Paper"] - 27.7) < 6
    assert abs(share["Plastic bag"] - 22.1) < 6
    ranked = ["Paper", "Plastic bag", "General trash", "Paper pack", "Clothing"]
    assert [share[name] for name in ranked] == sorted((share[n] for n in ranked), reverse=True)
    assert max(share["Battery"], share["Clothing"]) < 5 < share["Plastic"]
    assert abs(sum(kind.share for kind in KINDS) - 100) < 0.1


def test_both_ways_to_write_an_outline_occur_and_some_have_several_parts(small) -> None:
    outlines = [
        annotation["segmentation"]
        for annotation in json.loads((small / "train.json").read_text())["annotations"]
    ]
    polygons = [outline for outline in outlines if isinstance(outline, list)]
    assert 0.1 < 1 - len(polygons) / len(outlines) < 0.5
    assert any(len(parts) > 1 for parts in polygons)


def test_masks_lie_where_objects_are_drawn(tmp_path) -> None:
    make_sample(tmp_path / "set", train=6, val=1, size=128)
    coco = CocoFile(tmp_path / "set/train.json", tmp_path / "set")
    for place, photo in enumerate(coco.photos):
        rng = np.random.default_rng([0, 0, place])
        picture, seen = sample.draw_photo(rng, 128, place)
        written = np.asarray(Image.open(coco.photo_path(photo))).astype(int)
        assert np.abs(written - picture).mean() < 8
        drawn = np.zeros((128, 128), int)
        edge = np.zeros((128, 128), bool)
        for category, visible in seen:
            part = visible.reshape(128, 2, 128, 2).mean((1, 3))
            drawn[part > 0.5] = category
            edge |= (part > 0) & (part < 1)
        wrong = coco.paint(photo) != drawn
        # Outlines go through the pixels that an object covers in part, give or take half a pixel.
        assert wrong.mean() < 0.006
        assert wrong[~edge].mean() < 0.004


def test_colour_alone_does_not_give_the_class_away(small) -> None:
    means, categories = objects(small, "train")
    val_means, val_categories = objects(small, "val")
    centres = np.stack([means[categories == c].mean(0) for c in range(1, 11)])
    nearest = np.linalg.norm(val_means[:, None] - centres, axis=2).argmin(1) + 1
    assert (nearest == val_categories).mean() < 0.35  # measured: 0.1 to 0.2


def test_a_set_already_there_is_kept_and_said_so(tmp_path, capsys) -> None:
    make_sample(tmp_path / "set", train=1, val=1, size=64)
    before = digests(tmp_path / "set")
    capsys.readouterr()
    make_sample(tmp_path / "set", train=1, val=1, size=64)
    assert "already holds this sample set" in capsys.readouterr().out
    assert digests(tmp_path / "set") == before


def test_refuses_to_write_over_anything_else(tmp_path) -> None:
    make_sample(tmp_path / "set", train=1, val=1, size=64)
    with pytest.raises(ValueError, match=r"set holds another sample set .*choose another folder"):
        make_sample(tmp_path / "set", train=1, val=1, size=64, seed=1)
    (tmp_path / "set/train/000001.jpg").unlink()
    with pytest.raises(ValueError, match=r"has lost 1 photos, train/000001.jpg first; delete it"):
        make_sample(tmp_path / "set", train=1, val=1, size=64)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    with pytest.raises(ValueError, match=r"mine is not empty, .*choose another folder"):
        make_sample(tmp_path / "mine", train=1, val=1, size=64)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [({"train": 0}, "1 or more"), ({"seed": -1}, "0 or more"), ({"size": 20}, "64 to 2048 pixels")],
)
def test_refuses_numbers_without_sense(tmp_path, numbers, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_sample(tmp_path / "set", **numbers)
    assert not list(tmp_path.iterdir())


def test_failing_half_way_leaves_nothing(tmp_path, monkeypatch) -> None:
    real = sample.draw_photo

    def draw(rng, size, place):
        if place == 2:
            raise KeyboardInterrupt
        return real(rng, size, place)

    monkeypatch.setattr(sample, "draw_photo", draw)
    with pytest.raises(KeyboardInterrupt):
        make_sample(tmp_path / "set", train=4, val=1, size=64)
    assert not list(tmp_path.iterdir())


COMMAND = "import sys; from pathlib import Path; from segment.data.sample import make_sample; "


def test_killed_half_way_leaves_no_set(tmp_path) -> None:
    code = COMMAND + "make_sample(Path(sys.argv[1]), train=5000, val=1, size=64)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "set"])
    for _ in range(300):
        if list(tmp_path.glob(".set.partial-*/train/000002.jpg")):
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert list(tmp_path.glob(".set.partial-*/train/*.jpg"))
    assert not (tmp_path / "set").exists()
    (left,) = tmp_path.iterdir()
    make_sample(tmp_path / "set", train=1, val=1, size=64)
    assert left.exists()  # for all we know, somebody else is still drawing there
    os.utime(left, (0, 0))
    make_sample(tmp_path / "set2", train=1, val=1, size=64)
    (tmp_path / "set2").rename(tmp_path / "other")
    assert left.exists()  # of another set
    (tmp_path / "set").rename(tmp_path / "moved")
    make_sample(tmp_path / "set", train=1, val=1, size=64)
    assert not left.exists()


def test_two_processes_at_once_do_no_harm(tmp_path) -> None:
    code = COMMAND + "make_sample(Path(sys.argv[1]), train=4, val=2, size=64)"
    command = [sys.executable, "-c", code, str(tmp_path / "set")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    make_sample(tmp_path / "alone", train=4, val=2, size=64)
    assert digests(tmp_path / "set") == digests(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "set"]
