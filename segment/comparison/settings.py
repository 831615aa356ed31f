"""What made a run's scores: its settings, and names for runs by the settings that differ."""

import copy
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from segment.comparison.runs import Run, short_path
from segment.crf import DenseCRF

# What does not make another experiment: where a run lies, and what it shows while it trains.
_ASIDE = ("default_root_dir", "logger", "enable_progress_bar", "log_every_n_steps", "num_nodes")
_NAMED = 3  # settings that stand in a name
_LONGEST = 40  # characters of a setting's value in a name


def settings(run: Run) -> dict[str, str]:
    """Everything that made the scores but the seed, as JSON by dotted name.

    Where the photos lay is left out: the scores tell whether they were the same.
    """
    config: dict[str, Any] = copy.deepcopy(run.config)
    trainer = config.get("trainer")
    for key in _ASIDE:
        if isinstance(trainer, dict):
            trainer.pop(key, None)
    for key in ("seed", "workers", "root"):
        config["data"].pop(key, None)
    made = {key: config.get(key) for key in ("model", "data", "trainer")}
    evaluation = run.evaluation
    made["checkpoint"] = Path(evaluation["checkpoint"]).stem
    made["init_args"] = evaluation.get("init_args")
    # Runs of before a setting was there had what is its default now.
    usual = {field.name: field.default for field in fields(DenseCRF)}
    crf = (evaluation["crf"] or {}).get("parameters")
    made["refined"] = crf is not None
    made["crf"] = {} if crf is None else usual | crf
    flat: dict[str, str] = {}
    _flatten("", made, flat)
    return flat


def _flatten(name: str, value: Any, into: dict[str, str]) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            _flatten(f"{name}.{key}" if name else str(key), each, into)
    else:
        into[name] = json.dumps(value, sort_keys=True, default=str)


def differing(each: Sequence[dict[str, str]]) -> list[str]:
    """Names of the settings in which some runs' differ, the model's first."""
    names = list(dict.fromkeys(name for one in each for name in one))
    found = []
    for name in names:
        # What a CRF was set to is no difference from a run without one: that is `refined`.
        having = [one for one in each if name in one or not name.startswith("crf.")]
        if len({one.get(name) for one in having}) > 1:
            found.append(name)
    return found


def value_of(made: dict[str, str], name: str) -> str:
    """A setting as people write it; a path by its last parts, `none` where there is none."""
    text = made.get(name)
    value = None if text is None else json.loads(text)
    if value is None:
        return "none"
    if isinstance(value, str):
        words = short_path(value) if "/" in value or "\\" in value else value
        words = words.rpartition(".")[2] if name.endswith("class_path") else words
    elif isinstance(value, bool):
        words = str(value).lower()
    else:
        words = json.dumps(value)
    half = _LONGEST // 2
    return (
        words if len(words) <= _LONGEST else f"{words[:half]}\N{HORIZONTAL ELLIPSIS}{words[-half:]}"
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Settings' names by their last word, or by as many as keep them apart."""
    found = {}
    for name in names:
        words = name.split(".")
        size = 2 if words[0] == "crf" and len(words) > 1 else 1
        while size < len(words) and any(
            other != name and other.split(".")[-size:] == words[-size:] for other in names
        ):
            size += 1
        found[name] = ".".join(words[-size:])
    return found


def titles(runs: Sequence[Run]) -> list[str]:
    """Each run's experiment, and, where runs of one differ in settings, what those are in it.

    The seed is no such setting: runs that differ in nothing else have the same title.
    """
    each = [settings(run) for run in runs]
    by_experiment: dict[str, list[dict[str, str]]] = {}
    for run, made in zip(runs, each, strict=True):
        by_experiment.setdefault(run.evaluation["experiment"], []).append(made)
    named = {name: _distinguishing(some) for name, some in by_experiment.items()}
    found = []
    for run, made in zip(runs, each, strict=True):
        experiment = run.evaluation["experiment"]
        chosen, more = named[experiment]
        words = [f"{word}={value_of(made, name)}" for name, word in chosen.items()]
        found.append(" ".join([experiment, *words, *([f"and {more} more"] if more else [])]))
    return found


def _distinguishing(each: Sequence[dict[str, str]]) -> tuple[dict[str, str], int]:
    """The settings to name, as they are called, and how many more differ."""
    names = differing(each)
    short = short_names(names)
    if len(names) <= _NAMED:
        return short, 0
    # The few that tell most runs apart.
    values = {name: [value_of(made, name) for made in each] for name in names}

    def told(chosen: Sequence[str]) -> int:
        return len(set(zip(*(values[name] for name in chosen), strict=True)))

    chosen: list[str] = []
    while len(chosen) < _NAMED:
        more = [[*chosen, name] for name in names]
        best = max(more, key=told)
        if told(best) == max(1, told(chosen)):
            break
        chosen = best
    return {name: short[name] for name in chosen}, len(names) - len(chosen)


def with_names(runs: list[Run]) -> list[Run]:
    """Runs by their experiment and, where that is not enough, by settings, seed, or folder."""

    def longer(names: list[str], more: list[str]) -> list[str]:
        times = Counter(names)
        pairs = zip(names, more, strict=True)
        return [f"{name} {word}" if times[name] > 1 else name for name, word in pairs]

    names = longer(titles(runs), [f"seed {run.seed}" for run in runs])
    names = longer(names, [run.folder.resolve().name for run in runs])
    names = longer(names, [f"({number})" for number in range(1, len(runs) + 1)])
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def kept_apart(runs: Sequence[Run]) -> list[str]:
    """For experiments whose runs have several seeds and other settings too: which settings."""
    by_experiment: dict[str, list[Run]] = {}
    for run in runs:
        by_experiment.setdefault(run.evaluation["experiment"], []).append(run)
    said = []
    for experiment, some in by_experiment.items():
        each = [settings(run) for run in some]
        groups = Counter(json.dumps(made, sort_keys=True) for made in each)
        alone = 1 in groups.values()
        if len(groups) < 2 or not alone or len({run.seed for run in some}) < 2:
            continue
        names = differing(each)
        short = short_names(names)
        parts = []
        for name in names[:_NAMED]:
            values = list(dict.fromkeys(value_of(made, name) for made in each))
            shown = ", ".join(values[:_NAMED]) + (", ..." if len(values) > _NAMED else "")
            parts.append(f"{short[name]} ({shown})")
        more = f" and {len(names) - _NAMED} more settings" if len(names) > _NAMED else ""
        said.append(
            f"Runs of {experiment} differ not in the seed alone, so they are not one experiment "
            f"of {len(some)} seeds: {', '.join(parts)}{more}."
        )
    return said
