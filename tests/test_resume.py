"""A run that is stopped, killed or resumed: it ends as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Verb


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
