"""W&B never asks, never stops a run, and keeps what it could not send."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from wandb_offline import read
from wandb_server import serving

from segment.tracking import why_offline

KEY = "a" * 40

TRACK = """
import sys
from pathlib import Path
import wandb
from segment.tracking import Tracker
run = Path(sys.argv[1])
tracker = Tracker()
tracker.follow(run, "tiny", "model: 3")
tracker.experiment.log({"train/loss": 0.5})
wandb.finish()
"""


@pytest.mark.parametrize(
    ("environment", "login", "reason"),
    [
        ({}, None, "no API key"),
        ({"WANDB_API_KEY": KEY}, None, None),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, None, "WANDB_MODE is offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "dryrun"}, None, "WANDB_MODE is dryrun"),
        ({"WANDB_MODE": "online"}, None, "no API key"),  # told to, but it would have to ask
        ({"WANDB_MODE": "disabled"}, None, None),  # W&B itself then does nothing
        ({}, "api.wandb.ai", None),
        ({}, "example.org", "no API key"),
        ({"WANDB_BASE_URL": "https://wandb.example.org"}, "api.wandb.ai", "no API key"),
        ({"WANDB_BASE_URL": "https://wandb.example.org"}, "wandb.example.org", None),
    ],
)
def test_is_online_only_where_nothing_need_be_asked(
    environment: dict[str, str],
    login: str | None,
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    netrc = tmp_path / "netrc"
    if login is not None:
        netrc.write_text(f"machine {login} login user password {KEY}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert why_offline() == reason


def test_without_a_key_nothing_is_asked(tmp_path: Path) -> None:
    left_out = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [sys.executable, "-c", TRACK, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
        env={**environment, "NETRC": str(tmp_path / "none"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert f"W&B runs offline in {tmp_path}/wandb (no API key); `wandb login` and" in said
    assert [row["train/loss"] for row in read(tmp_path)["history"]] == [0.5]


def test_goes_on_offline_where_the_server_does_not_answer(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    done = subprocess.run(
        [sys.executable, "-c", TRACK, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120,
        env={
            **environment,
            "WANDB_API_KEY": KEY,
            "WANDB_BASE_URL": "http://127.0.0.1:9",  # nobody listens there
            "WANDB_INIT_TIMEOUT": "3",
            "OMP_NUM_THREADS": "1",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "this run goes on offline" in done.stdout + done.stderr
    logged = read(tmp_path)
    assert [row["train/loss"] for row in logged["history"]] == [0.5]
    assert logged["config"]["model"] == 3


LOSE = """
import sys
from pathlib import Path
from segment.tracking import Tracker
run = Path(sys.argv[1])
tracker = Tracker()
tracker.follow(run, "tiny", "model: 3")
for step in range(40):
    tracker.log_metrics({"train/loss": step / 100, "epoch": 0}, step)
    if step == 20:
        print("half", flush=True)
        sys.stdin.readline()
tracker.finalize("success")
tracker.finish()
print("done", flush=True)
"""


def _until(line: str, output: IO[str]) -> str:
    """What a process says up to a line, or to its end."""
    said = ""
    for one in output:
        said += one
        if one == line:
            break
    return said


def test_a_server_lost_in_the_middle_costs_neither_the_run_nor_its_log(tmp_path: Path) -> None:
    left_out = ("WANDB_MODE", "WANDB_SERVICE")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    with serving() as server:
        process = subprocess.Popen(
            [sys.executable, "-c", LOSE, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={
                **environment,
                "WANDB_API_KEY": KEY,
                "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_address[1]}",
                "WANDB_FINISH_TIMEOUT": "2",
                "OMP_NUM_THREADS": "1",
            },
        )  # fmt: skip
        assert process.stdout is not None
        before = _until("half\n", process.stdout)
        assert "UpsertBucket" in server.asked  # it was online
        server.lost = True
        after, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0, before + after
    assert "done" in after
    assert "Tried to log to step" not in before + after
    (folder,) = tmp_path.glob("wandb/run-*")  # what it lacks gets there by this
    assert f"server does not answer; what it lacks is kept, and `wandb sync {folder}`" in after
    logged = read(tmp_path, "run")["history"]
    assert [row["train/loss"] for row in logged] == [step / 100 for step in range(40)]
    assert [row["_step"] for row in logged] == list(range(40))
