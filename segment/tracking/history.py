"""What W&B's own files in a run folder know: the last step that is safely logged.

A `.wandb` file is a log in LevelDB's format: after a header of 7 bytes come blocks of 32 KiB, in
them pieces of records, each with 4 bytes of checksum, 2 of length and 1 of kind. W&B writes it in
the background, so a killed process's last rows may be missing, and the file may end anywhere.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at import

_FILE_HEADER, _BLOCK, _HEADER = 7, 32 * 1024, 7
_FULL, _FIRST, _LAST = 1, 2, 4


def last_step(run: Path, run_id: str) -> int:
    """The highest step of a W&B run's history that a run folder holds; -1 where it holds none."""
    last = -1
    for path in run.glob(f"wandb/*run-*/run-{run_id}.wandb"):
        for record in _records(path):
            for item in record.history.item:
                if "/".join(item.nested_key) == "_step" or item.key == "_step":
                    last = max(last, int(item.value_json))
    return last


def _records(path: Path) -> Iterator[Record]:
    """The file's whole records."""
    data = path.read_bytes()
    place, joined = _FILE_HEADER, b""
    while place + _HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:  # too little for a piece: zeros
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        piece = data[place + _HEADER : place + _HEADER + length]
        if len(piece) < length:
            return
        place += _HEADER + length
        joined = piece if kind in (_FULL, _FIRST) else joined + piece
        if kind in (_FULL, _LAST) and joined:
            try:
                yield Record.FromString(joined)
            except DecodeError:
                return
