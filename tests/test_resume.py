"""A run that is stopped, killed or resumed: it ends as if nothing had happened."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Verb, fit_tiny
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import segment.data.taxonomy
from segment.fit import fit


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def strike(where: str, at: int, *args: object) -> subprocess.CompletedProcess[str]:
    """`fit`, with a signal to itself at a step (or at a save of a checkpoint)."""
    return subprocess.run(
        [sys.executable, "-c", KILL, where, str(at), *map(str, args)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize(("signal", "at", "code"), [("interrupt", 3, 1), ("terminate", 2, 143)])
def test_an_interrupted_run_leaves_a_checkpoint_that_can_be_scored(
    signal: str, at: int, code: int, experiment: Path, run_verb: Verb, tmp_path: Path
) -> None:
    settings = ["--trainer.default_root_dir", tmp_path, "--trainer.logger", "false"]
    stopped = strike(signal, at, "--config", experiment, *settings)
    assert stopped.returncode == code
    (run,) = (tmp_path / "tiny").iterdir()
    assert "--resume" in stopped.stdout + stopped.stderr
    done = run_verb("evaluate", "--run", run, "--checkpoint", "interrupted", "--crf", "null")
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "evaluation.json").read_text())["annotations"]["photos"] == 5


def test_a_run_terminated_in_its_last_step_is_not_scored(experiment: Path, tmp_path: Path) -> None:
    settings = ["--trainer.logger", "false", "--trainer.limit_val_batches", "0"]
    root = ["--trainer.default_root_dir", tmp_path]
    stopped = strike("terminate", 3, "--config", experiment, *settings, *root)
    assert stopped.returncode == 143, stopped.stderr
    (run,) = (tmp_path / "tiny").iterdir()
    assert not (run / "evaluation.json").exists()


KILL = """
import os, signal, sys
import torch
from segment.cli_errors import user_errors
import segment.data.taxonomy
from segment.fit import fit
from segment.modules import SegmentationModule
where, at = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start without it
seen = 0
def strike():
    global seen
    seen += 1
    if seen == at:
        known = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
        os.kill(os.getpid(), known.get(where, signal.SIGKILL))
save, step = torch.save, SegmentationModule.training_step
def dying_save(content, file, *args, **kwargs):
    save(content, file, *args, **kwargs)
    strike()
def dying_step(self, *args):
    strike()
    return step(self, *args)
if where == "save":
    torch.save = dying_save
else:
    SegmentationModule.training_step = dying_step
