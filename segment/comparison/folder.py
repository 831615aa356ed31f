"""The report's folder: made aside, then put in place of an earlier report, and of nothing else."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segment.files import write_json

MANIFEST = "report.json"


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A new folder to write a report to, which takes the place of `out` when all went well.

    Raises:
        ValueError: `out` holds something that no report wrote.
    """
    check_ours(out)
    out = out.resolve()
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        files = sorted(p.relative_to(aside).as_posix() for p in aside.rglob("*") if p.is_file())
        write_json(aside / MANIFEST, {"written by": "segment.report", "files": files})
        check_ours(out)  # somebody may have put a file there meanwhile
        if out.exists():
            out.rename(old)
        aside.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_ours(out: Path) -> None:
    """Refuse a folder that holds more than an earlier report.

    Raises:
        ValueError: Names a file that a report did not write.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out}: is a file; give --out a folder.")
    there = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()}
    listed: set[str] = set()
    if MANIFEST in there:
        try:
            listed = {MANIFEST, *map(str, json.loads((out / MANIFEST).read_text())["files"])}
        except (ValueError, KeyError, TypeError):
            listed = set()
    if foreign := sorted(there - listed):
        raise ValueError(
            f"{out}: holds {foreign[0]}, which no earlier report wrote; give --out another "
            f"folder, or move it away."
        )
