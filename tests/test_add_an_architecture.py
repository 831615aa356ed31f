"""docs/add_an_architecture.md, followed as it is written, ends with a network that works."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "add_an_architecture.md"
FILE = r'^```(?P<kind>python|yaml|diff) title="(?P<path>[^"]+)"\n(?P<text>.*?)^```$'
COMMANDS = r"^```bash\n(?P<text>.*?)^```$"


def edited(text: str, diff: str) -> str:
    """The text with a diff's new lines, each run of them behind the one line shown before it."""
    lines = text.splitlines()
    place = None
    for line in diff.splitlines():
        if line.startswith("+"):
            assert place is not None, f"nothing shows where {line} goes"
            place += 1
            lines.insert(place, line[1:])
        elif line != " ...":
            assert line.startswith(" "), f"neither new nor context: {line}"
            assert lines.count(line[1:]) == 1, f"stands {lines.count(line[1:])} times:{line}"
            place = lines.index(line[1:])
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with every file and every change of the page."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("segment", "tests", "benchmarks", "experiments", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, root)
    blocks = list(re.finditer(FILE, PAGE.read_text(), re.DOTALL | re.MULTILINE))
    assert len(blocks) == 10
    for block in blocks:
        path = root / block["path"]
        if block["kind"] == "diff":
            path.write_text(edited(path.read_text(), block["text"]))
        else:
            assert not path.exists(), "the page's network has come to stay: choose another"
            path.write_text(block["text"])
    return root


@pytest.fixture(scope="module")
def commands() -> list[list[str]]:
    """The page's command lines, as words."""
    blocks = re.finditer(COMMANDS, PAGE.read_text(), re.DOTALL | re.MULTILINE)
    text = "".join(block["text"] for block in blocks).replace("\\\n", " ")
    lines = text.splitlines()
    return [shlex.split(line) for line in lines]


def follow(root: Path, words: list[str]) -> str:
    """What a command says that runs in the copy, whose files come before those installed."""
    words = [sys.executable, "-m", *words[2 if words[0] == "python" else 0 :]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        words, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_page_s_commands_train_score_and_test_the_network(
    checkout: Path, commands: list[list[str]]
) -> None:
    assert [" ".join(words[:3]) for words in commands] == [
        "python -m segment.fit",
        "python -m segment.evaluate",
        "python -m pytest",
        "ruff check segment",
        "ruff format --check",
    ]
    fit, evaluate, pytests, *lint = commands
    told = follow(checkout, fit)
    assert "LRASPP: " in told  # the network that was trained
    (run,) = (checkout / "runs" / "lraspp").iterdir()
    assert f"Writing to {run.relative_to(checkout)}" in told
    trained = json.loads((run / "evaluation.json").read_text())
    assert trained["refined"] is not None

    follow(checkout, [str(run) if word == "RUN" else word for word in evaluate])
    (again,) = (run / "evaluations").iterdir()
    scored = json.loads((again / "evaluation.json").read_text())
    assert scored["raw"]["confusion"] == trained["raw"]["confusion"]

    # Each list, and each test over such a list, takes part: none is forgotten by a wrong -k.
    told = follow(checkout, [*pytests, "-p", "no:cacheprovider", "-v"])
    for name in (
        "test_lraspp.py::test_the_head_scores_as_torchvisions_does PASSED",
        "test_a_form_scores_every_pixel_of_any_photo[LRASPP-size0] PASSED",
        "test_onnxruntime_gives_the_same_logits[LRASPP] PASSED",
        "test_a_module_trains_as_its_paper_says[LRASPPModule] PASSED",
        "test_an_experiment_takes_a_step[lraspp] PASSED",
        "test_every_network_that_trains_has_a_row_that_builds PASSED",
    ):
        assert name in told
    assert told.count("::test_every_network_is_here PASSED") == 2
    for words in lint:
        follow(checkout, words)
