"""Turns jsonargparse's reports into one or two lines: what is wrong, where, what is allowed."""

import difflib
import re
from typing import Any

import jsonargparse


def explain(message: str, parser: jsonargparse.ArgumentParser) -> str:
    """The user's mistake in a few lines.

    Args:
        message: What the parser said.
        parser: The parser, which knows the keys that exist.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", message)
    for pattern, answer in _ANSWERS:
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return answer(found, text, parser)
    lines = [line.strip(" -") for line in text.splitlines() if line.strip()]
    # jsonargparse's reports go from the outside in: what matters is first and last.
    return " ".join(lines[:1] + lines[-1:] if len(lines) > 3 else lines)


def _unknown(found: re.Match[str], text: str, parser: jsonargparse.ArgumentParser) -> str:
    key = found["key"].strip("'\" -")
    where = _where(text)
    names = _names(parser, where)
    leaf = key.rsplit(".", 1)[-1]
    allowed = sorted({name.rsplit(".", 1)[-1] for name in names})
    near = difflib.get_close_matches(leaf, allowed, 1)
    full = key if not where or key.startswith(where) else f"{where}.{key}"
    hint = f"did you mean {near[0]}?" if near else ""
    listed = f" Allowed there: {', '.join(allowed)}." if 0 < len(allowed) <= 40 else ""
    return f"{full}: no such setting; {hint or 'see --help.'}{listed}"


def _choice(found: re.Match[str], text: str, parser: jsonargparse.ArgumentParser) -> str:
    where = _where(text)
    return f"{where or 'a setting'} is {found['value'].strip()}; choose one of {found['choices']}."


def _expected(found: re.Match[str], text: str, parser: jsonargparse.ArgumentParser) -> str:
    where = _where(text)
    kind = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", found["kind"]).strip()
    return f"{where or 'a setting'} is {found['value'].strip()}; it must be of type {kind}."


def _required(found: re.Match[str], text: str, parser: jsonargparse.ArgumentParser) -> str:
    keys = found["keys"].replace('"', "").replace("'", "").strip()
    where = _where(text)
    full = keys if not where or keys.startswith(where) else f"{where}.{keys}"
    return f"{full} is missing; the experiment must give it."


def _where(text: str) -> str:
    """The innermost key that a report names, in full."""
    parts: list[str] = []
    for key in re.findall(r'(?:Parser key|key|Problem with key) "([\w.]+)"', text):
        if not parts or not key.startswith(parts[-1]):
            parts.append(key)
        else:
            parts[-1] = key
    seen: list[str] = []
    for part in parts:
        if part not in seen:
            seen.append(part)
    if len(seen) > 1 and seen[0] == "model":
        return ".".join([seen[0], "init_args", *seen[1:]])
    return ".".join(seen)


def _names(parser: jsonargparse.ArgumentParser, where: str) -> list[str]:
    """Keys of the parser below `where`; for crf, the fields of the class."""
    import dataclasses

    from segment.crf import DenseCRF

    if where.split(".")[0] == "crf":
        return [field.name for field in dataclasses.fields(DenseCRF)]
    dests = [action.dest for action in parser._actions]
    prefix = where + "." if where else ""
    below = [dest for dest in dests if dest.startswith(prefix)] or dests
    return [dest for dest in below if dest not in ("help", "==SUPPRESS==")]


_ANSWERS: list[tuple[str, Any]] = [
    (r"Option '(?P<key>[^']+)' is not accepted", _unknown),
    (r"(?:Key|key|Nested key) [\"'](?P<key>[\w.]+)[\"'] is not expected", _unknown),
    (r"[Uu]nrecognized arguments: (?P<key>\S+)", _unknown),
    (r"Unsupported key[s]?: (?P<key>[\w.]+)", _unknown),
    (
        r"Expected a typing\.Literal\[(?P<choices>[^\]]+)\]\. Got value: (?P<value>[^\n]+)",
        _choice,
    ),
    (r"Key (?P<keys>[\w.\"']+) is required", _required),
    (r"(?:required|missing)[^\n]*?: (?P<keys>[\w., \"']+)", _required),
    (r"Expected (?:a|an) (?P<kind>[^\n]+?)\. Got value: (?P<value>[^\n]+)", _expected),
]
