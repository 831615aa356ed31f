"""Small files read and written with care: YAML of settings, JSON, never half a file."""

import json
import os
from pathlib import Path
from typing import Any

import yaml


class UniqueKeys(yaml.SafeLoader):
    """Plain YAML that refuses a key written twice, of which PyYAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """One mapping."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} stands twice in one mapping", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of settings.

    Raises:
        ValueError: It cannot be read, or holds something else.
    """
    try:
        content = yaml.load(path.read_text(), Loader=UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 1}" if place is not None else ""
        problem = getattr(error, "problem", None) or "not text"
        raise ValueError(f"{path}: not readable as YAML{where} ({problem}); mend it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no settings; write `key: value` lines.")
    return content


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target, flush to disk, rename: readers see the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """`content` as readable JSON, atomically; NaN is refused, since JSON has none."""
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
