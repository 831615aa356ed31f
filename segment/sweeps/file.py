"""A sweep file in W&B's own format: read, checked, and its command written out for one trial.

What W&B's server would take and this cannot is refused by name, never passed over: a file that
runs here runs there, and means the same.
"""

import difflib
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segment.files import read_yaml

PROGRAMS = ("segment.fit", "segment.evaluate")
METHODS = ("grid", "random", "bayes")
KEYS = (
    "program", "command", "method", "metric", "parameters", "name", "description", "project",
    "entity", "run_cap", "early_terminate",
)  # fmt: skip
PARAMETER_KEYS = ("value", "values", "min", "max", "q", "distribution", "parameters")
RANGES = ("int_uniform", "uniform", "q_uniform", "log_uniform", "log_uniform_values")
_ENVIRONMENT = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """What a trial draws for one setting.

    Args:
        path: Its name; a nested one has several parts.
        choices: The values it may have; None where it has a range.
        low: Least value of the range.
        high: Greatest.
        log: Whether the logarithm is drawn evenly, not the value.
        step: Distance between values; None for any number between.
        whole: Whether values are integers.
    """

    path: tuple[str, ...]
    choices: tuple[Any, ...] | None = None
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def name(self) -> str:
        """Its name in one piece."""
        return ".".join(self.path)


@dataclass(frozen=True)
class SweepFile:
    """A sweep, checked.

    Args:
        path: The file.
        program: `segment.fit` or `segment.evaluate`.
        command: Its words, with W&B's placeholders.
        method: `grid`, `random` or `bayes`.
        metric: Name of a number that a run logs, such as `val/raw/miou`.
        maximize: Whether more of it is better.
        parameters: What is searched.
        run_cap: How many trials, or None.
        stops_early: Whether W&B's server would end runs that do badly.
    """

    path: Path
    program: str
    command: tuple[str, ...]
    method: str
    metric: str
    maximize: bool
    parameters: tuple[Parameter, ...]
    run_cap: int | None
    stops_early: bool

    def grid(self) -> list[tuple[Any, ...]]:
        """Every combination of the parameters' choices, in the file's order."""
        return list(itertools.product(*(p.choices or () for p in self.parameters)))

    def arguments(self, values: Iterable[Any]) -> Arguments:
        """A trial's values as W&B hands them out: by name, nested ones as mappings."""
        found: Arguments = {}
        for parameter, value in zip(self.parameters, values, strict=True):
            inside = found
            for part in parameter.path[:-1]:
                inside = inside.setdefault(part, {})
            inside[parameter.path[-1]] = value
        return found

    def words(self, arguments: Arguments, interpreter: str = "python") -> list[str]:
        """The command line of a trial, written out as W&B's agent does.

        Raises:
            ValueError: It needs a variable of the environment that is not set.
        """
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        places = {
            "${env}": ["/usr/bin/env"],
            "${interpreter}": [interpreter],
            "${program}": [self.program],
            "${args}": flags,
            "${args_no_hyphens}": [flag[2:] for flag in flags],
            "${args_no_boolean_flags}": [
                f"--{name}" if value is True else f"--{name}={value}"
                for name, value in arguments.items()
                if value is not False
            ],
        }
        return [
            word
            for chunk in self.command
            for word in places.get(chunk, [_ENVIRONMENT.sub(self._variable, chunk)])
        ]

    def _variable(self, found: re.Match[str]) -> str:
        value = os.environ.get(found[1])
        if not value:
            raise ValueError(
                f"{self.path}: its command needs the variable {found[1]}; write {found[1]}=... "
                f"in front of the command line."
            )
        return value


