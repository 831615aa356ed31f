"""Reads an offline `.wandb` file back: LevelDB's log format around protobuf records."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK = 7, 32 * 1024
FULL, FIRST, LAST = 1, 2, 4


def records(path: Path) -> Iterator[Record]:
    """The file's records, joined where they span blocks."""
    data = path.read_bytes()
    place, joined = HEADER, b""
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:  # too short for a header: padding
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        chunk = data[place + 7 : place + 7 + length]
        place += 7 + length
        joined = chunk if kind in (FULL, FIRST) else joined + chunk
        if kind in (FULL, LAST) and joined:
            record = Record()
            record.ParseFromString(joined)
            yield record


def read(run: Path, kind: str = "offline-run") -> dict[str, Any]:
    """What a run folder's W&B run logged: `history` rows, `summary`, `config`, `media` files,
    `hidden` metrics and `artifacts`; the files of a resumed run one after the other."""
    history: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    hidden: set[str] = set()
    artifacts: dict[str, Any] = {}
    for path in sorted(run.glob(f"wandb/{kind}-*/*.wandb")):
        for record in records(path):
            for item in [*record.run.config.update, *record.config.update]:
                value = json.loads(item.value_json)
                for key in reversed([*item.nested_key] or [item.key]):
                    value = {key: value}
                merge(config, value)
            for item in record.summary.update:
                summary["/".join([*item.nested_key]) or item.key] = json.loads(item.value_json)
            if record.HasField("metric") and record.metric.options.hidden:
                hidden.add(record.metric.glob_name or record.metric.name)
            if record.HasField("artifact"):
                artifacts[record.artifact.client_id] = record.artifact
            if record.HasField("history"):
                history.append(
                    {
                        "/".join([*item.nested_key]) or item.key: json.loads(item.value_json)
                        for item in record.history.item
                    }
                )
    media = [path for path in run.glob(f"wandb/{kind}-*/files/media/**/*") if path.is_file()]
    return {
        "history": history,
        "summary": summary,
        "config": config,
        "media": media,
        "hidden": hidden,
        "artifacts": artifacts,
    }


def merge(config: dict[str, Any], update: dict[str, Any]) -> None:
    """Set what an update names and leave the rest, as W&B does."""
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            merge(config[key], value)
        else:
            config[key] = value


def table(run: Path, key: str) -> dict[str, Any]:
    """The last table logged as `key`: `columns` and `data`, pictures as W&B's server gets them."""
    for artifact in reversed(read(run)["artifacts"].values()):
        for entry in artifact.manifest.contents:
            if entry.path == f"{key}.table.json":
                return json.loads(Path(entry.local_path).read_text())
    raise AssertionError(f"no table {key}")
