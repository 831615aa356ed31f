import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from segment.files import write_json
from segment.runs import (
    _HELD,
    AtomicCheckpointIO,
    RunCheckpoint,
    checkpoint_of,
    config_of,
    hold,
    new_run,
)


def test_a_moved_run_still_knows_its_best_score(tmp_path: Path) -> None:
    here, there = (
        RunCheckpoint(tmp_path / name, "best", monitor="val/miou", mode="max")
        for name in ("here", "there")
    )
    path = str(tmp_path / "here" / "best.ckpt")
    here.best_model_path = here.kth_best_model_path = path
    here.best_model_score, here.best_k_models = torch.tensor(0.9), {path: torch.tensor(0.9)}
    there.load_state_dict(here.state_dict())
    assert there.best_model_score == 0.9
    assert there.best_model_path == str(tmp_path / "there" / "best.ckpt")
    assert list(there.best_k_models) == [str(tmp_path / "there" / "best.ckpt")]
    there.current_score = torch.tensor(0.5)
    assert not there.check_monitor_top_k(SimpleNamespace(strategy=OneProcess()), torch.tensor(0.5))


class OneProcess:
    def reduce_boolean_decision(self, decision: bool) -> bool:
        return decision


def test_a_worker_does_not_hold_the_run_of_its_parent(tmp_path: Path) -> None:
    hold(tmp_path)
    child = os.fork()
    if child == 0:
        os._exit(int(any(not file.closed for file in _HELD if str(tmp_path) in file.name)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_one_process_at_a_time_writes_to_a_run(tmp_path: Path) -> None:
    hold(tmp_path)
    with pytest.raises(ValueError, match="another process is writing there"):
        hold(tmp_path)


FULL_DISK = """
import resource, sys
import torch
from segment.runs import AtomicCheckpointIO
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(100_000)}, sys.argv[1])
except ValueError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(1)}, path)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=False
    )
    assert f"{path}: cannot be written" in done.stdout, done.stderr
    assert f"--resume {tmp_path / 'run'}" in done.stdout
    assert torch.load(path, weights_only=True)["a"].item() == 1
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_runs_started_in_one_second_do_not_share_a_folder(tmp_path: Path) -> None:
    runs = [new_run("unet", tmp_path) for _ in range(5)]
    assert len(set(runs)) == 5
    assert all(run.parent == tmp_path / "unet" and run.is_dir() for run in runs)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, target)
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            f"""
import os, signal, torch
from segment.runs import AtomicCheckpointIO
whole = torch.save
def half(content, file):
    file.write(b"half a checkpoint"); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
AtomicCheckpointIO().save_checkpoint({{"step": 2}}, {str(target)!r})
""",
        ],
        check=False,
    )
    assert killed.returncode == -9
    assert torch.load(target, weights_only=True) == {"step": 1}


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # not a folder without rights: root may write everywhere
    target = tmp_path / "file" / "x.ckpt"
    with pytest.raises(ValueError, match=r"x.ckpt: cannot be written .*; make room or allow"):
        AtomicCheckpointIO().save_checkpoint({}, target)


def test_a_failed_write_leaves_no_rubbish(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    with pytest.raises(Exception, match=r"pickle|Can't|local"):
        AtomicCheckpointIO().save_checkpoint({"f": lambda: 0}, tmp_path / "x.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_says_which_checkpoints_a_run_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not written one yet"):
        checkpoint_of(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ValueError, match="no checkpoint 'best'; choose one of last"):
        checkpoint_of(tmp_path)
    assert checkpoint_of(tmp_path, "last").name == "last.ckpt"


def test_another_class_s_checkpoint_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(
        "{data: {}, model: {class_path: segment.modules.FCNModule, init_args: {}}}"
    )
    for name in ("FCNModule", "SegNetModule"):
        content = {"state_dict": {}, "segment": {"class_name": name}}
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / f"{name}.ckpt")
    same = tmp_path / "FCNModule.ckpt"
    assert checkpoint_of(run, str(same)) == same
    with pytest.raises(
        ValueError,
        match=r"SegNetModule\.ckpt: is a checkpoint of SegNetModule, but .*run trains FCN",
    ):
        checkpoint_of(run, str(tmp_path / "SegNetModule.ckpt"))


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not the folder of a run: it has no config\.yaml"):
        config_of(tmp_path)
