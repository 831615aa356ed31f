"""What a user reads who made a mistake: a few lines, with what is allowed, and no traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from segment.cli import SegmentCLI
from segment.crf import DenseCRF
from segment.data.sample import make_sample
from segment.evaluate import _arguments as evaluate_arguments
from segment.evaluate import main
from segment.fit import _arguments
from segment.modules import SegmentationModule


def parse(*args: object) -> SegmentCLI:
    return SegmentCLI([str(arg) for arg in args], "fit", _arguments)


def test_builds_what_the_yaml_says(experiment: Path) -> None:
    cli = parse("--config", experiment)
    assert type(cli.model).__name__ == "DeepLabV2Module"
    assert cli.crf == DenseCRF(iterations=2)
    assert cli.config.experiment == "tiny"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (["--crf", "null"], None),
        (["--crf.iterations", "5"], DenseCRF(iterations=5)),
        (["--crf.max_side", "200"], DenseCRF(iterations=2, max_side=200)),
    ],
)
def test_the_command_line_overrides_the_crf(
    experiment: Path, override: list[str], expected: DenseCRF | None
) -> None:
    assert parse("--config", experiment, *override).crf == expected


def test_a_file_of_crf_settings(experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "crf.yaml").write_text("{iterations: 4, bilateral_weight: 2.5}\n")
    cli = parse("--config", experiment, "--crf", tmp_path / "crf.yaml")
    assert cli.crf == DenseCRF(iterations=4, bilateral_weight=2.5)


def changed(experiment: Path, folder: Path, **keys: object) -> Path:
    content = yaml.safe_load(experiment.read_text())
    for path, value in keys.items():
        *parents, last = path.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    copy = folder / "changed.yaml"
    copy.write_text(yaml.safe_dump(content))
    return copy


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"data__crop_sise": 3}, ["data.crop_sise", "crop_size"]),
        ({"crf__itrations": 3}, ["itrations", "iterations"]),
        ({"model__init_args__bakbone": "x"}, ["bakbone", "backbone"]),
        ({"trainer__max_epoch": 3}, ["max_epoch", "max_epochs"]),
        ({"modle": 3}, ["modle", "model"]),
        ({"crf": 3}, ["crf is 3; write its settings", "null"]),
        ({"model": 3}, ["model is 3; write its settings"]),
        ({"data": "set"}, ["data is 'set'; write its settings"]),
        ({"trainer": 3}, ["trainer is 3; write its settings"]),
        ({"trainer__devices": "two"}, ["trainer: `devices`", "int > 0"]),
        ({"trainer__val_check_interval": 5000}, ["trainer: `val_check_interval` (5000)"]),
        ({"trainer__barebones": True}, ["trainer: `Trainer(barebones=True"]),
        ({"seed_everything": -1}, ["seed_everything: -1 is not in bounds"]),
        ({"model__init_args__aspp": "medium"}, ["aspp", "medium", "small", "large"]),
        ({"crf__normalization": "none at all"}, ["normalization", "symmetric", "after"]),
        ({"data__batch_size": "many"}, ["data.batch_size", "many", "int"]),
        ({"crf__iterations": -1}, ["iterations", "-1"]),
        ({"model__class_path": "segment.modules.UNot"}, ["UNot", "DeepLabV2Module"]),
        ({"model__init_args__num_classes": 5}, ["num_classes is 5", "11", "Battery"]),
        ({"model__init_args__backbone": "vit_small_patch16_224"}, ["vit_small", "ResNet"]),
        ({"data__taxonomy": "trash12"}, ["trash12", "trash10"]),
        ({"data__root": "nowhere/at/all"}, ["nowhere/at/all"]),
    ],
)
def test_a_mistake_in_the_yaml(
    keys: dict, words: list[str], experiment: Path, tmp_path: Path, complaint: Callable
) -> None:
    config = changed(experiment, tmp_path, **keys)
    said = complaint(["--config", config, "--trainer.default_root_dir", tmp_path / "runs"])
    for word in words:
        assert word in said


def test_all_test_batches_may_be_asked_for(experiment: Path) -> None:
    assert parse("--config", experiment, "--trainer.limit_test_batches", "1.0").trainer


def test_config_may_be_given_with_an_equals_sign(experiment: Path) -> None:
    assert parse(f"--config={experiment}").config.experiment == "tiny"


@pytest.mark.parametrize("content", ["a: [1", "", "- 1", "\x00"])
def test_a_broken_yaml_is_named(content: str, tmp_path: Path, complaint: Callable) -> None:
    (tmp_path / "broken.yaml").write_text(content)
    assert "broken.yaml" in complaint(["--config", tmp_path / "broken.yaml"])


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        (["--trainer.accelerator", "banana"], "banana"),
        (["--trainer.strategy", "foo"], "foo"),
        (["--trainer.precision", "3"], "16-mixed"),
        (["--seed_everything", "abc"], "bool or int"),
        (["--model.init_args.momentum", "-3"], "momentum is -3"),
        (["--trainer.max_epochs", "-1"], "poly, which must know when training ends"),
        (["--trainer.max_epochs", "0"], "not one epoch was trained"),
        (["--model.init_args.lr", ".nan"], "lr is nan"),
        (["--model.init_args.lr", "1e30"], "so training has diverged; lower model.init_args.lr"),
        (["--model.init_args.class_weights", "[-1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"], "0 or more"),
        *(
            (["--experiment", name], "give a name, not a path")
            for name in ("../../x", "..", ".", "")
        ),
        (["--trainer.limit_test_batches", "2"], "scores are of all photos"),
        (["--trainer.fast_dev_run", "2"], "trainer.fast_dev_run is 2, but scores are of all"),
        (["--crf", "deeplab_v2"], "write its settings, the path of a YAML file, or null"),
    ],
)
def test_impossible_settings_of_the_trainer(
    setting: list[str], word: str, experiment: Path, tmp_path: Path, complaint: Callable
) -> None:
    args = ["--config", experiment, "--trainer.default_root_dir", tmp_path, *setting]
    assert word in complaint([*args, "--trainer.logger", "false"])


@pytest.mark.parametrize(
    ("more", "words"),
    [("carf: {}", ["there is no setting carf", "crf"]), ("crf: {}", ["'crf' stands twice"])],
)
def test_what_the_parser_would_not_mention(
    more: str, words: list[str], experiment: Path, tmp_path: Path, complaint: Callable
) -> None:
    (tmp_path / "more.yaml").write_text(f"{experiment.read_text()}\n{more}\n")
    said = complaint(["--config", tmp_path / "more.yaml"])
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--crf.compatibility", "[[0,1],[1,0]]"], "for 2 classes but the probabilities have 11"),
        (["--crf.clip", "0.1"], "clip is 0.1"),
        (["--crf.backend", "exact"], "120x120 pixels would take"),
    ],
)
def test_a_crf_that_cannot_work_is_refused_before_training(
    settings: list[str],
    words: str,
    experiment: Path,
    tmp_path: Path,
    complaint: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_sample(tmp_path / "set", train=3, val=1, size=120, seed=0)
    monkeypatch.setattr(SegmentationModule, "training_step", lambda *_: pytest.fail("too late"))
    args = ["--config", experiment, "--data.root", tmp_path / "set", "--trainer.logger", "false"]
    said = complaint([*args, "--trainer.default_root_dir", tmp_path / "runs", *settings])
    assert words in said


def test_synchronized_norms_compute_what_they_did(experiment: Path) -> None:
    # EfficientNet's layers of norm and activation in one lose the activation in torch's converter.
    many = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    cli = parse("--config", experiment, "--trainer.sync_batchnorm", "true", *many)
    image = torch.randint(0, 256, (1, 3, 65, 65), dtype=torch.uint8)
    network = cli.model.eval()
    with torch.no_grad():
        before = network(image)
        converted = cli.trainer.strategy._layer_sync.apply(network)
        assert any(isinstance(m, nn.SyncBatchNorm) for m in converted.modules())
        torch.testing.assert_close(converted(image), before)


def test_evaluate_takes_no_model(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(experiment.read_text())
    with pytest.raises(SystemExit):
        main(["--run", str(tmp_path), "--model.init_args.num_classes", "5"])
    said = capsys.readouterr().err
    assert said.startswith("error: --model.init_args.num_classes: a checkpoint says itself")


def test_evaluate_opens_no_wandb_run_of_its_own(experiment: Path, tmp_path: Path) -> None:
    logged = changed(
        experiment, tmp_path, trainer__logger={"class_path": "segment.tracking.Tracker"}
    )
    assert parse("--config", logged).trainer.loggers
    logged.rename(tmp_path / "config.yaml")
    cli = SegmentCLI(["--run", str(tmp_path)], "evaluate", evaluate_arguments)
    assert cli.trainer.loggers == []


def test_no_experiment(complaint: Callable) -> None:
    assert "--config experiments/smoke.yaml" in complaint([])


def test_a_yaml_cannot_import_what_it_likes(
    experiment: Path, tmp_path: Path, complaint: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text("open('executed', 'w')\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    complaint(["--config", changed(experiment, tmp_path, model__class_path="evil.Evil")])
    assert not (tmp_path / "executed").exists()
