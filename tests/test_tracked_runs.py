"""What a run logs to W&B, read back from the files of an offline run."""

import gzip
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import wandb
from conftest import fit_tiny
from test_resume import strike
from wandb_offline import read, table

from segment import evaluate
from segment.data.coco import CocoFile
from segment.data.taxonomy import Taxonomy
from segment.fit import fit
from segment.metrics import PhotoCounts
from segment.modules import SegmentationModule
from segment.tracking.photos import worst_photos
from segment.tracking.scores import scalars

SECTIONS = {"train", "val", "iou_per_class", "confusion", "photos", "crf", "cost", "trainer"}


@pytest.fixture(scope="module")
def logged(tiny_run: Path) -> dict[str, Any]:
    return read(tiny_run)


@pytest.fixture(scope="module")
def evaluation(tiny_run: Path) -> dict[str, Any]:
    return json.loads((tiny_run / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def coco(sample: Path) -> CocoFile:
    return CocoFile(sample / "val.json", sample, taxonomy=Taxonomy.load("trash10"))


def all_written() -> None:
    """Wait until W&B has written what it was given, as it does where a process ends."""
    wandb.finish()
    wandb.teardown()


@pytest.fixture(scope="module")
def lively(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with scores drawn at random, evaluated as W&B's agent starts an evaluation."""
    run = tmp_path_factory.mktemp("lively")
    (run / "checkpoints").mkdir()
    shutil.copy(tiny_run / "config.yaml", run)
    checkpoint = torch.load(tiny_run / "checkpoints" / "best.ckpt", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in checkpoint["state_dict"].items():
        if name.startswith("network.aspp."):
            tensor.normal_(std=0.3, generator=generator)
    torch.save(checkpoint, run / "checkpoints" / "best.ckpt")
    with pytest.MonkeyPatch.context() as patch:
        wandb.teardown()  # W&B reads its environment once per process, so after this again
        patch.setenv("WANDB_SWEEP_ID", "sweep1")
        patch.setenv("WANDB_RUN_ID", "fromagent")
        evaluate.main(["--run", str(run), "--out", str(run / "out"), "--crf.iterations", "1"])
        all_written()
    return run / "out"


def test_a_sweep_s_agent_finds_the_evaluation_that_it_has_started(lively: Path) -> None:
    (log,) = lively.glob("wandb/offline-run-*/*.wandb")
    assert log.name == "run-fromagent.wandb"
    logged, scores = read(lively), json.loads((lively / "evaluation.json").read_text())
    assert logged["summary"]["val/refined/miou"] == scores["refined"]["miou"]
    assert logged["summary"]["val/raw/miou"] == scores["raw"]["miou"] != scores["refined"]["miou"]
    assert logged["config"]["crf"]["iterations"] == 1
    assert [row["_step"] for row in logged["history"]] == [0]


def test_everything_lands_in_a_named_section(logged: dict[str, Any]) -> None:
    keys = {key for row in logged["history"] for key in row if not key.startswith("_")}
    assert {key.split("/")[0] for key in keys} == SECTIONS
    assert {"train/loss", "train/rate/head", "val/miou", "trainer/epoch"} <= keys
    # One chart over classes instead of a panel for each: their curves are there, but hidden.
    single = {key for key in keys if "/iou/" in key}
    assert {"val/iou/Paper", "val/raw/iou/Paper", "val/refined/iou/Paper"} <= single
    assert all(any(key.startswith(glob.rstrip("*")) for glob in logged["hidden"]) for key in single)


def test_scores_and_cost_are_those_of_evaluation_json(
    logged: dict[str, Any], evaluation: dict[str, Any]
) -> None:
    summary = logged["summary"]
    for kind in ("raw", "refined"):
        assert summary[f"val/{kind}/miou"] == evaluation[kind]["miou"]
        assert summary[f"val/{kind}/trimap_miou/4"] == evaluation[kind]["trimap_miou"]["4"]
        assert summary[f"val/{kind}/iou/Background"] == evaluation[kind]["iou"][0]
        assert summary[f"val/{kind}/calibration_error"] == evaluation[kind]["calibration"]["ece"]
    assert summary["crf/seconds_per_photo"] == evaluation["crf"]["seconds_per_photo"]
    cost = {f"cost/{key}": value for key, value in evaluation["cost"].items() if value is not None}
    assert {"cost/parameters", "cost/multiply_adds_512", "cost/peak_memory_mb"} <= cost.keys()
    assert cost.items() <= summary.items()
    assert scalars(evaluation).items() <= summary.items()


def test_the_config_says_what_was_run_on_what(
    logged: dict[str, Any], evaluation: dict[str, Any], sample: Path
) -> None:
    config = logged["config"]
    assert config["model"]["init_args"]["backbone"] == "tf_efficientnet_lite0"
    assert config["annotations_sha256"] == {
        split: hashlib.sha256((sample / f"{split}.json").read_bytes()).hexdigest()
        for split in ("train", "val")
    }
    assert config["parameters"] == evaluation["cost"]["parameters"]
    assert config["architecture"] == "DeepLabV2"
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True)
    if head.returncode == 0:  # in an unpacked release there is no repository
        assert config["git"]["commit"] == head.stdout.strip()


def test_charts_have_a_bar_per_class_and_a_cell_per_pair(
    tiny_run: Path, logged: dict[str, Any], evaluation: dict[str, Any]
) -> None:
    names = evaluation["classes"]
    bars = {kind: dict(zip(names, evaluation[kind]["iou"], strict=True)) for kind in
            ("raw", "refined")}  # fmt: skip
    # The one validation chose the checkpoint that was scored.
    validation = {name: iou for name, iou in bars["raw"].items() if iou is not None}
    drawn = dict(table(tiny_run, "iou_per_class/validation_table")["data"])
    assert drawn == pytest.approx(validation)
    final = dict(table(tiny_run, "iou_per_class/final_table")["data"])
    both = {f"{name} {kind}": bars[kind][name] for name in names for kind in bars}
    assert final == {name: iou for name, iou in both.items() if iou is not None}
    # Raw beside refined: neighbours in the chart.
    assert list(final)[:2] == ["Background raw", "Background refined"]
    for kind in ("raw", "refined"):
        cells = table(tiny_run, f"confusion/{kind}_table")["data"]
        counts = {(actual, predicted): count for actual, predicted, count in cells}
        matrix = [[counts[actual, predicted] for predicted in names] for actual in names]
        assert matrix == evaluation[kind]["confusion"]
    # W&B's page takes what it draws, and from which table, from the run's own settings.
    drawings = logged["config"]["_wandb"]["visualize"]
    assert {"iou_per_class/validation", "iou_per_class/final", "confusion/raw"} <= drawings.keys()


def test_photos_have_masks_to_switch_on_and_off(
    tiny_run: Path, logged: dict[str, Any], coco: CocoFile
) -> None:
    photos = next(row for row in logged["history"] if "photos/validation/count" in row)
    names = {"true", "raw", "refined", "errors raw", "errors refined"}
    assert photos["photos/validation/count"] == 4
    every = photos["photos/validation/all_masks"]
    assert all(masks.keys() == names for masks in every)
    (files,) = tiny_run.glob("wandb/offline-run-*/files")
    stored = {str(path.relative_to(files)): path for path in logged["media"]}
    # The first and the last of five and two between; one epoch, so the best checkpoint's masks.
    for place, masks in zip((0, 1, 3, 4), every, strict=True):
        photo = coco.photos[place]
        files = {name: stored[mask["path"]] for name, mask in masks.items()}
        shown = {name: cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for name, file in files.items()}
        truth = coco.paint(photo)
        assert (shown["true"] == truth).all()
        for kind in ("raw", "refined"):
            path = tiny_run / "labels" / kind / f"{photo.file_name}.png"
            labels, errors = cv2.imread(str(path), cv2.IMREAD_UNCHANGED), shown[f"errors {kind}"]
            assert (shown[kind] == labels).all()
            assert ((errors == 253) == ((labels == truth) & (truth != 255))).all()
            assert ((errors == 255) == (truth == 255)).all()
            assert set(np.unique(errors)) <= {253, 254, 255}


def test_the_worst_photos_come_first(lively: Path, coco: CocoFile) -> None:
    worst = table(lively, "photos/worst")
    assert worst["columns"] == ["photo", "file", "mIoU raw", "mIoU refined",
                                "pixel accuracy raw", "pixel accuracy refined"]  # fmt: skip
    rows = worst["data"]
    assert {row[1] for row in rows} == {photo.file_name for photo in coco.photos}
    refined = [row[3] for row in rows]
    assert refined == sorted(refined)
    assert refined != [row[2] for row in rows]
    by_name = {photo.file_name: photo for photo in coco.photos}
    for image, name, *scores in rows:
        assert image["caption"] == name
        assert image["masks"].keys() == {"true", "raw", "refined", "errors raw", "errors refined"}
        truth = coco.paint(by_name[name])
        for place, kind in enumerate(("raw", "refined")):
            ids = cv2.imread(str(lively / "labels" / kind / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            known = truth != 255
            ious = [
                ((ids == c) & (truth == c))[known].sum() / union
                for c in range(11)
                if (union := ((ids == c) | (truth == c))[known].sum())
            ]
            assert scores[place] == pytest.approx(np.mean(ious))
            assert scores[2 + place] == pytest.approx((ids == truth)[known].mean())


def test_no_more_than_the_worst_are_shown_with_their_masks(lively: Path, coco: CocoFile) -> None:
    evaluation = json.loads((lively / "evaluation.json").read_text())
    rows = worst_photos(evaluation, lively, coco, number=2).data
    assert [row[1] for row in rows] == [row[1] for row in table(lively, "photos/worst")["data"]][:2]
    for image, name, *_ in rows:
        shown = {key: cv2.imread(mask._path, cv2.IMREAD_UNCHANGED)
                 for key, mask in image._masks.items()}  # fmt: skip
        for kind in ("raw", "refined"):
            labels = cv2.imread(str(lively / "labels" / kind / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            assert (shown[kind] == labels).all()
            assert ((shown[f"errors {kind}"] == 253) == (labels == shown["true"])).all()
        assert (shown["raw"] != shown["refined"]).any()
    # A photo without a labelled pixel has no score, and is none of the worst.
    with gzip.open(lively / "per_photo.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    (first,) = (line for line in lines if line["file_name"] == rows[0][1])
    for kind in ("raw", "refined"):
        counts = PhotoCounts.from_json(first[kind])
        counts.confusion[:] = 0
        first[kind] = counts.to_json()
    copy = lively.parent / "copy"
    shutil.copytree(lively / "labels", copy / "labels")
    with gzip.open(copy / "per_photo.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    again = worst_photos(evaluation, copy, coco, number=2).data
    assert again[0][1] == rows[1][1]


@pytest.fixture(scope="module")
def whole(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted: three epochs of three steps."""
    run, _ = fit_tiny(sample, tmp_path_factory.mktemp("whole"), "--trainer.logger", "true")
    all_written()
    return run


def resumed(run: Path, folder: Path, *settings: str) -> Path:
    """Go on with a copy of a run: this process still holds those it has written to."""
    shutil.copytree(run, folder)
    fit(["--resume", str(folder), *settings])
    all_written()
    return folder


def check_steps(run: Path) -> list[dict[str, Any]]:
    """The history of a run's files: W&B's steps in order, none twice, each the optimizer's."""
    history = read(run)["history"]
    steps = [row["_step"] for row in history]
    assert steps == sorted(set(steps))
    assert all(row["trainer/global_step"] == row["_step"] for row in history if "train/loss" in row)
    return history


def logged_numbers(row: dict[str, Any]) -> dict[str, Any]:
    """What of a row is the same in every run of the same seed."""
    kept = ("train/", "val/", "trainer/")
    return {key: value for key, value in row.items() if key.startswith(kept)}


def test_a_run_that_failed_and_was_resumed_has_the_history_of_a_whole_one(
    whole: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0
    step = SegmentationModule.training_step

    def failing_step(self: SegmentationModule, *args: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 6:  # after two steps of the second epoch were logged, which is then done again
            raise RuntimeError("struck")
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", failing_step)
        with pytest.raises(RuntimeError, match="struck"):
            fit_tiny(sample, tmp_path, "--trainer.logger", "true")
    all_written()
    (run,) = (tmp_path / "two").iterdir()
    assert [row["_step"] for row in read(run)["history"]] == [0, 1, 2, 3, 4]
    run = resumed(run, tmp_path / "resumed")
    pieces, one = check_steps(run), check_steps(whole)
    assert list(map(logged_numbers, pieces)) == list(map(logged_numbers, one))
    assert {"val/raw/miou", "cost/seconds_per_training_step"} <= pieces[-1].keys()
    # Both files are of one W&B run, so `wandb sync` joins them.
    assert len({path.name for path in run.glob("wandb/offline-run-*/*.wandb")}) == 1
    assert len(list(run.glob("wandb/offline-run-*"))) == 2

    # Scored again with another CRF, nothing trained: new scores, and still no step twice.
    again = resumed(run, tmp_path / "again", "--crf.iterations", "1")
    history = check_steps(again)
    assert history[:-1] == pieces
    assert "train/loss" not in history[-1]
    assert history[-1]["trainer/global_step"] == 8  # of nine, counted from 0
    refined = json.loads((again / "evaluation.json").read_text())["refined"]
    assert history[-1]["val/refined/miou"] == refined["miou"]
    # Longer after all.
    history = check_steps(resumed(again, tmp_path / "longer", "--trainer.max_epochs", "5"))
    assert history[-1]["trainer/epoch"] == 4


def test_a_killed_run_logs_no_step_twice(
    whole: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "two.yaml"
    shutil.copy(whole.parents[1] / "two.yaml", config)
    settings = ["--trainer.logger", "true", "--trainer.default_root_dir", tmp_path]
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # of this process, which lives on
    killed = strike("step", 9, "--config", config, *settings)
    assert killed.returncode == -9, killed.stderr
    (run,) = (tmp_path / "two").iterdir()
    history = check_steps(resumed(run, tmp_path / "resumed"))
    # What W&B had not yet written when it was killed is lost, if it is not done again.
    one = {row["_step"]: row for row in check_steps(whole)}
    assert {6, 7, 8} <= {row["_step"] for row in history} <= one.keys()
    for row in history:
        expected = logged_numbers(one[row["_step"]])
        assert logged_numbers(row).items() <= expected.items()


def test_the_checkpoint_becomes_an_artifact_where_asked(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    tracker = "--trainer.logger.class_path", "segment.tracking.Tracker"
    asked = "--trainer.logger.init_args.checkpoint_as_artifact", "true"
    run, _ = fit_tiny(sample, tmp_path, *tracker, *asked, "--trainer.max_epochs", "1")
    all_written()
    models = [one for one in read(run)["artifacts"].values() if one.type == "model"]
    assert len(models) == 1
    assert "best" in models[0].aliases
    (entry,) = models[0].manifest.contents
    assert entry.path == "best.ckpt"
    kept, best = Path(entry.local_path), run / "checkpoints" / "best.ckpt"
    assert kept != best  # a copy: a resumed run writes over its own
    assert kept.read_bytes() == best.read_bytes()


def test_no_artifact_of_a_checkpoint_unasked(logged: dict[str, Any]) -> None:
    assert "model" not in {artifact.type for artifact in logged["artifacts"].values()}