def read_sweep(path: Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        ValueError: It is not to be read, or holds what cannot be run here.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such sweep file; there are those of experiments/sweeps.")
    content = read_yaml(path)
    _only(content, KEYS, str(path))
    program, method = content.get("program"), content.get("method")
    if program not in PROGRAMS:
        raise ValueError(f"{path}: program is {program!r}; write one of {', '.join(PROGRAMS)}.")
    if method not in METHODS:
        raise ValueError(f"{path}: method is {method!r}; write one of {', '.join(METHODS)}.")
    metric = content.get("metric")
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise ValueError(f"{path}: metric has no name; write `metric: {{name: val/raw/miou}}`.")
    _only(metric, ("name", "goal"), f"{path}: metric")
    goal = metric.get("goal", "minimize")  # W&B's default
    if goal not in ("maximize", "minimize"):
        raise ValueError(f"{path}: metric.goal is {goal!r}; write maximize or minimize.")
    parameters = content.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise ValueError(f"{path}: parameters is empty; name at least one setting and its values.")
    found = tuple(_parameters(parameters, (), path))
    ranged = next((one.name for one in found if one.choices is None), None)
    if method == "grid" and ranged is not None:
        raise ValueError(f"{path}: parameters.{ranged} has a range, but a grid needs `values`.")
    cap = content.get("run_cap")
    if cap is not None and not (isinstance(cap, int) and cap > 0):
        raise ValueError(f"{path}: run_cap is {cap!r}; write a whole number above 0.")
    return SweepFile(
        path,
        program,
        _command(content.get("command"), path),
        method,
        metric["name"],
        goal == "maximize",
        found,
        cap,
        "early_terminate" in content,
    )


def _only(content: Mapping[Any, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in content:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, 1)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(allowed)}."
            raise ValueError(f"{where}: there is no key {key!r}; {hint}")


def _command(command: Any, path: Path) -> tuple[str, ...]:
    known = ("env", "interpreter", "program", "args", "args_no_hyphens", "args_no_boolean_flags")
    if not isinstance(command, list) or not command:
        raise ValueError(
            f"{path}: command is missing; write ${{env}}, ${{interpreter}}, -m, ${{program}}, "
            f"--config, an experiment and ${{args}}, one a line."
        )
    words = tuple(str(word) for word in command)
    for word in words:
        for name in re.findall(r"\$\{([^}]*)\}", word):
            if name not in known and not name.startswith("envvar:"):
                raise ValueError(
                    f"{path}: command has ${{{name}}}, which stands for nothing here; known are "
                    f"{', '.join(known)} and envvar:NAME."
                )
    if not any(word.startswith("${args") for word in words):
        raise ValueError(f"{path}: command has no ${{args}}, so every trial would be the same.")
    return words


def _parameters(content: Mapping[Any, Any], under: tuple[str, ...], path: Path) -> list[Parameter]:
    found = []
    for name, spec in content.items():
        inside = (*under, str(name))
        where = f"{path}: parameters.{'.'.join(inside)}"
        if not isinstance(spec, dict):
            raise ValueError(f"{where} is {spec!r}; write `{{values: [...]}}` or `{{value: ...}}`.")
        _only(spec, PARAMETER_KEYS, where)
        if "parameters" in spec:
            found += _parameters(spec["parameters"], inside, path)
        else:
            found.append(_parameter(spec, inside, where))
    return found


def _parameter(spec: Mapping[str, Any], path: tuple[str, ...], where: str) -> Parameter:
    kind = spec.get("distribution")
    if "value" in spec and kind in (None, "constant"):
        return Parameter(path, (spec["value"],))
    if "values" in spec and kind in (None, "categorical"):
        if not isinstance(spec["values"], list) or not spec["values"]:
            raise ValueError(f"{where}.values is {spec['values']!r}; write a list.")
        return Parameter(path, tuple(spec["values"]))
    low, high = spec.get("min"), spec.get("max")
    for key, bound in (("min", low), ("max", high)):
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            hint = " (YAML takes 1e-4 for text; write 0.0001)" if isinstance(bound, str) else ""
            raise ValueError(f"{where}.{key} is {bound!r}; write a number{hint}, or give `values`.")
    assert low is not None
    assert high is not None
    whole = isinstance(low, int) and isinstance(high, int)
    if kind is None:  # W&B's own rule
        kind = "int_uniform" if whole else "uniform"
    if kind not in RANGES:
        raise ValueError(
            f"{where}.distribution is {kind!r}, which only W&B's server draws from; take one of "
            f"{', '.join(RANGES)}, or `values`."
        )
    if not low < high:
        raise ValueError(f"{where}: min is {low} and max {high}; the first must be the lower one.")
    if kind == "log_uniform":  # here W&B's bounds are exponents of e
        low, high = math.exp(low), math.exp(high)
    if kind == "log_uniform_values" and low <= 0:
        raise ValueError(f"{where}.min is {low}; a logarithm needs a number above 0.")
    if kind == "int_uniform":
        return Parameter(path, low=low, high=high, step=1, whole=True)
    if kind == "q_uniform":
        step = spec.get("q", 1)
        return Parameter(path, low=low, high=high, step=step, whole=whole and step == int(step))
    return Parameter(path, low=low, high=high, log=kind.startswith("log_"))


def as_text(value: Any) -> str:
    """A choice as Optuna keeps it, whatever it is: lists and mappings too."""
    return json.dumps(value)
