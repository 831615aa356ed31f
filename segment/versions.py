"""Which code made a result: the commit, and the versions of what it stands on."""

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "timm", "numpy", "pydensecrf2")


def versions() -> dict[str, str | None]:
    """Python's and every package's; None for a package that is not installed."""
    return {"python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}}


def git_state() -> dict[str, Any] | None:
    """Commit and whether the working tree differs from it; None outside a repository."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    if shutil.which("git") is None:
        return None
    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (subprocess.SubprocessError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # the module came from elsewhere
        return None
