"""Which photos are chosen, their pictures, and what refining does to objects by size."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from making import make_set, write_run
from PIL import Image

from segment.comparison import Run, load_runs
from segment.comparison.photos import choose, disputed, write_photos
from segment.comparison.truth import annotations_of, object_recalls, objects_by_class
from segment.data.coco import CocoFile
from segment.report import main


@pytest.fixture
def coco(tmp_path: Path) -> CocoFile:
    return make_set(tmp_path / "set", photos=10)


def run_of(coco: CocoFile, folder: Path, *shares: float, experiment: str = "net") -> Run:
    write_run(folder, coco, *shares, experiment=experiment)
    return load_runs([folder])[0][0]


def test_objects_and_their_recall_by_hand(coco: CocoFile, tmp_path: Path) -> None:
    run = run_of(coco, tmp_path / "run", 0.2, 0.1)
    # Ten photos of a large square and a small one; classes in turn, so 7 + 7 + 6 objects.
    assert objects_by_class(coco) == [0, 7, 7, 6]
    for photo in coco.photos:
        truth = coco.paint(photo)
        raw = np.where(np.arange(truth.shape[1]) < 27, 0, truth)  # misses every large square
        half = truth.copy()
        half[:, 28:32] = 0  # the left half of every small square, which starts at column 28
        for kind, ids in (("raw", raw), ("refined", half)):
            path = run.folder / "labels" / kind / f"{photo.file_name}.png"
            path.write_bytes(cv2.imencode(".png", ids.astype(np.uint8))[1].tobytes())
    found = object_recalls(annotations_of(run), [run]).set_index("size_bin")
    assert found["objects"].to_dict() == {"8 to 16": 10, "16 to 32": 10}
    # 20 and 8 pixels wide; roots of 400 and 64 pixels, so bins from 16 and from 8.
    assert found.loc["16 to 32", ["raw", "refined"]].tolist() == [0, 1]
    assert found.loc["8 to 16", ["raw", "refined"]].tolist() == [1, 0.5]
    assert found.loc["8 to 16", "gain"] == -0.5


def test_a_run_without_some_label_map_is_left_out(coco: CocoFile, tmp_path: Path) -> None:
    runs = [run_of(coco, tmp_path / name, 0.2, 0.1, experiment=name) for name in "ab"]
    (runs[0].folder / "labels" / "raw" / f"{coco.photos[4].file_name}.png").unlink()
    assert set(object_recalls(coco, runs)["run"]) == {"b"}
    (tmp_path / "out").mkdir()
    photos, cards, _ = write_photos(tmp_path / "out", coco, runs)
    shown = {(card["run"], photos[card["photo"]]["file"]) for card in cards}
    assert len({run for run, _ in shown}) == 2
    assert ("a", coco.photos[4].file_name) not in shown


def test_chosen_photos_are_the_extremes(coco: CocoFile, tmp_path: Path) -> None:
    run = run_of(coco, tmp_path / "run", 0.2, 0.2)
    refined, raw = run.photo_scores("refined"), run.photo_scores("raw")
    np.testing.assert_array_equal(refined, raw)
    reasons = choose(run, each=1)
    assert reasons == {int(refined.argmin()): ["worst"], int(refined.argmax()): ["best"]}
    better = run_of(coco, tmp_path / "better", 0.3, 0.1, experiment="better")
    gain = better.photo_scores("refined") - better.photo_scores("raw")
    assert (gain > 0).all()
    reasons = choose(better, each=1)
    assert "most improved" in reasons[int(gain.argmax())]
    assert not any("most damaged" in why for why in reasons.values())
    apart = np.abs(better.photo_scores("refined") - refined)
    assert disputed([run, better], each=1) == [int(apart.argmax())]
    assert disputed([run]) == []


def test_pictures_hold_the_labels_in_their_colours(coco: CocoFile, tmp_path: Path) -> None:
    run = run_of(coco, tmp_path / "run", 0.2, 0.1)
    out = tmp_path / "out"
    out.mkdir()
    photos, cards, _ = write_photos(out, coco, [run])
    assert {card["photo"] for card in cards} == set(range(len(photos)))
    places = {photo.file_name: photo for photo in coco.photos}
    for photo in photos:
        truth = coco.paint(places[photo["file"]])
        picture = np.asarray(Image.open(out / f"{photo['stem']}_truth.png").convert("RGBA"))
        colors = np.array(coco.taxonomy.colors, np.uint8)
        np.testing.assert_array_equal(picture[..., :3][truth > 0], colors[truth[truth > 0]])
        assert (picture[..., 3] == 255 * colors.any(1)[truth]).all()
        names = [coco.taxonomy.classes[train_id] for train_id in np.unique(truth)]
        assert photo["classes"] == names
    for card in cards:
        labels = [
            cv2.imread(
                str(run.folder / "labels" / kind / f"{photos[card['photo']]['file']}.png"), -1
            )
            for kind in ("raw", "refined")
        ]
        assert card["changed"] == pytest.approx((labels[0] != labels[1]).mean(), abs=1e-4)
        for name in (".jpg", "_raw.png", "_refined.png"):
            assert (out / f"{card['part']}{name}").is_file()


def test_annotations_that_changed_are_told_and_the_rest_is_reported(
    coco: CocoFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(coco, tmp_path / "run", 0.2, 0.1)
    coco.path.write_text(coco.path.read_text() + "\n")
    with pytest.raises(ValueError, match=r"val.json: has changed since net was scored on it\."):
        annotations_of(run)
    out = tmp_path / "out"
    main([str(run.folder), "--out", str(out), "--draws", "100"])
    text = (out / "index.html").read_text()
    assert "has changed since net was scored on it." in text
    assert "There are no photos to show." in text
    assert "has changed since" in capsys.readouterr().out


def test_photos_that_moved_are_found_by_root(coco: CocoFile, tmp_path: Path) -> None:
    run = run_of(coco, tmp_path / "run", 0.2, 0.1)
    coco.root.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"val\.json"):
        annotations_of(run)
    assert annotations_of(run, tmp_path / "moved").sha256 == coco.sha256


def test_photos_and_labels_that_are_gone_are_told(
    coco: CocoFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run_of(coco, tmp_path / name, 0.2, 0.1, experiment=name) for name in "abc"]
    (runs[1].folder / "labels" / "refined" / f"{coco.photos[2].file_name}.png").unlink()
    (runs[2].folder / "labels").rename(tmp_path / "aside")
    coco.photo_path(coco.photos[4]).unlink()
    out = tmp_path / "out"
    main([*(str(run.folder) for run in runs), "--out", str(out), "--draws", "100"])
    said = [
        f"1 of 10 photos (such as {coco.photos[4].file_name}) are not in {coco.root}, so they are "
        f"shown grey; if they were moved, --root FOLDER says where they are.",
        f"b: {runs[1].folder / 'labels'} lacks the labels of 1 of 10 photos (such as "
        f"{coco.photos[2].file_name})",
        f"c: {runs[2].folder / 'labels'} lacks the labels of all 10 photos",
    ]
    printed, page = capsys.readouterr().out, (out / "index.html").read_text(encoding="utf-8")
    assert "a: " not in printed
    for text in said:
        assert text in printed
        assert text in page


def test_a_damaged_photo_is_told(coco: CocoFile, tmp_path: Path) -> None:
    run = run_of(coco, tmp_path / "run", 0.2, 0.1)
    for photo in coco.photos:
        coco.photo_path(photo).write_bytes(b"no photo")
    (tmp_path / "out").mkdir()
    photos, _, missing = write_photos(tmp_path / "out", coco, [run])
    assert len(missing) == len(photos)
    assert all(text.endswith("It is shown grey.") for text in missing)
