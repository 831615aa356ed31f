"""Scores are of all photos of a split, in a folder of their own."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import fit_tiny

from segment.data.dataset import Draw
from segment.data.sampler import PhotoSampler
from segment.evaluate import main


@pytest.fixture(scope="module")
def run(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluated")
    return fit_tiny(sample, root, "--trainer.max_epochs", "1")[0]


def evaluate(run: Path, out: Path, *settings: object) -> dict:
    main(["--run", str(run), "--out", str(out), *map(str, settings)])
    return json.loads((out / "evaluation.json").read_text())


def test_a_folder_with_an_evaluation_is_left_as_it_is(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(ValueError, match=r"holds the evaluation.json of an earlier .*; give --out"):
        evaluate(run, run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_json_of_images_alone_is_for_predict(run: Path, sample: Path, tmp_path: Path) -> None:
    images = json.loads((sample / "val.json").read_text())["images"]
    alone, empty = tmp_path / "alone.json", tmp_path / "empty.json"
    alone.write_text(json.dumps({"images": images}))
    with pytest.raises(ValueError, match=r"alone.json: not one pixel is labelled, .*predict"):
        evaluate(run, tmp_path / "out", "--data.val", alone)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    # Photos of background alone are another matter.
    empty.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    found = evaluate(run, tmp_path / "empty", "--data.val", empty)
    assert np.sum(found["raw"]["confusion"], axis=1).tolist() == [5 * 64 * 64] + 10 * [0]


@pytest.mark.parametrize("setting", [("limit_test_batches", "2"), ("fast_dev_run", "true")])
def test_a_part_of_the_photos_is_no_evaluation(
    setting: tuple[str, str], run: Path, tmp_path: Path
) -> None:
    name, value = setting
    with pytest.raises(ValueError, match=rf"trainer.{name} is .*, but scores are of all photos"):
        evaluate(run, tmp_path / "out", f"--trainer.{name}", value)


def test_a_photo_that_gets_lost_is_noticed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_but_one(sampler: PhotoSampler) -> Iterator[Draw]:
        yield from (Draw(index) for index in range(sampler.num_photos - 1))

    monkeypatch.setattr(PhotoSampler, "__iter__", all_but_one)
    with pytest.raises(AssertionError):
        evaluate(run, tmp_path / "out")
    assert not (tmp_path / "out" / "evaluation.json").exists()
