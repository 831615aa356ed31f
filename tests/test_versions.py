import subprocess
from pathlib import Path

import pytest
from conftest import fit_tiny

import segment.versions
from segment.versions import git_state


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_git_is_the_state_of_the_code_wherever_the_user_stands(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, elsewhere = tmp_path / "code", tmp_path / "elsewhere"
    for folder in (code, elsewhere):
        folder.mkdir()
        git(folder, "init", "--quiet")
        (folder / "versions.py").write_text(f"{folder.name}\n")
        git(folder, "add", "versions.py")
        git(folder, "commit", "--quiet", "--message", folder.name)
    monkeypatch.setattr(segment.versions, "__file__", str(code / "versions.py"))
    monkeypatch.chdir(elsewhere)
    commit = git(code, "rev-parse", "HEAD")
    _, evaluation = fit_tiny(sample, tmp_path, "--trainer.max_epochs", "1")
    assert evaluation["git"] == {"commit": commit, "changed": False}
    (code / "runs").touch()  # what a run leaves changes no code
    assert git_state() == {"commit": commit, "changed": False}
    (code / "versions.py").write_text("edited\n")
    assert git_state() == {"commit": commit, "changed": True}


def test_git_is_none_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(segment.versions, "__file__", str(tmp_path / "versions.py"))
    assert git_state() is None
