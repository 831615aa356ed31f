"""Weights & Biases: online where a key is at hand, offline where not, and never in the way."""

import netrc
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
import yaml
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from wandb.sdk.wandb_run import Run

from segment.tracking.charts import iou_chart
from segment.tracking.history import last_step

STEP = "trainer/global_step"
CLASS_IOU = "val/iou/"


# Curves of single classes: kept, but W&B draws none of its own accord, for 60 would hide the rest.
CLASS_SCORES = (
    "val/iou/*",
    *(f"{split}/{kind}/iou/*" for split in ("val", "test") for kind in ("raw", "refined")),
)


def _run_id(run: Path, anew: bool = False) -> str:
    """The W&B id of a run folder, made up once: names and times may be the same elsewhere."""
    path = run / ".wandb_id"
    if anew or not path.is_file():
        # The agent of a sweep has made up the id of the run that it starts.
        swept = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        path.write_text(swept if swept and not anew else secrets.token_hex(5))
    return path.read_text()


def why_offline() -> str | None:
    """Why W&B cannot be used without asking: it was told so, or has no key. None: it can."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode in ("offline", "dryrun"):
        return f"WANDB_MODE is {mode}"
    if mode == "disabled" or os.environ.get("WANDB_API_KEY") or _has_login():
        return None
    return "no API key"


def _has_login() -> bool:
    """Whether `wandb login` has left a key for the server that would be used."""
    given = os.environ.get("WANDB_BASE_URL")
    # wandb's own default address has changed over time, and keys for the old one still count.
    addresses = [given] if given else [wandb.Settings().base_url, "https://api.wandb.ai"]
    try:
        logins = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(logins.authenticators(urlsplit(address).netloc) for address in addresses)


class Tracker(WandbLogger):
    """WandbLogger that is offline where no key is set, and says how to sync.

    One row of W&B's history is one step of the optimizer, and W&B's own step is its number: rows
    are in order, and none stands twice, however often a run is interrupted and resumed. What a
    resumed run does again comes out as before, so it is not logged again; a step that was under
    way when the run was interrupted was not logged at all.

    Args:
        project: W&B project.
        entity: W&B team or user; null is the account's own.
        group: W&B group, for runs that belong together.
        tags: W&B tags.
        checkpoint_as_artifact: Whether the checkpoint that is scored at the end becomes a W&B
            artifact; offline a copy of it waits in W&B's staging folder until it is synced.
    """

    def __init__(
        self,
        project: str = "segment",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        checkpoint_as_artifact: bool = False,
    ) -> None:
        self.checkpoint_as_artifact = checkpoint_as_artifact
        self.offline_because = why_offline()
        online = self.offline_because is None
        super().__init__(
            project=project,
            offline=not online,
            entity=entity,
            group=group,
            tags=tags,
            # Offline, what matters is said below. A server that does not answer costs half a
            # minute at the start, not a minute and a half, and five at the end, not days.
            settings=wandb.Settings(
                silent=not online,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", "30")),
                finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", "300")),
                finish_timeout_raises=True,
            ),
        )
        del self._wandb_init["anonymous"]  # wandb warns about it
        self._before = -1  # the last step that processes before this one logged
        self._step = -1  # the step that is under way, or the last that was logged
        self._row: dict[str, Any] = {}  # what is known of it that W&B does not have yet

    def follow(self, run: Path, experiment: str, config: str) -> None:
        """In the first process: write into a run's folder; a resumed run goes on where it was."""
        self._save_dir = self._wandb_init["dir"] = str(run)
        name = f"{experiment}/{run.name}"
        self._name = self._wandb_init["name"] = name
        self._id = self._wandb_init["id"] = _run_id(run)
        self._wandb_init["resume"] = "allow"
        self._wandb_init["config"] = yaml.safe_load(config)
        self._before = self._step = last_step(run, self._id)

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The W&B run, made when first used; offline where the server cannot be reached."""
        if self._experiment is None:
            run = self._open()
            # Online, the server may know of more than this folder, which may have been moved.
            self._before = self._step = max(self._before, run.step - 1)
            for scores in CLASS_SCORES:
                run.define_metric(scores, step_metric=STEP, hidden=True)
        return super().experiment

    def _open(self) -> Run:
        if self.offline_because is not None:
            rank_zero_info(
                f"W&B runs offline in {self._save_dir}/wandb ({self.offline_because}); "
                f"`wandb login` and `wandb sync {self._save_dir}/wandb/offline-run-*` "
                f"upload it."
            )
        try:
            return super().experiment
        except wandb.Error as error:
            reason = str(error).splitlines()[0].rstrip(".")
            rank_zero_info(f"W&B cannot be used ({reason}); this run goes on offline.")
            # W&B's service goes on holding the id of the run that failed, so this is another run,
            # of which nothing was logged before.
            self._id = _run_id(Path(str(self._save_dir)), anew=True)
            self._wandb_init.update(mode="offline", id=self._id)
            self._before = self._step = -1
        return super().experiment

    def has_logged(self, step: int) -> bool:
        """Whether a step was logged before this process resumed the run."""
        return step <= self._before

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add metrics, charts or pictures to the row of an optimizer step."""
        assert step is not None
        _ = self.experiment  # the first time, it tells what was logged before
        if self.has_logged(step):
            return
        if step > self._step:
            self._send(commit=True)
            self._step = step
        self._row |= {**metrics, STEP: step}
        if "epoch" in metrics:  # Lightning's, which would lie in no section
            self._row["trainer/epoch"] = self._row.pop("epoch")
        ious = {
            key.removeprefix(CLASS_IOU): value
            for key, value in metrics.items()
            if key.startswith(CLASS_IOU)
        }
        if ious:
            chart = iou_chart(ious, "IoU by class, raw, last validation")
            self._row["iou_per_class/validation"] = chart

    def end_epoch(self) -> None:
        """Hand over the row of the last step: what is resumed begins after it."""
        self._send()

    @rank_zero_only
    def log_last(self, metrics: Mapping[str, Any]) -> None:
        """Add what a finished training gave to the row of its last step.

        A process that trained nothing and only scored writes a row of its own, one step further.
        """
        _ = self.experiment
        if self._step == self._before:
            self._row = {STEP: max(0, self._before)}
            self._step += 1
        self._row |= metrics
        self._send()

    def _send(self, commit: bool = False) -> None:
        """Hand the row to W&B, which adds to it until it is committed or the next one comes."""
        if self._row:
            self.experiment.log(self._row, step=self._step, commit=commit)
            self._row = {}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep what is known of the last step, unless it was interrupted."""
        if status == "success":
            self._send()

    @rank_zero_only
    def finish(self) -> None:
        """End the W&B run, and say how to upload what a server that was lost did not take."""
        run = self.experiment
        try:
            run.finish()
        except TimeoutError:
            rank_zero_info(
                f"W&B's server does not answer; what it lacks is kept, and "
                f"`wandb sync {run.settings.sync_dir}` uploads it."
            )

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Nothing: `follow` hands over the whole configuration."""


def tracker_of(trainer: Trainer) -> Tracker | None:
    """The trainer's tracker, in the first process; None in the others, and where it has none."""
    if not trainer.is_global_zero:
        return None
    return next((one for one in trainer.loggers if isinstance(one, Tracker)), None)