user_errors(lambda: fit(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("where", "at", "workers"), [("save", 4, 0), ("step", 5, 2), ("step", 2, 0)]
)
def test_a_killed_and_resumed_run_ends_with_the_same_weights(
    where: str, at: int, workers: int, dropout_run: Path, dropout_config: Path,
    run_verb: Verb, tmp_path: Path,
) -> None:  # fmt: skip
    killed = strike(
        where, at, "--config", dropout_config, "--data.workers", workers,
        "--trainer.default_root_dir", tmp_path,
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    (run,) = (tmp_path / "dropout").iterdir()
    resumed = run_verb("fit", "--resume", run)
    assert resumed.returncode == 0, resumed.stderr
    whole, pieces = weights(dropout_run), weights(run)
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[key], pieces[key]) for key in whole)
    assert sorted(path.name for path in (run / "checkpoints").glob("*.ckpt")) == [
        "best.ckpt", "last.ckpt",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def dropout_config(experiment: Path) -> Path:
    """VGG-16 with dropout in fc6 and fc7, three epochs of two steps."""
    content = yaml.safe_load(experiment.read_text())
    content["model"] = {
        "class_path": "segment.modules.DeepLabV1Module",
        "init_args": {"num_classes": 11, "pretrained": False, "schedule": "poly"},
    }
    content["data"] |= {"crop_size": 33, "batch_size": 4, "short_side": 33}
    content["trainer"] |= {"max_epochs": 3, "logger": False, "num_sanity_val_steps": 0}
    content["crf"] = None
    path = experiment.parent / "dropout.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def dropout_run(
    dropout_config: Path, run_verb: Verb, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("whole")
    done = run_verb("fit", "--config", dropout_config, "--trainer.default_root_dir", root)
    assert done.returncode == 0, done.stderr
    (run,) = (root / "dropout").iterdir()
    return run


WITHOUT_DROPOUT = """
import sys
import torch
import segment.data.taxonomy
from segment.fit import fit
torch.nn.Dropout.forward = lambda self, x: x
fit(sys.argv[1:])
"""


def test_the_dropout_run_does_depend_on_what_dropout_draws(
    dropout_config: Path, dropout_run: Path, tmp_path: Path
) -> None:
    # Without this the test above would pass for a run that draws nothing.
    done = subprocess.run(
        [
            sys.executable, "-c", WITHOUT_DROPOUT, "--config", str(dropout_config),
            "--trainer.default_root_dir", str(tmp_path),
        ],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "dropout").iterdir()
    other, whole = weights(run), weights(dropout_run)
    assert not all(torch.equal(whole[key], other[key]) for key in whole)


@pytest.fixture(scope="module")
def finished(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_tiny(sample, tmp_path_factory.mktemp("done"), "--trainer.max_epochs", "1")[0]


def resume(run: Path, folder: Path, *settings: object) -> Path:
    """Go on with a copy of a run: this process still holds those it has written to."""
    copy = Path(shutil.copytree(run, folder))
    fit(["--resume", str(copy), *map(str, settings)])
    return copy


def test_settings_that_are_refused_leave_the_run_as_it_was(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"  # as many classes, two of them in each other's place
    preset = (Path(segment.data.taxonomy.__file__).parent / "taxonomies/trash10.yaml").read_text()
    paper, glass = "  Paper: {color: [0, 128, 192]}\n", "  Glass: {color: [64, 0, 128]}\n"
    swapped = preset.replace(paper, "?").replace(glass, paper).replace("?", glass)
    assert swapped != preset
    other.write_text(swapped)
    run = finished
    for number, (setting, value, words) in enumerate(
        (
            ("data.val", "nowhere.json", "nowhere.json"),
            ("data.taxonomy", "camvid11", "camvid11"),
            ("data.taxonomy", other, "take the checkpoint's own"),
            ("crf.compatibility", "[[0,1],[1,0]]", "for 2 classes but the probabilities have 11"),
        )
    ):
        broken = tmp_path / str(number)
        with pytest.raises(ValueError, match=words):
            resume(run, broken, f"--{setting}", value)
        run = broken
    assert (run / "config.yaml").read_text() == (finished / "config.yaml").read_text()
    resume(run, tmp_path / "again")


def test_settings_that_work_are_used_and_kept(
    finished: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "more.yaml").write_text("trainer: {max_epochs: 3}")
    settings = ["--config", tmp_path / "more.yaml", "--data.short_side", "32"]
    longer = resume(finished, tmp_path / "longer", *settings)
    config = yaml.safe_load((longer / "config.yaml").read_text())
    assert (config["trainer"]["max_epochs"], config["data"]["short_side"]) == (3, 32)
    checkpoint = torch.load(longer / "checkpoints" / "last.ckpt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["segment"]["short_side"]) == (2, 32)
    with pytest.raises(MisconfigurationException, match="max_epochs=1"):  # in the restoring
        resume(longer, tmp_path / "shorter", "--trainer.max_epochs", "1")
    config = yaml.safe_load((tmp_path / "shorter" / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 3
    # Here no epoch is left, and the scores alone are new.
    scored = resume(longer, tmp_path / "scored", "--crf.iterations", "1")
    assert yaml.safe_load((scored / "config.yaml").read_text())["crf"]["iterations"] == 1
    assert json.loads((scored / "evaluation.json").read_text())["refined"] is not None
    assert not [warning for warning in recwarn if "is not empty" in str(warning.message)]


def test_a_resumed_run_takes_no_other_model(
    finished: Path, tmp_path: Path, complaint: Callable
) -> None:
    (tmp_path / "more.yaml").write_text("model: {init_args: {lr: 0.5}}")
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    for words, named in (
        (["--model.init_args.lr", "0.5"], "--model.init_args.lr"),
        (["--model=x.yaml"], "--model=x.yaml"),
        (["--config", tmp_path / "more.yaml"], f"{tmp_path / 'more.yaml'}: model"),
    ):
        said = complaint(["--resume", finished, *words])
        assert said.startswith(f"error: {named}: a resumed run goes on with its model")
        assert "start a new run from its weights with --model.init_args.weights" in said
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_a_run_goes_on_without_the_file_that_its_weights_started_from(
    finished: Path, sample: Path, tmp_path: Path
) -> None:
    start = Path(shutil.copy(finished / "checkpoints" / "last.ckpt", tmp_path / "start.ckpt"))
    settings = ["--trainer.max_epochs", "1", "--model.init_args.weights", str(start)]
    run, _ = fit_tiny(sample, tmp_path, *settings)
    start.unlink()
    longer = resume(run, tmp_path / "longer", "--trainer.max_epochs", "2")
    assert torch.load(longer / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
    config = yaml.safe_load((longer / "config.yaml").read_text())
    assert config["model"]["init_args"]["weights"] == str(start)  # where it came from stays told


def altered(run: Path, folder: Path, alter: Callable[[dict], None]) -> Path:
    """A copy of a run whose last checkpoint is not what it was."""
    copy = Path(shutil.copytree(run, folder))
    checkpoint = torch.load(copy / "checkpoints" / "last.ckpt", weights_only=True)
    alter(checkpoint)
    torch.save(checkpoint, copy / "checkpoints" / "last.ckpt")
    return copy


def split_groups(checkpoint: dict) -> None:
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    groups.append({**groups[-1], "params": [groups[-1]["params"].pop()]})


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda c: c.pop("segment"), "not a checkpoint of this framework"),
        (lambda c: c["segment"].update(class_name="UNetModule"), "is of UNetModule, config.yaml"),
        (lambda c: c["state_dict"].update({"network.more": torch.ones(1)}), "network.more is"),
        (split_groups, "groups of .* each at its own rate, where there are now"),
    ],
)
def test_a_checkpoint_that_cannot_go_on_is_refused_in_a_sentence(
    finished: Path, tmp_path: Path, alter: Callable, words: str
) -> None:
    run = altered(finished, tmp_path / "run", alter)
    with pytest.raises(ValueError, match=words):
        fit(["--resume", str(run), "--trainer.max_epochs", "2"])


def test_other_validation_photos_cannot_choose_among_old_scores(
    finished: Path, sample: Path, tmp_path: Path
) -> None:
    content = json.loads((sample / "val.json").read_text())
    content["annotations"].pop()
    (tmp_path / "fewer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"data\.val is another file than the one whose scores"):
        resume(finished, tmp_path / "run", "--data.val", tmp_path / "fewer.json")
    same = shutil.copy(sample / "val.json", tmp_path / "same.json")
    resume(finished, tmp_path / "same", "--data.val", same)
