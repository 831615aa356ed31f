import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segment.files import write_json
from segment.runs import AtomicCheckpointIO, checkpoint_of, config_of, new_run


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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="denied"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "x.ckpt")


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


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not the folder of a run: it has no config\.yaml"):
        config_of(tmp_path)
