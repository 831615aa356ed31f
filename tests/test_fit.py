"""The whole path, through the command line that a user types."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
import yaml
from conftest import Verb
from PIL import Image
from pycocotools import mask as rle

from segment.cli import RUN_VARIABLE
from segment.data.coco import CocoFile
from segment.data.taxonomy import Taxonomy
from segment.metrics import PhotoCounts, scores_from_counts
from segment.runs import hold

KEYS = {
    "schema", "experiment", "checkpoint", "split", "annotations", "classes", "raw", "refined",
    "crf", "cost", "per_photo", "labels", "versions", "seed", "git", "notes",
}  # fmt: skip
SCORES = {
    "confusion", "miou", "miou_foreground", "pixel_accuracy", "mean_accuracy", "fw_iou", "iou",
    "boundary_f1", "trimap_miou",
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluation(tiny_run: Path) -> dict:
    return json.loads((tiny_run / "evaluation.json").read_text())


def test_leaves_a_run_folder_that_says_all(tiny_run: Path) -> None:
    assert (tiny_run / "checkpoints" / "best.ckpt").is_file()
    assert (tiny_run / "checkpoints" / "last.ckpt").is_file()
    config = yaml.safe_load((tiny_run / "config.yaml").read_text())
    assert config["seed_everything"] == 1
    assert config["data"]["flip"] == 0.5  # defaults are written out
    assert not [path for path in tiny_run.rglob("*") if path.suffix in (".tmp", ".part")]
    assert len(list(tiny_run.parents[1].rglob("*.ckpt"))) == 2  # Lightning adds none of its own


def test_evaluation_json_has_what_its_readers_need(evaluation: dict) -> None:
    assert evaluation.keys() >= KEYS
    assert evaluation["raw"].keys() >= SCORES
    assert evaluation["refined"].keys() >= SCORES
    assert evaluation["crf"]["parameters"]["iterations"] == 2
    assert evaluation["crf"]["backend"] == "native"
    assert evaluation["cost"]["parameters"] == _parameters()
    assert evaluation["cost"]["seconds_per_photo_forward"] > 0
    assert evaluation["seed"] == 1
    assert len(evaluation["annotations"]["sha256"]) == 64
    assert evaluation["notes"] == []  # the checkpoint of the one validation was not chosen
    assert evaluation["pretrained_on"] == "ImageNet"
    assert evaluation["starts_from"] == ["weights"]


def test_no_photos_chose_the_last_checkpoint(
    tiny_run: Path, run_verb: Verb, tmp_path: Path
) -> None:
    done = run_verb(
        "evaluate", "--run", tiny_run, "--checkpoint", "last", "--crf", "null", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "evaluation.json").read_text())["notes"] == []


def _parameters() -> int:
    """Lite0 up to its last features, and four 3x3 convolutions from 320 channels to 11 classes."""
    lite = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(-1,))
    return sum(p.numel() for p in lite.parameters()) + 4 * (320 * 9 * 11 + 11)


def test_counts_every_labelled_pixel_of_every_photo(evaluation: dict, sample: Path) -> None:
    coco = CocoFile(sample / "val.json", sample, taxonomy=Taxonomy.load("trash10"))
    truth = np.concatenate([coco.paint(photo).ravel() for photo in coco.photos])
    expected = np.bincount(truth[truth != 255], minlength=11)
    for kind in ("raw", "refined"):
        assert np.array_equal(np.sum(evaluation[kind]["confusion"], axis=1), expected)


def test_label_pngs_and_per_photo_counts_give_the_same_scores(
    evaluation: dict, tiny_run: Path, sample: Path
) -> None:
    coco = CocoFile(sample / "val.json", sample, taxonomy=Taxonomy.load("trash10"))
    with gzip.open(tiny_run / "per_photo.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    assert [line["image_id"] for line in lines] == [photo.id for photo in coco.photos]
    for kind in ("raw", "refined"):
        counts = [PhotoCounts.from_json(line[kind]) for line in lines]
        assert scores_from_counts(counts, 11, 0)["miou"] == evaluation[kind]["miou"]
        confusion = np.zeros((11, 11), int)
        for photo in coco.photos:
            png = tiny_run / "labels" / kind / f"{photo.file_name}.png"
            ids, truth = cv2.imread(str(png), cv2.IMREAD_UNCHANGED), coco.paint(photo)
            known = truth != 255
            np.add.at(confusion, (truth[known], ids[known]), 1)
        assert confusion.tolist() == evaluation[kind]["confusion"]


def test_prints_one_table(tiny_run: Path) -> None:
    out = (tiny_run / "output.txt").read_text()
    assert "raw  refined   change" in out
    for word in ("Battery", "mean IoU", "boundary F1", "s per photo"):
        assert word in out
    assert f"`wandb sync {tiny_run}/wandb/offline-run-*` upload it" in out
    assert "tuned the CRF" not in out


def test_arguments_of_the_model_are_replaced_for_one_evaluation(
    lively_run: Path, run_verb: Verb, tmp_path: Path
) -> None:
    out = tmp_path / "finer"
    words = ["evaluate", "--run", lively_run, "--crf", "null"]
    done = run_verb(*words, "--init_args", "{output_stride: 8}", "--out", out)
    assert done.returncode == 0, done.stderr
    finer = json.loads((out / "evaluation.json").read_text())
    assert finer["init_args"] == {"output_stride": 8}
    own = json.loads((lively_run / "evaluation.json").read_text())
    assert own["init_args"] is None
    assert own["notes"] == ["the same photos chose the checkpoint, so new ones may score lower"]
    # The same weights on twice as many cells: other labels, at about four times the work.
    assert finer["raw"]["confusion"] != own["raw"]["confusion"]
    assert finer["cost"]["parameters"] == own["cost"]["parameters"]
    assert 2 < finer["cost"]["multiply_adds_512"] / own["cost"]["multiply_adds_512"] < 4
    for given, told in (
        ("{stride: 8}", "--init_args: DeepLabV2Module has no stride; it has "),
        ("{aspp: large, backbone: tf_efficientnet_lite2}", "has other weights than"),
    ):
        refused = run_verb(*words, "--init_args", given, "--out", tmp_path / "refused")
        assert refused.returncode == 2
        assert told in refused.stderr


def test_evaluate_scores_a_run_again_without_changing_it(lively_run: Path, run_verb: Verb) -> None:
    before = (lively_run / "evaluation.json").read_text()
    out = lively_run.parent / "again"
    done = run_verb("evaluate", "--run", lively_run, "--crf", "null", "--out", out)
    assert done.returncode == 0, done.stderr
    assert (out / "labels" / "raw").is_dir()
    again = json.loads((out / "evaluation.json").read_text())
    assert again["raw"]["confusion"] == json.loads(before)["raw"]["confusion"]
    assert again["refined"] is None
    assert again["crf"] is None
    assert "CRF: off" in done.stdout
    assert (lively_run / "evaluation.json").read_text() == before


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_two_verbs_do_not_write_to_one_folder(
    verb: str, tiny_run: Path, sample: Path, run_verb: Verb, tmp_path: Path
) -> None:
    hold(tmp_path / "out")
    photos = [sample / "val"] if verb == "predict" else []
    done = run_verb(verb, *photos, "--run", tiny_run, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"{tmp_path / 'out'}: another process is writing there" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_evaluate_says_where_the_same_photos_tuned_the_crf(
    tiny_run: Path, run_verb: Verb, tmp_path: Path, evaluation: dict
) -> None:
    sha256 = evaluation["annotations"]["sha256"]
    done = run_verb(
        "evaluate", "--run", tiny_run, "--out", tmp_path / "out", "--crf.tuned_on", sha256
    )
    assert done.returncode == 0, done.stderr
    note = "the same photos tuned the CRF"
    assert note in done.stdout
    assert any(
        note in n for n in json.loads((tmp_path / "out/evaluation.json").read_text())["notes"]
    )


def test_evaluate_keeps_the_checkpoint_s_classes(
    tiny_run: Path, run_verb: Verb, sample: Path, tmp_path: Path
) -> None:
    # The same photos with two categories' names swapped: another numbering of the same classes.
    root = tmp_path / "swapped"
    shutil.copytree(sample, root)
    for split in ("train", "val"):
        coco = json.loads((root / f"{split}.json").read_text())
        names = {"Paper": "Battery", "Battery": "Paper"}
        for category in coco["categories"]:
            category["name"] = names.get(category["name"], category["name"])
        (root / f"{split}.json").write_text(json.dumps(coco))
    common = ["evaluate", "--run", tiny_run, "--data.root", root, "--crf", "null"]
    done = run_verb(*common, "--out", tmp_path / "a", "--data.taxonomy", "null")
    assert done.returncode == 0, done.stderr
    classes = json.loads((tmp_path / "a" / "evaluation.json").read_text())["classes"]
    assert classes == list(Taxonomy.load("trash10").classes)
    done = run_verb(*common, "--out", tmp_path / "b", "--data.taxonomy", "garbage6")
    assert done.returncode == 2
    assert "take the checkpoint's own" in done.stderr


@pytest.fixture(scope="module")
def lively_run(tiny_run: Path, run_verb: Verb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with scores drawn at random: it finds objects of many classes everywhere."""
    run = tmp_path_factory.mktemp("lively") / "run"
    (run / "checkpoints").mkdir(parents=True)
    config = (tiny_run / "config.yaml").read_text()
    # As if it had been validated twice: then its best checkpoint is one that was chosen.
    (run / "config.yaml").write_text(config.replace("max_epochs: 1\n", "max_epochs: 2\n"))
    checkpoint = torch.load(tiny_run / "checkpoints" / "best.ckpt", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in checkpoint["state_dict"].items():
        if name.startswith("network.aspp."):
            tensor.normal_(std=0.3, generator=generator)
    torch.save(checkpoint, run / "checkpoints" / "best.ckpt")
    done = run_verb("evaluate", "--run", run)
    assert done.returncode == 0, done.stderr
    return run


def test_predict_writes_labels_overlays_lists_and_probabilities(
    lively_run: Path, run_verb: Verb, sample: Path, tmp_path: Path
) -> None:
    done = run_verb(
        "predict", sample / "val", "--run", lively_run, "--out", tmp_path,
        "--save_probabilities", "true", "--heat_maps", "true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (sample / "val").iterdir())
    evaluated = lively_run / "labels" / "refined" / "val"
    results = json.loads((tmp_path / "results.json").read_text())
    categories = json.loads((tmp_path / "categories.json").read_text())
    classes = Taxonomy.load("trash10").classes
    told: dict[int, float] = {}
    assert {one["id"]: one["name"] for one in categories} == dict(enumerate(classes))
    areas = (tmp_path / "areas.csv").read_text().splitlines()
    assert areas[0] == "photo,class,pixels,share"
    for name in names:
        ids = cv2.imread(str(tmp_path / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        same = cv2.imread(str(evaluated / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(ids, same)  # predict and evaluate are one path
        regions = {
            result["category_id"]: rle.decode(result["segmentation"]).astype(bool)
            for result in results
            if result["file_name"] == name
        }
        assert regions.keys() == set(np.unique(ids).tolist()) - {0}
        assert regions  # the run is lively
        assert all(np.array_equal(region, ids == index) for index, region in regions.items())
        listed = {line.split(",")[1]: line.split(",")[2:] for line in areas if name in line}
        counted = dict(zip(*np.unique(ids, return_counts=True), strict=True))
        assert listed == {
            classes[index]: [str(pixels), f"{pixels / ids.size:.6f}"]
            for index, pixels in counted.items()
        }
        stored = np.load(tmp_path / "probabilities" / f"{name}.npz")["probabilities"]
        assert stored.shape == (11, 64, 64)
        raw = cv2.imread(str(lively_run / "labels/raw/val" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert (stored.argmax(0) == raw).mean() > 0.999  # float16 makes ties
        photo = cv2.imread(str(sample / "val" / name)).astype(int)
        shown = cv2.imread(str(tmp_path / "overlays" / f"{name}.jpg")).astype(int)
        off = np.abs(shown - photo).mean(-1)
        assert off[ids != 0].mean() > 20
        if (ids == 0).any():  # the background stays clear, but for what JPEG changes
            assert off[ids == 0].mean() < off[ids != 0].mean() / 3
        for index in counted:
            heat = cv2.imread(str(tmp_path / "heat_maps" / f"{name}.{classes[index]}.png"))
            green = heat[..., 1].astype(int)  # rises all the way from viridis's violet to yellow
            if len(counted) > 1:
                told[index] = green[ids == index].mean() - green[ids != index].mean()
    assert len(told) > 2  # classes
    assert min(told.values()) > 10
    assert len(list((tmp_path / "heat_maps").iterdir())) == 11 * len(names)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nothing.jpg"], "nothing.jpg: no such photo or folder"),
        (["."], "no photos (.bmp"),
    ],
)
def test_predict_says_what_is_missing(
    args: list[str], words: str, tiny_run: Path, tmp_path: Path, run_verb: Verb
) -> None:
    (tmp_path / "empty").mkdir()
    target = [tmp_path / "empty" if arg == "." else arg for arg in args]
    done = run_verb("predict", *target, "--run", tiny_run, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_names_photos_it_cannot_read_after_all_others(
    lively_run: Path, run_verb: Verb, copied: Path, tmp_path: Path
) -> None:
    name = break_photo(copied, 0, cut=True)
    out = tmp_path / "out"
    done = run_verb("predict", copied / "train.json", "--run", lively_run, "--out", out)
    assert done.returncode == 2
    assert "8 photos written" in done.stdout
    assert "1 photos could not be read" in done.stderr
    assert name in done.stderr
    assert len(list((out / "labels").rglob("*.png"))) == 8
    assert not any(
        row["file_name"] == name for row in json.loads((out / "results.json").read_text())
    )


def test_predict_takes_the_ids_of_a_json_of_images_alone(
    lively_run: Path, run_verb: Verb, sample: Path, tmp_path: Path
) -> None:
    coco = json.loads((sample / "val.json").read_text())
    photo = sample / "train" / next(path.name for path in (sample / "train").iterdir())
    images = [{**image, "id": image["id"] + 1000} for image in coco["images"]]
    (tmp_path / "test.json").write_text(json.dumps({"images": images}))
    done = run_verb(
        "predict", tmp_path / "test.json", photo, "--root", sample, "--run", lively_run,
        "--out", tmp_path / "out", "--crf", "null",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for image in images:
        assert (tmp_path / "out" / "labels" / f"{image['file_name']}.png").is_file()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    names = {image["id"]: image["file_name"] for image in images}
    names[max(names) + 1] = photo.name  # a photo beside the json gets an id of its own
    assert {result["image_id"]: result["file_name"] for result in results} == names


def break_photo(root: Path, place: int, cut: bool) -> str:
    """Damage a training photo: cut it short, or lose a piece of its middle; gives its name."""
    name = json.loads((root / "train.json").read_text())["images"][place]["file_name"]
    with Image.open(root / name) as image:
        image.save(root / "whole.png")  # whose gaps are noticed; a JPEG's are filled with grey
    data = (root / "whole.png").read_bytes()
    (root / name).write_bytes(data[: len(data) // 2] + (b"" if cut else data[-12:]))
    return name


@pytest.fixture
def copied(sample: Path, tmp_path: Path) -> Path:
    """A copy of the sample set, to be damaged."""
    return Path(shutil.copytree(sample, tmp_path / "copied"))


@pytest.mark.parametrize("cut", [True, False], ids=["before training", "in mid-epoch"])
def test_a_damaged_photo_stops_the_run_with_its_name(
    experiment: Path, run_verb: Verb, copied: Path, tmp_path: Path, cut: bool
) -> None:
    name = break_photo(copied, 4, cut)
    done = run_verb(
        "fit", "--config", experiment, "--data.root", copied, "--data.workers", "2",
        "--trainer.default_root_dir", tmp_path, "--trainer.logger", "false",
    )  # fmt: skip
    assert done.returncode == 2
    said = done.stderr[done.stderr.rindex("error: ") :]
    assert name in said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 2
    assert ("train.json" in said) == cut  # found while the json was checked


def test_or_is_skipped_and_counted(
    experiment: Path, run_verb: Verb, copied: Path, tmp_path: Path
) -> None:
    root = copied
    break_photo(root, 4, cut=False)
    # Of two processes the second one scores this photo.
    name = json.loads((root / "val.json").read_text())["images"][1]["file_name"]
    (root / name).write_bytes((root / name).read_bytes()[:1000])
    done = run_verb(
        "fit", "--config", experiment, "--data.root", root, "--data.workers", "2",
        "--data.on_bad_photo", "skip", "--trainer.default_root_dir", tmp_path,
        "--trainer.logger", "false", "--trainer.devices", "2", "--trainer.strategy", "ddp",
        "--data.batch_size", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 photos of train could not be read" in done.stderr
    (run,) = (tmp_path / "tiny").iterdir()
    notes = json.loads((run / "evaluation.json").read_text())["notes"]
    assert "1 photos could not be read and are not in the scores" in notes
    assert "could not be read and are not in the scores" in done.stdout


def test_two_processes_score_exactly_what_one_does(
    lively_run: Path, run_verb: Verb, tmp_path: Path
) -> None:
    # Five photos do not divide by two: one process gets padding that must not count.
    done = run_verb(
        "evaluate", "--run", lively_run, "--out", tmp_path / "two", "--score_workers", "2",
        "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((lively_run / "evaluation.json").read_text())
    found = np.sum(evaluation["raw"]["confusion"], axis=0)
    assert (found > 0.02 * found.sum()).sum() > 3  # or the comparison below says little
    two = json.loads((tmp_path / "two" / "evaluation.json").read_text())
    for kind in ("raw", "refined"):
        for key in ("confusion", "boundary_f1", "trimap_miou", "calibration"):
            assert two[kind][key] == evaluation[kind][key]
    with gzip.open(tmp_path / "two" / "per_photo.jsonl.gz", "rt") as file:
        ids = [json.loads(line)["image_id"] for line in file]
    with gzip.open(lively_run / "per_photo.jsonl.gz", "rt") as file:
        assert ids == [json.loads(line)["image_id"] for line in file]
    assert done.stdout.count("IoU by class") == 1


def test_two_processes_write_one_run(experiment: Path, run_verb: Verb, tmp_path: Path) -> None:
    done = run_verb(
        "fit", "--config", experiment, "--trainer.default_root_dir", tmp_path,
        "--trainer.devices", "2", "--trainer.strategy", "ddp",
        "--trainer.accumulate_grad_batches", "2", "--data.batch_size", "1",
        "--trainer.precision", "bf16-mixed",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "tiny").iterdir()  # one folder, not one per process
    # Nine photos are five batches of one for each process, so three steps of two batches.
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert "bfloat16 Automatic Mixed Precision" in done.stdout + done.stderr
    assert json.loads((run / "evaluation.json").read_text())["annotations"]["photos"] == 5


def test_two_processes_of_torchrun_train_what_one_does(experiment: Path, tmp_path: Path) -> None:
    # Where every photo has as many labelled pixels, the mean over two processes' gradients is that
    # of one batch of both photos. Norms that stay as they are leave no other difference.
    same = [
        "--config", str(experiment), "--trainer.max_steps", "4", "--trainer.logger", "false",
        "--model.init_args.freeze_batch_norm", "true", "--model.init_args.optimizer", "sgd",
        "--data.scale", "[1, 1]", "--data.crop_size", "64", "--crf", "null",
    ]  # fmt: skip
    one = [sys.executable, "-m", "segment.fit", *same, "--data.batch_size", "2"]
    two = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "segment.fit", *same, "--data.batch_size", "1",
        "--trainer.devices", "2", "--trainer.strategy", "ddp",
    ]  # fmt: skip
    weights = []
    earlier = tmp_path / "earlier"
    for name, words in (("one", one), ("two", two)):
        root = tmp_path / name
        done = subprocess.run(
            [*words, "--trainer.default_root_dir", str(root)],
            capture_output=True, text=True, check=False, timeout=300,
            # What a script that has fitted before, in its own process, hands down to the next one.
            env={**os.environ, "OMP_NUM_THREADS": "1", RUN_VARIABLE: f"{os.getpid()}:{earlier}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (run,) = (root / "tiny").iterdir()
        checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        weights.append(checkpoint["state_dict"])
    assert not earlier.exists()
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-3, atol=1e-5, msg=key)


def test_norms_over_processes_without_gpus_are_refused(
    experiment: Path, run_verb: Verb, tmp_path: Path
) -> None:
    done = run_verb(
        "fit", "--config", experiment, "--trainer.default_root_dir", tmp_path,
        "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.sync_batchnorm", "true",
    )  # fmt: skip
    assert done.returncode == 2
    assert "trainer.sync_batchnorm: torch synchronizes norms between GPUs only" in done.stderr
    assert "Traceback" not in done.stderr
