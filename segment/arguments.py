"""Words of the command line that several verbs share."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse


def add_run(parser: jsonargparse.ArgumentParser) -> None:
    """The run that a verb works on, and which of its checkpoints."""
    parser.add_argument("--run", type=str, required=True, help="Folder of a run.")
    parser.add_argument(
        "--checkpoint", type=str, default="best", help="best, last, interrupted, or a path."
    )


def add_switch(parser: jsonargparse.ArgumentParser, name: str, text: str) -> None:
    """What is off unless named: `--name`, `--name true`, and with hyphens for underscores."""
    words = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
    parser.add_argument(*words, type=bool, default=False, nargs="?", const=True, help=text)


def add_init_args(parser: jsonargparse.ArgumentParser) -> None:
    """What replaces arguments of the checkpoint's module: see `load_checkpoint`."""
    parser.add_argument(
        "--init_args",
        type=dict[str, Any] | None,
        help="Arguments of the model to replace, such as '{output_stride: 8, test_flip: true}'.",
    )


def named_run(args: Sequence[str]) -> Path | None:
    """The run that a command line names, before it is parsed: its settings are the defaults."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("--run")
    known.add_argument("--resume")
    found, _ = known.parse_known_args(args)
    run = found.run or found.resume
    return None if run is None else Path(run)
