"""Mistakes of a user, told in one or two lines: what is wrong, where, what is allowed."""

import argparse
import difflib
import errno
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import SIGTERMException

import segment.modules
from segment.files import read_yaml

INNER = "\u2063"  # marks what a nested parser has explained already; never printed
_HERE = str(Path(__file__).parent)
# Where Lightning looks at settings: whatever goes wrong there, and what these raise themselves.
_LIGHTNING_CHECKS = {
    "connectors/accelerator_connector.py": "trainer",  # accelerator, strategy, devices, precision
    "lightning/fabric/utilities/seed.py": "seed_everything",
}
_LIGHTNING_LOOPS = ("lightning/pytorch/trainer/trainer.py", "lightning/pytorch/loops/fit_loop.py")


def explain(message: str, parser: jsonargparse.ArgumentParser | None = None) -> str:
    """The user's mistake in a sentence or two.

    jsonargparse parses `model.init_args` or `crf` with a parser of their own, which knows the
    settings there but not where it stands; the outer report wraps what the inner one said.

    Args:
        message: What the parser said.
        parser: The parser, which knows the settings that exist.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", message)
    where = ".".join(dict.fromkeys(re.findall(r'Parser key "([\w.]+)"', text)))
    if where == "model" and _names_no_module(text):
        return no_module("missing")
    if INNER in text:
        inner = text.rsplit(INNER, 1)[1].splitlines()[0]
        inside = "init_args." if where == "model" else ""
        return f"{where}.{inside}{inner}"
    for pattern, answer in _ANSWERS if text.count("Expected a") < 3 else ():
        found = re.search(pattern, text)
        if found:
            return answer(found, where, parser)
    lines = [line.strip(" -") for line in text.splitlines() if line.strip()]
    causes = [line for line in lines[1:] if not re.match(_NOISE, line)]
    path = re.search(r"path but (\S+) either not accessible", text)
    remedy = "write its settings, or the path of a YAML file"
    if where == "crf":
        remedy = "write its settings, the path of a YAML file, or null"
    if where and path:
        return f"{where} is {path[1]}; {remedy}."
    kinds = re.findall(r"- Expected an? ([^\n]+)", text)
    value = re.search(r"Given value: ([^\n]*)", text)
    if value and "Not a valid subclass" in text and "type: <class 'dict'>" not in text:
        return f"{where} is {value[1]}; {remedy}."
    if where == "model":
        return _model(text)
    if where and kinds and value:  # a union: every branch says what it would take
        return f"{where} is {value[1]}; it must be of type {' or '.join(map(_plain, kinds))}."
    return " ".join([lines[0], *causes[:1]]) if where else (causes or lines)[0]


_NOISE = r"Does not validate|Subtypes|Errors|Given value|Expected a <class 'None"


def _plain(kind: str) -> str:
    """A type as a user would write it."""
    kind = re.sub(r"typing\.Literal\[([^\]]+)\](\. Got value.*)?", r"\1", kind)
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind).replace("NoneType", "null").strip()


Answer = Callable[[re.Match[str], str, jsonargparse.ArgumentParser | None], str]


def _unknown(found: re.Match[str], where: str, parser: jsonargparse.ArgumentParser | None) -> str:
    key = found["key"].lstrip("-").split("=")[0]
    key = f"{found['group']}.{key}" if "group" in found.re.groupindex else key
    group, _, leaf = key.rpartition(".")
    prefix = f"{group}." if group else ""
    names = [] if parser is None else [action.dest for action in parser._actions]
    allowed = sorted(
        {
            name.removeprefix(prefix).split(".")[0]
            for name in names
            if name.startswith(prefix) and name not in ("help", "print_config", "config")
        }
    )
    near = difflib.get_close_matches(leaf, allowed, 1)
    hint = f" did you mean {near[0]}?" if near else ""
    listed = f" Allowed: {', '.join(allowed)}." if allowed else " See --help."
    return f"{key}: no such setting;{hint}{listed}"


def _choice(found: re.Match[str], where: str, _: object) -> str:
    return f"{where} is {found['value'].strip()}; choose one of {found['choices']}."


def _type(found: re.Match[str], where: str, _: object) -> str:
    return f"{where} is {found['value'].strip()}; it must be of type {_plain(found['kind'])}."


def _class(found: re.Match[str], where: str, _: object) -> str:
    if where == "model":
        return no_module(f"{found['name']}, which is not to be had")
    return f"{where}.class_path is {found['name']}, which is not to be had; see its spelling."


def no_module(what: str) -> str:
    """That `model.class_path` is `what`, and what it can be."""
    names = [name for name in segment.modules.__all__ if name != "SegmentationModule"]
    return f"model.class_path is {what}; take a class of segment.modules: {', '.join(names)}."


def _names_no_module(text: str) -> bool:
    """Whether the settings of a module were taken for those of the class that all share."""
    return "class_path 'segment.modules.SegmentationModule'" in text and (
        _class_path(text) in (None, "segment.modules.SegmentationModule")
    )


def _class_path(text: str) -> str | None:
    """What was given as `class_path`, however jsonargparse prints it."""
    found = re.search(r"class_path(?:': |', val=|=)(\[.*?\]|[^,)}\n]*)", text)
    return None if found is None else found[1].strip("'").replace("None", "null")


def _model(text: str) -> str:
    if "object has no attribute 'keys'" in text:
        return "model.init_args holds no settings; write those of the module below it."
    return no_module(f"{_class_path(text) or 'empty'}, which is no module")


def _import(found: re.Match[str], where: str, _: object) -> str:
    return (
        f"{where}.class_path is {found['name']}; for safety, an experiment may only name classes "
        f"of segment, lightning, torch and torchmetrics."
    )


def _required(found: re.Match[str], where: str, _: object) -> str:
    return f"{found['keys'].strip()} is missing; the experiment must give it."


_ANSWERS: list[tuple[str, Answer]] = [
    (r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[^']+)'", _unknown),
    (r"Option '(?P<key>[^']+)' is not accepted", _unknown),
    (r"unrecognized arguments: (?P<key>\S+)", _unknown),
    (r"Expected a typing\.Literal\[(?P<choices>[^\]]+)\]\. Got value: (?P<value>[^\n]+)", _choice),
    (r"Importing '(?P<name>[\w.]+)' is not allowed", _import),
    (r"Problem with given class_path '(?P<name>[\w.]+)':\s+module .* has no attribute", _class),
    (r"Expected a dot import path string: (?P<name>[^\n]+)", _class),
    (r"arguments are required: (?P<keys>[^\n]+)", _required),
    (r"Expected an? (?P<kind>(?!<class 'NoneType)[^\n]+?)\. Got value: (?P<value>[^\n]+)", _type),
]


def check_files(args: Sequence[str], known: set[str]) -> None:
    """Say which file is missing or names a setting that is not `known`.

    The parser would say the one at length, and of the other nothing if it holds nothing.
    """
    for path in _named_files(args):
        if not path.is_file():
            there = {other.stem: str(other) for other in sorted(path.parent.glob("*.yaml"))}
            near = difflib.get_close_matches(path.stem, there) or [*there][:3]
            more = " and others" if len(near) < len(there) else ""
            hint = f"; there are {', '.join(there[stem] for stem in near)}{more}" if near else ""
            stop(f"{path}: no such configuration file{hint}.")
        try:
            content = read_yaml(path)
        except ValueError as error:
            stop(str(error))
        for key, value in content.items():
            nested = value is None or isinstance(value, dict) or Path(str(value)).is_file()
            if key in ("data", "trainer") and not nested:
                stop(f"{path}: {key} is {value!r}; write its settings, one a line, below it.")
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                remedy = f"write {near[0]}" if near else "remove it"
                stop(f"{path}: there is no setting {key}; {remedy}.")


def _named_files(args: Sequence[str]) -> list[Path]:
    named = [args[place + 1] for place, word in enumerate(args[:-1]) if word in ("-c", "--config")]
    named += [word.split("=", 1)[1] for word in args if re.match(r"(-c|--config)=", word)]
    return [Path(path) for path in named]


def refuse_model(args: Sequence[str], verb: str) -> None:
    """Say that a run's model stays what it is, by words or by a file after the run's own."""
    remedies = {
        "run": "a checkpoint says itself what its model is; replace single arguments, such as "
        "test_flip, with --init_args, or leave this out",
        "fit": "a resumed run goes on with its model, optimizer and rates; leave this out, or "
        "start a new run from its weights with --model.init_args.weights",
    }
    given = [word for word in args if re.match(r"--model([.=]|$)", word)]
    given += [f"{path}: model" for path in _named_files(args)[1:] if "model" in read_yaml(path)]
    if given:
        stop(f"{given[0]}: {remedies['fit' if verb == 'fit' else 'run']}.")


class _Help(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
    """Keeps the lines of a description: commands, and lists of what is written."""


class SegmentParser(LightningArgumentParser):
    """Answers a mistake in a few lines, without the dump of types and the usage of all options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": _Help, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and where, and exit with 2; a nested parser tells the outer one."""
        if self.exit_on_error:
            stop(explain(message, self))
        super().error(message if INNER in message else INNER + explain(message, self), ex)


