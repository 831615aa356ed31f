"""`python -m segment.sweep`: W&B's sweep files, with W&B's agent as the judge of what they mean."""

import csv
import itertools
import json
import math
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread, main_thread
from typing import Any

import optuna
import pytest
import yaml
from wandb import wandb_agent

from segment import runs, sweep
from segment.cli import SegmentCLI
from segment.evaluate import _arguments as evaluate_arguments
from segment.fit import _arguments as fit_arguments
from segment.sweeps.file import SweepFile, read_sweep
from segment.tracking.scores import check_name, scalars

FOLDER = Path(__file__).parents[1] / "experiments" / "sweeps"
FILES = sorted(FOLDER.glob("*.yaml"))
ARGUMENTS = {"segment.fit": fit_arguments, "segment.evaluate": evaluate_arguments}


def by_the_agent(file: SweepFile, arguments: dict[str, Any], monkeypatch: Any) -> list[str]:
    """The command that W&B's agent would start, caught as it starts it."""
    started: list[list[str]] = []
    monkeypatch.setattr(wandb_agent, "AgentProcess", lambda command, **_: _Started(command))

    class _Started:
        def __init__(self, command: list[str]) -> None:
            started.append(command)

    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DIR"):
        monkeypatch.setenv(name, "")  # the agent sets them, and is not to leave them behind
    content = yaml.safe_load(file.path.read_text())
    agent = wandb_agent.Agent(api=None, queue=None)
    agent._sweep_command = content["command"]
    given = {name: {"value": value} for name, value in arguments.items()}
    agent._command_run({"run_id": "x", "program": content["program"], "args": given})
    return started[0]


