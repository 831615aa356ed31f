import itertools
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tqdm.std

from segment.data import check, stats
from segment.prepare import main


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("prepare") / "sample"
    numbers = ["--train", "3", "--val", "2", "--size", "64"]
    assert main(["sample", "--out", str(root), *numbers]) == 0
    return root


def test_sample_as_a_program_then_again(tmp_path) -> None:
    command = [sys.executable, "-m", "segment.prepare", "sample", "--out", tmp_path / "a/set"]
    command += ["--train", "1", "--val", "1", "--size", "64"]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 photos to train on, 1 to validate on, 64x64, seed 0." in first.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "already holds this sample set" in again.stdout
    wrong = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("python -m segment.prepare sample: ")
    assert "holds another sample set" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_check_finds_nothing_wrong_with_the_sample(root, tmp_path, capsys) -> None:
    files = [str(root / "train.json"), str(root / "val.json")]
    out = tmp_path / "defects.json"
    command = ["check", "--annotations", *files, "--root", str(root), "--json", str(out)]
    assert main([*command, "--taxonomy", "trash10"]) == 0
    assert "0 fatal defects, 2 to look at." in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["annotations"] == files
    # So few photos do not show all ten classes.
    assert [defect["kind"] for defect in found["defects"]] == ["no-pixel", "no-pixel"]


def test_check_says_1_for_data_that_cannot_be_used(root, tmp_path, capsys) -> None:
    command = ["check", "--annotations", str(root / "train.json"), "--root", str(tmp_path)]
    assert main([*command, "--headers-only"]) == 1
    assert "photo: 3 (fatal)" in capsys.readouterr().out


def test_stats_writes_three_files(root, tmp_path, capsys) -> None:
    command = ["stats", "--annotations", str(root / "val.json"), "--root", str(root)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["classes.csv", "cooccurrence.csv", "stats.png"]
    assert "class_weights: [" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats", "--annotations", "no.json", "--root", ".", "--out", "x"], "no.json: cannot be"),
        (["check", "--annotations", "no.json", "--root", ".", "--taxonomy", "no"], "trash10"),
        (["sample", "--out", "/proc/here"], "/proc"),
        (["sample", "--size", "3"], "size must be 64 to 2048"),
    ],
)
def test_errors_are_one_line_without_a_traceback(arguments, message, capsys) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("verb", ["sample", "check", "stats"])
def test_help_has_an_example(verb, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"python -m segment.prepare {verb}" in capsys.readouterr().out


# Programs that a shell started in the background begin without Ctrl-C.
SAMPLE = """
import signal, sys
from segment.prepare import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(["sample", "--out", sys.argv[1], "--train", "5000", "--size", "64"]))
"""


def test_ctrl_c_is_told_in_a_line_and_leaves_no_part_of_a_set(tmp_path) -> None:
    command = [sys.executable, "-c", SAMPLE, tmp_path / "set"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    for _ in range(300):
        if list(tmp_path.glob(".set.partial-*/train/000002.jpg")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == "stopped: `python -m segment.prepare sample` did not finish; run it again\n"
    assert error == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "module", "bar"), [("check", check, "painting"), ("stats", stats, "counting")]
)
def test_ctrl_c_amid_a_bar_is_told_below_it(
    root, tmp_path, monkeypatch, capsys, verb, module, bar
) -> None:
    count = len(json.loads((root / "train.json").read_text())["annotations"])
    real, calls = module.run_lengths, itertools.count(1)

    def interrupted(*args: object) -> object:
        if next(calls) == count:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "run_lengths", interrupted)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", sys.stdout)  # as on a terminal, where both are one
    clock = itertools.count()
    monkeypatch.setattr(tqdm.std, "time", lambda: next(clock))  # each look is a second later
    command = [verb, "--annotations", str(root / "train.json"), "--root", str(root)]
    with pytest.raises(SystemExit) as stop:
        main([*command, *(["--out", str(tmp_path)] if verb == "stats" else [])])
    assert stop.value.code == 130
    out = capsys.readouterr().out
    assert re.search(rf"checking annotations: 100%.* {count}/{count} ", out)
    last, told = out.splitlines()[-2:]
    assert f"{bar}: " in last
    assert told == f"stopped: `python -m segment.prepare {verb}` did not finish; run it again"
