"""Which trial comes next, and what became of those before: Optuna's study in a folder.

The study is a journal beside the trials. What is drawn for a trial follows from the seed and the
trials settled before it, so that a sweep that was stopped goes on as if it had not been.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment.sweeps.file import Parameter, SweepFile, as_text

if TYPE_CHECKING:
    import optuna


class Study:
    """A sweep's trials, in `journal.log` of a folder; made, or taken up where it was left.

    Args:
        sweep: What is searched.
        folder: Where the journal is; the caller holds it.
        seed: Of what is drawn.

    Raises:
        ValueError: Optuna is not installed.
    """

    def __init__(self, sweep: SweepFile, folder: Path, seed: int) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise ValueError(
                "python -m segment.sweep: the package optuna is not installed; "
                "pip install 'segment[tune]', or run the file with wandb sweep."
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.sweep, self.seed = optuna, sweep, seed
        self.study = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
            study_name="sweep",
            direction="maximize" if sweep.maximize else "minimize",
            load_if_exists=True,
        )
        self.ranges = {one.name: self._distribution(one) for one in sweep.parameters}
        if sweep.method == "grid" and not self.study.trials:
            for values in sweep.grid():
                self.study.enqueue_trial(self._known(values))
        # The folder is ours alone, so a trial that is under way is one that a kill cut off.
        for trial in self.study.trials:
            if trial.state == optuna.trial.TrialState.RUNNING:
                self.interrupted(trial.number)

    def _distribution(self, one: Parameter) -> "optuna.distributions.BaseDistribution":
        kinds = self.optuna.distributions
        if one.choices is not None:
            return kinds.CategoricalDistribution([as_text(value) for value in one.choices])
        if one.whole:
            return kinds.IntDistribution(int(one.low), int(one.high), step=int(one.step or 1))
        return kinds.FloatDistribution(one.low, one.high, log=one.log, step=one.step)

    def _known(self, values: tuple[Any, ...]) -> dict[str, Any]:
        pairs = zip(self.sweep.parameters, values, strict=True)
        return {one.name: as_text(value) for one, value in pairs}

    def values(self, trial: "optuna.trial.FrozenTrial | optuna.Trial") -> list[Any]:
        """What a trial drew, in the order of the sweep's parameters."""
        return [
            trial.params[one.name] if one.choices is None else json.loads(trial.params[one.name])
            for one in self.sweep.parameters
        ]

    def settled(self) -> list["optuna.trial.FrozenTrial"]:
        """Trials that ended by themselves, well or not."""
        return [
            trial
            for trial in self.study.trials
            if trial.state.is_finished() and not trial.user_attrs.get("interrupted")
        ]

    def complete(self) -> list["optuna.trial.FrozenTrial"]:
        """Trials that have a score, best first."""
        state = self.optuna.trial.TrialState.COMPLETE
        found = [trial for trial in self.study.trials if trial.state == state]
        return sorted(found, key=lambda trial: trial.value or 0.0, reverse=self.sweep.maximize)

    def next(self) -> "optuna.Trial | None":
        """Draw the next trial; None where a grid has no more."""
        waiting = self.optuna.trial.TrialState.WAITING
        if self.sweep.method == "grid" and not any(t.state == waiting for t in self.study.trials):
            return None
        seed = self.seed + len(self.settled())
        bayes = self.sweep.method == "bayes"
        samplers = self.optuna.samplers
        self.study.sampler = (samplers.TPESampler if bayes else samplers.RandomSampler)(seed=seed)
        return self.study.ask(self.ranges)

    def scored(self, number: int, value: float, folder: Path) -> None:
        """Note a trial's score, and where its evaluation is."""
        self._note(number, "folder", str(folder))
        self.study.tell(number, value)

    def failed(self, number: int, why: str) -> None:
        """Note that a trial has no score."""
        self._note(number, "error", why)
        self.study.tell(number, state=self.optuna.trial.TrialState.FAIL)

    def interrupted(self, number: int) -> None:
        """Note that a trial was cut off; the same values are tried again."""
        trial = self.study.trials[number]
        self.study.enqueue_trial(trial.system_attrs.get("fixed_params") or trial.params)
        self._note(number, "interrupted", True)
        self.study.tell(number, state=self.optuna.trial.TrialState.FAIL)

    def _note(self, number: int, key: str, value: Any) -> None:
        trial = self.study.trials[number]
        self.study._storage.set_trial_user_attr(trial._trial_id, key, value)