def points(file: SweepFile) -> list[tuple[Any, ...]]:
    """Every combination of a grid; of a search, the ends of its ranges and all its choices."""
    if file.method == "grid":
        return file.grid()
    ends = [one.choices or (one.low, one.high) for one in file.parameters]
    return list(itertools.islice(zip(*map(itertools.cycle, ends), strict=False), 4))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_values_of_a_sweep_arrive_as_w_and_b_s_agent_hands_them_out(
    path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUN", str(tiny_run))
    file = read_sweep(path)
    monkeypatch.chdir(tmp_path)  # the agent writes there
    parsed = []
    for values in points(file):
        arguments = file.arguments(values)
        words = by_the_agent(file, arguments, monkeypatch)
        assert file.words(arguments) == words
        assert words[:4] == ["/usr/bin/env", "python", "-m", file.program]
        parsed.append((words[4:], arguments))
    monkeypatch.chdir(FOLDER.parents[1])  # where the experiment that it names lies
    monkeypatch.setattr(SegmentCLI, "instantiate_classes", lambda self: None)
    for words, arguments in parsed:
        cli = SegmentCLI(words, file.program.split(".")[1], ARGUMENTS[file.program])
        assert {name: cli.config[name] for name in arguments} == arguments
    check_name(file.metric, "")


def test_the_sweeps_are_found() -> None:
    assert {path.stem for path in FILES} == {"learning_rate", "backbone", "crf"}


def test_every_number_that_a_run_logs_may_be_a_metric(tiny_run: Path) -> None:
    names = scalars(json.loads((tiny_run / "evaluation.json").read_text()))
    assert len(names) > 50
    for name in names:
        check_name(name, "")
    with pytest.raises(ValueError, match=r"val/raw/mIoU, which no run logs; .* val/raw/miou\?"):
        check_name("val/raw/mIoU", "metric.name")


COMMAND = ["${env}", "${interpreter}", "-m", "${program}", "--config", "x.yaml", "${args}"]
GOOD: dict[str, Any] = {
    "program": "segment.fit",
    "method": "random",
    "metric": {"name": "val/raw/miou", "goal": "maximize"},
    "parameters": {"lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1}},
    "command": COMMAND,
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes, sort_keys=False))
    return path


def test_nested_settings_come_as_one_mapping_as_from_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested = {"crf": {"parameters": {"iterations": {"values": [5]}, "clip": {"value": None}}}}
    command = [*COMMAND[:4], "${args_no_hyphens}", "${args_no_boolean_flags}"]
    path = written(tmp_path, parameters={**nested, "flag": {"value": False}}, command=command)
    file = read_sweep(path)
    arguments = file.arguments((5, None, False))
    assert arguments == {"crf": {"iterations": 5, "clip": None}, "flag": False}
    monkeypatch.chdir(tmp_path)
    assert file.words(arguments) == by_the_agent(file, arguments, monkeypatch)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"methods": "grid"}, "there is no key 'methods'; did you mean method?"),
        ({"metric": {"name": "val/raw/miou", "aim": "x"}}, "metric: there is no key 'aim'"),
        ({"metric": {"goal": "maximize"}}, "metric has no name"),
        ({"metric": {"name": "val/raw/miou", "goal": "up"}}, "metric.goal is 'up'"),
        ({"metric": {"name": "val_loss"}}, "metric.name is val_loss, which no run logs"),
        ({"method": "genetic"}, "method is 'genetic'; write one of grid, random, bayes"),
        ({"program": "train.py"}, "program is 'train.py'; write one of segment.fit"),
        ({"parameters": {}}, "parameters is empty"),
        ({"parameters": {"lr": {"valeus": [1]}}}, "lr: there is no key 'valeus'; did you mean"),
        ({"parameters": {"lr": 1}}, "parameters.lr is 1; write"),
        ({"parameters": {"lr": {"min": 1}}}, "parameters.lr.max is None; write a number"),
        ({"parameters": {"lr": {"min": "1e-4", "max": 1}}}, r"YAML takes 1e-4 for text"),
        ({"parameters": {"lr": {"min": 2, "max": 1}}}, "lr: min is 2 and max 1"),
        (
            {"parameters": {"lr": {"distribution": "beta", "min": 1, "max": 2}}},
            "distribution is 'beta', which only W&B's server draws from",
        ),
        (
            {"parameters": {"lr": {"distribution": "log_uniform_values", "min": 0, "max": 1}}},
            "lr.min is 0; a logarithm needs",
        ),
        ({"method": "grid"}, "parameters.lr has a range, but a grid needs `values`"),
        ({"command": []}, "command is missing"),
        ({"command": COMMAND[:-1]}, r"command has no ${args}"),
        ({"command": [*COMMAND, "${argz}"]}, "command has ${argz}, which stands for nothing here"),
        ({"command": [*COMMAND, "${envvar:NOT_SET}"]}, "needs the variable NOT_SET"),
        ({"run_cap": 0}, "run_cap is 0"),
        ({}, "a random search has no end of its own; give --trials"),
    ],
)
def test_refuses_a_file_in_a_sentence(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as error:
        sweep.main([str(written(tmp_path, **changes)), "--out", str(tmp_path / "out")])
    assert "\n" not in str(error.value)


Score = Callable[[float], float | None]


@pytest.fixture
def trials(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Runs a sweep whose trials are over at once, scored by a function; the rates they drew."""
    evaluation = json.loads((tiny_run / "evaluation.json").read_text())

    def run(score: Score, *words: object) -> list[float]:
        drawn: list[float] = []

        def start(self: sweep.Sweep, command: Sequence[str], output: Path) -> int:
            rate = float(next(word for word in command if word.startswith("--lr=")).split("=")[1])
            drawn.append(rate)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text("error: lr: too bold.\n")
            value = score(rate)
            if value is None:
                return 2
            folder = Path(command[-1]) / "x" / "time"
            folder.mkdir(parents=True)
            scored = {**evaluation, "raw": {**evaluation["raw"], "miou": value}}
            (folder / "evaluation.json").write_text(json.dumps(scored))
            return 0

        monkeypatch.setattr(sweep.Sweep, "_start", start)
        try:
            sweep.main([str(word) for word in words])
        finally:  # the folder stays this process's
            while runs._HELD:
                runs._HELD.pop().close()
        return drawn

    return run


def hill(rate: float) -> float:
    """Best at 0.02."""
    return 1.0 - abs(math.log10(rate / 0.02)) / 4


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_stopped_sweep_goes_on_as_if_it_had_not_been(
    method: str, trials: Callable[..., list[float]], tmp_path: Path, capsys: Any
) -> None:
    path = written(tmp_path, method=method, run_cap=14)
    whole = trials(hill, path, "--out", tmp_path / "whole")
    assert len(whole) == len(set(whole)) == 14
    assert all(0.001 <= rate <= 0.1 for rate in whole)
    printed = capsys.readouterr().out
    assert f"--lr={max(whole, key=hill)}" in printed

    def stop_at_twelfth(rate: float) -> float:
        if rate == whole[11]:
            raise KeyboardInterrupt
        return hill(rate)

    with pytest.raises(SystemExit) as stopped:
        trials(stop_at_twelfth, path, "--out", tmp_path / "out")
    assert stopped.value.code == 130
    assert "11 trials are kept" in capsys.readouterr().out
    assert trials(hill, path, "--out", tmp_path / "out") == whole[11:]
    assert capsys.readouterr().out.split("Best:")[1] == printed.split("Best:")[1].replace(
        "whole", "out"
    )
    # More of them, and another sweep in its place.
    more = trials(hill, path, "--out", tmp_path / "out", "--trials", 15)
    assert len(more) == 1
    with pytest.raises(ValueError, match="holds a sweep with another method"):
        trials(hill, written(tmp_path, method="grid", parameters={"lr": {"values": [0.5]}}),
               "--out", tmp_path / "out")  # fmt: skip


def test_bayes_looks_where_it_was_good(trials: Callable[..., list[float]], tmp_path: Path) -> None:
    rates = trials(hill, written(tmp_path, method="bayes", run_cap=30), "--out", tmp_path / "out")
    early, late = rates[:10], rates[20:]
    assert sum(map(hill, late)) > sum(map(hill, early))


def test_a_grid_is_tried_whole_and_what_a_kill_cut_off_again(
    trials: Callable[..., list[float]], tmp_path: Path
) -> None:
    values = [0.1, 0.02, 0.003]
    path = written(tmp_path, method="grid", parameters={"lr": {"values": values}})
    assert trials(hill, path, "--out", tmp_path / "out", "--trials", 1) == values[:1]
    # A second is under way when the machine goes down.
    study = sweep.Study(read_sweep(path), tmp_path / "out", seed=0)
    assert study.next() is not None
    assert trials(hill, path, "--out", tmp_path / "out") == [values[2], values[1]]
    assert trials(hill, path, "--out", tmp_path / "out") == []


def test_a_trial_that_fails_is_told_and_the_others_go_on(
    trials: Callable[..., list[float]], tmp_path: Path, capsys: Any
) -> None:
    values = [0.1, 0.02, 0.003]
    path = written(tmp_path, method="grid", parameters={"lr": {"values": values}})
    tried = trials(lambda rate: None if rate == 0.1 else hill(rate), path, "--out", tmp_path / "o")
    assert tried == values
    printed = capsys.readouterr().out
    assert "trial 0 (lr 0.1) failed: error: lr: too bold. See" in printed
    assert "failed: 1, told in" in printed
    with (tmp_path / "o" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["fail", "complete", "complete"]
    assert [row["lr"] for row in rows] == ["0.1", "0.02", "0.003"]
    assert rows[0]["error"] == "error: lr: too bold."
    assert float(rows[1]["val/raw/miou"]) == 1.0


def test_a_sweep_whose_first_trials_all_fail_stops(
    trials: Callable[..., list[float]], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"first 3 trials have failed; mend that.*too bold"):
        trials(lambda rate: None, written(tmp_path, run_cap=9), "--out", tmp_path / "out")


def test_the_lower_the_better_where_the_file_says_so(
    trials: Callable[..., list[float]], tmp_path: Path, capsys: Any
) -> None:
    parameters = {"lr": {"values": [0.1, 0.02]}}
    metric = {"name": "val/raw/miou"}  # W&B minimizes unless told
    path = written(tmp_path, method="grid", parameters=parameters, metric=metric,
                   early_terminate={"type": "hyperband"})  # fmt: skip
    trials(hill, path, "--out", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "--lr=0.1" in printed.split("Best:")[1]
    assert "early_terminate is W&B's server's; here every trial runs to its end" in printed


PATIENT = """
import signal, sys, time
from pathlib import Path
def leave(*_):
    Path(sys.argv[1]).write_text("left")
    sys.exit(1)
signal.signal(signal.SIGINT, leave)
print("ready", flush=True)
time.sleep(60)
"""


def test_stopping_a_sweep_stops_its_trial_which_may_clean_up(tmp_path: Path) -> None:
    one = sweep.Sweep.__new__(sweep.Sweep)
    output = tmp_path / "out.txt"

    def interrupt() -> None:
        while not output.exists() or "ready" not in output.read_text():
            time.sleep(0.05)
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs lack it
    Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            one._start([sys.executable, "-c", PATIENT, str(tmp_path / "left")], output)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "left").read_text() == "left"


def test_a_network_is_scored_with_other_crfs_and_not_trained_again(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("RUN", str(tiny_run))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = (tiny_run / "evaluation.json").read_bytes()
    path = str(FOLDER / "crf.yaml")
    sweep.main([path, "--out", str(tmp_path / "out"), "--trials", "1"])
    printed = capsys.readouterr().out
    (found,) = (tmp_path / "out").rglob("evaluation.json")
    evaluation = json.loads(found.read_text())
    crf = evaluation["crf"]["parameters"]
    assert 10 < crf["bilateral_width_px"] < 200
    assert f"{evaluation['refined']['miou']:.4f}" in printed
    assert f"Best:\npython -m segment.evaluate --run {tiny_run} " in printed
    assert f"--crf.bilateral_width_px={crf['bilateral_width_px']}" in printed
    assert (tiny_run / "evaluation.json").read_bytes() == before


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert optuna  # else this test is about nothing
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"optuna is not installed; pip install 'segment\[tune\]'"):
        sweep.main([str(written(tmp_path, run_cap=1)), "--out", str(tmp_path / "out")])
