"""Command lines that README, docs/ and the verbs' docstrings show are taken by the real parsers."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest

from segment import prepare
from segment.cli import SegmentCLI
from segment.files import write_atomically

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VERBS = {"fit", "evaluate", "predict", "tune_crf", "refine", "report", "export", "prepare"} | {
    "dashboard",
    "demo",
    "sweep",
}
# In a fence or an indented block the command is the whole line, in a sentence what is in backticks.
COMMAND = r"(?:(?<=`)|^ *)(?:torchrun .*?|srun .*?)?(?:python )?-m segment\.(\w+)([^`\n]*)"


def shown() -> list[tuple[str, str, str]]:
    """Where a command line stands, its verb, and what follows it."""
    texts = {page.name: page.read_text() for page in PAGES}
    for verb in VERBS:
        texts[f"segment.{verb}"] = importlib.import_module(f"segment.{verb}").__doc__ or ""
    return [
        (where, found[1], found[2].strip())
        for where, text in texts.items()
        for found in re.finditer(COMMAND, text, re.MULTILINE)
    ]


COMMANDS = sorted(set(shown()))


@pytest.fixture
def placeholders(tmp_path: Path) -> dict[str, str]:
    """What stands for the names that a page leaves to its reader, where files are opened."""
    run = tmp_path / "run"
    (run / "crf" / "val").mkdir(parents=True)
    shutil.copy(ROOT / "experiments" / "smoke.yaml", run / "config.yaml")
    write_atomically(run / "crf" / "val" / "crf.yaml", b"{iterations: 3}\n")
    return {
        "X.yaml": str(run / "config.yaml"),
        "experiments/lraspp.yaml": str(run / "config.yaml"),  # which its page makes
        r"RUN\b": str(run),
        r"runs/deeplab_crf/2026-\S+": str(run),
        r"S\b": "0",  # a seed
    }


def test_the_command_lines_are_found() -> None:
    assert {verb for _, verb, _ in COMMANDS} == VERBS
    assert len(COMMANDS) > 50
    assert ("README.md", "tune_crf", "--run RUN") in COMMANDS


def parse(verb: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command line as its verb does, and do nothing."""
    module = importlib.import_module(f"segment.{verb}")
    if verb in ("fit", "evaluate", "tune_crf"):
        for step in ("before_instantiate_classes", "instantiate_classes"):
            monkeypatch.setattr(SegmentCLI, step, lambda self: None)
        own = module.add_arguments if verb == "tune_crf" else module._arguments
        SegmentCLI(words, verb, own)
    elif verb == "prepare":
        for name in ("_sample", "_check", "_stats"):
            monkeypatch.setattr(prepare, name, lambda args: 0)
        assert prepare.main(words) == 0
    else:
        module._arguments().parse_args(words)


@pytest.mark.parametrize(("where", "verb", "line"), COMMANDS)
def test_a_command_line_is_understood(
    where: str,
    verb: str,
    line: str,
    placeholders: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    for name, path in placeholders.items():
        line = re.sub(rf"(?<!\S){name}", path, line)
    try:
        parse(verb, shlex.split(line, comments=True), monkeypatch)
    except SystemExit as stopped:
        raise AssertionError(f"{where}: {capsys.readouterr().err}") from stopped


def test_an_option_that_does_not_exist_is_noticed(
    placeholders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = placeholders[r"RUN\b"]
    for verb, words in (
        ("fit", ["--config", placeholders["X.yaml"], "--trainer.epochs", "3"]),
        ("predict", ["photo.jpg", "--run", run, "--out", "out", "--heatmaps", "true"]),
        ("report", [run, "--out", "out", "--groups", "x"]),
        ("prepare", ["check", "--annotations", "a.json", "--roots", "."]),
    ):
        with pytest.raises(SystemExit):
            parse(verb, words, monkeypatch)
