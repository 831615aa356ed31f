"""Run a W&B sweep file without W&B's server: trial after trial on this machine, by Optuna.

python -m segment.sweep experiments/sweeps/learning_rate.yaml
python -m segment.sweep experiments/sweeps/backbone.yaml --trials 2 --out runs/sweeps/two
RUN=runs/deeplab_crf/2026-01-31_12-00-00 python -m segment.sweep experiments/sweeps/crf.yaml

Stop it when you like: the same command goes on, and tries again what it cut off.

Writes to runs/sweeps/<name of the file>, or --out:
    trials.csv       every trial: its score, what it drew, its folder
    trials/0003/     the run (or evaluation) of a trial; trials/0003.txt is what it printed
    sweep.json       what is swept: another sweep does not go on here
    journal.log      Optuna's own
"""

import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import jsonargparse
from tqdm import tqdm

from segment.cli_errors import SegmentParser, user_errors
from segment.files import write_atomically, write_json
from segment.interrupt import stopped
from segment.runs import hold
from segment.sweeps.file import SweepFile, read_sweep
from segment.sweeps.study import Study
from segment.tracking.scores import check_name, scalars

if TYPE_CHECKING:
    import optuna

FAILURES = 3  # as many at the very start, and none that worked: something is wrong with all


class Sweep:
    """A sweep in its folder.

    Args:
        file: What is swept.
        out: Its folder; made, or taken up.
        seed: Of what is drawn.

    Raises:
        ValueError: The folder is another sweep's, or the file's metric is one that no run has.
    """

    def __init__(self, file: SweepFile, out: Path, seed: int) -> None:
        self.file, self.out = file, out
        check_name(file.metric, f"{file.path}: metric.name")
        hold(out)
        told = {
            "command": file.words({}),
            "method": file.method,
            "metric": [file.metric, file.maximize],
            "parameters": [repr(one) for one in file.parameters],
            "seed": seed,
        }
        known = out / "sweep.json"
        if known.is_file():
            before = json.loads(known.read_text())
            other = [key for key, value in told.items() if before.get(key) != value]
            if other:
                raise ValueError(
                    f"{out}: holds a sweep with another {' and '.join(other)}; give --out "
                    f"another folder, or delete this one."
                )
        else:
            write_json(known, told)
        self.study = Study(file, out, seed)

    def run(self, trials: int | None) -> None:
        """Run trials until there are so many, or until a grid has no more."""
        wanted = len(self.file.grid()) if self.file.method == "grid" else None
        if trials is not None:
            wanted = trials if wanted is None else min(trials, wanted)
        if wanted is None:
            raise ValueError(
                f"{self.file.path}: a {self.file.method} search has no end of its own; give "
                f"--trials, or run_cap in the file."
            )
        done = len(self.study.settled())
        with tqdm(desc="trials", total=wanted, initial=done, unit="trial", disable=None) as bar:
            while len(self.study.settled()) < wanted:
                trial = self.study.next()
                if trial is None:
                    break
                bar.set_postfix_str(self._drawn(self.study.values(trial)))
                tqdm.write(self._try(trial))
                self._write_table()
                bar.update()
                settled = self.study.settled()
                if len(settled) == FAILURES and not self.study.complete():
                    raise ValueError(
                        f"{self.out}: the first {FAILURES} trials have failed; mend that, delete "
                        f"the folder and start again. The last: {settled[-1].user_attrs['error']}"
                    )

    def _try(self, trial: "optuna.Trial") -> str:
        """Run a trial; what became of it in a line."""
        values, number = self.study.values(trial), trial.number
        folder = self.out / "trials" / f"{number:04}"
        output = folder.with_suffix(".txt")
        start = time.monotonic()
        try:
            code = self._start(self.words(values, folder), output)
        except BaseException:
            self.study.interrupted(number)
            raise
        told = f"trial {number} ({self._drawn(values)})"
        found = sorted(folder.rglob("evaluation.json")) if code == 0 else []
        evaluation: dict[str, Any] = json.loads(found[0].read_text()) if found else {}
        value = scalars(evaluation).get(self.file.metric) if evaluation else None
        if value is None:
            why = f"it has no {self.file.metric}" if found else _last_line(output, code)
            self.study.failed(number, why)
            return f"{told} failed: {why} See {output}"
        self.study.scored(number, value, found[0].parent)
        return f"{told}: {self.file.metric} {value:.4f} in {time.monotonic() - start:.0f} s"

    def words(self, values: Sequence[Any], folder: Path) -> list[str]:
        """The command line of a trial that writes to a folder."""
        option = {"segment.fit": "--trainer.default_root_dir", "segment.evaluate": "--out"}
        words = self.file.words(self.file.arguments(values), sys.executable)
        return [*words, option[self.file.program], str(folder)]

    def _start(self, words: list[str], output: Path) -> int:
        """Run a command to its end; stopped, it is stopped first."""
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("wb") as file:
            # A session of its own: Ctrl-C comes to us, and to it through us, once.
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
            try:
                return process.wait()
            except BaseException:
                _end(process)
                raise

    def _drawn(self, values: Sequence[Any]) -> str:
        names = [one.path[-1].rpartition(".")[2] for one in self.file.parameters]
        shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        return ", ".join(f"{name} {value}" for name, value in zip(names, shown, strict=True))

    def _write_table(self) -> None:
        text = io.StringIO()
        rows = csv.writer(text)
        names = [one.name for one in self.file.parameters]
        rows.writerow(["trial", "state", self.file.metric, *names, "folder", "error"])
        for trial in self.study.settled():
            told = [trial.user_attrs.get(key, "") for key in ("folder", "error")]
            value = "" if trial.value is None else trial.value
            state = trial.state.name.lower()
            rows.writerow([trial.number, state, value, *self.study.values(trial), *told])
        write_atomically(self.out / "trials.csv", text.getvalue().encode())

    def summary(self) -> str:
        """The trials, best first, and the best one's command."""
        best = self.study.complete()
        failed = len(self.study.settled()) - len(best)
        lines = [f"{'trial':>5}  {self.file.metric:>20}  drawn"]
        for trial in best[:10]:
            drawn = self._drawn(self.study.values(trial))
            lines.append(f"{trial.number:>5}  {trial.value:>20.4f}  {drawn}")
        if len(best) > 10:
            lines.append(f"and {len(best) - 10} more in {self.out / 'trials.csv'}")
        if failed:
            lines.append(f"failed: {failed}, told in {self.out / 'trials.csv'}")
        if not best:
            return "\n".join(lines)
        command = self.file.words(self.file.arguments(self.study.values(best[0])))
        plain = [word for word in command if word != "/usr/bin/env"]
        lines += ["", "Best:", shlex.join(plain), f"Its scores: {best[0].user_attrs['folder']}"]
        return "\n".join(lines)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Have a trial and what it has started end: kindly, then not."""
    for kind, seconds in ((signal.SIGINT, 30), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, kind)
            process.wait(seconds)
        except ProcessLookupError:
            return
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue
        else:
            return


def _last_line(output: Path, code: int) -> str:
    lines = output.read_text(errors="replace").strip().splitlines()
    said = next((line for line in reversed(lines) if line.startswith("error: ")), None)
    return said or (lines[-1] if lines else f"it ended with code {code}.")


def _terminated(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def _arguments() -> jsonargparse.ArgumentParser:
    parser = SegmentParser(prog="python -m segment.sweep", description=__doc__)
    parser.add_argument("file", type=str, help="A W&B sweep file.")
    parser.add_argument(
        "--trials",
        type=int | None,
        help="How many, with those of before; null: the file's run_cap, or the whole grid.",
    )
    parser.add_argument("--out", type=str | None, help="Null: runs/sweeps/<name of the file>.")
    parser.add_argument("--seed", type=int, default=0, help="Of what is drawn.")
    return parser


def main(args: Sequence[str]) -> None:
    """Run the verb with its command line."""
    given = _arguments().parse_args(list(args))
    file = read_sweep(Path(given.file))
    out = Path(given.out or Path("runs") / "sweeps" / file.path.stem)
    sweep = Sweep(file, out, given.seed)
    if file.stops_early:
        print(f"{file.path}: early_terminate is W&B's server's; here every trial runs to its end.")
    try:
        sweep.run(given.trials if given.trials is not None else file.run_cap)
    except KeyboardInterrupt as interrupt:
        told = f"{len(sweep.study.complete())} trials are kept in {out}; the same command goes on"
        stopped(interrupt, told)
    print(sweep.summary())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    user_errors(lambda: main(sys.argv[1:]))