def stop(message: str) -> NoReturn:
    """Tell the user and exit with 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def user_errors(function: Callable[[], None]) -> None:
    """Run a verb; a ValueError of ours is the user's to mend, so it comes without a traceback."""
    try:
        function()
    except MisconfigurationException as error:  # what Lightning says of trainer settings
        stop(f"trainer: {str(error).splitlines()[0]}")
    except SIGTERMException:  # Lightning's would exit with 0, as if the run were complete
        sys.exit(128 + signal.SIGTERM)
    except BrokenProcessPool:
        stop(
            "a worker process died, likely out of memory; use --score_workers 0 (evaluate) or "
            "--workers 0 (predict), or lower crf.max_side."
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            stop(f"{error.strerror}: free some space; `--resume RUN` goes on with a training.")
        if error.filename is None:
            raise
        stop(f"{error.filename}: {error.strerror}.")
    except (TypeError, ValueError, ImportError) as error:
        message = _message_for_users(error)
        if message is None:
            raise
        stop(message)


def _message_for_users(error: Exception) -> str | None:
    """The sentence of an error that this package raised, also in a worker process."""
    text = str(error)
    if "Original Traceback" in text:  # how DataLoader hands on what a worker raised
        return text.rsplit("ValueError: ", 1)[-1].strip() if _raised_here(text) else None
    if type(error.__cause__).__name__ == "_RemoteTraceback":  # how a process pool does
        return text if _raised_here(str(error.__cause__)) else None
    if text.startswith("Does not validate"):  # a dataclass refused its values
        return explain(text)
    frames = traceback.extract_tb(error.__traceback__)
    for file, setting in _LIGHTNING_CHECKS.items():
        if any(frame.filename.endswith(file) for frame in frames):
            return f"{setting}: {text.strip().splitlines()[0]}"
    if frames and frames[-1].filename.endswith(_LIGHTNING_LOOPS):
        return f"trainer: {text.strip().splitlines()[0]}"
    ours = frames and frames[-1].filename.startswith(_HERE)
    return text if ours and not isinstance(error, TypeError) else None


def _raised_here(printed: str) -> bool:
    """Whether the last frame of a printed traceback lies in this package."""
    frames = [line for line in printed.splitlines() if line.strip().startswith("File ")]
    return bool(frames) and _HERE in frames[-1]
