"""An evaluation in W&B: scores raw and refined, charts, cost, the worst photos, the checkpoint."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from segment.cost import COSTS
from segment.data.datamodule import TrashDataModule
from segment.metrics import TRIMAP_WIDTHS
from segment.modules import SegmentationModule
from segment.table import TOTALS
from segment.tracking.charts import confusion_chart, iou_before_and_after
from segment.tracking.photos import worst_photos
from segment.tracking.tracker import Tracker, tracker_of
from segment.versions import git_state


def scalars(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Every number that a run logs of an evaluation, by the name it has in W&B.

    `val/raw/miou`, `val/refined/trimap_miou/4`, `val/raw/iou/Paper`, `crf/seconds_per_photo`,
    `cost/parameters`: the names that sweeps and dashboards may use. What has no value is left out.

    Args:
        evaluation: The content of an `evaluation.json`.
    """
    found: dict[str, float | None] = {}
    for kind in ("raw", "refined"):
        scores = evaluation[kind]
        if scores is None:
            continue
        under = f"{evaluation['split']}/{kind}"
        found |= {f"{under}/{key}": scores[key] for key in TOTALS}
        found[f"{under}/calibration_error"] = scores["calibration"]["ece"]
        for width, value in scores["trimap_miou"].items():
            found[f"{under}/trimap_miou/{width}"] = value
        for name, value in zip(evaluation["classes"], scores["iou"], strict=True):
            found[f"{under}/iou/{name}"] = value
    if evaluation["crf"] is not None:
        found["crf/seconds_per_photo"] = evaluation["crf"]["seconds_per_photo"]
    found |= {f"cost/{key}": value for key, value in evaluation["cost"].items()}
    return {key: value for key, value in found.items() if value is not None}


def check_name(name: str, where: str) -> None:
    """Refuse a name that no run logs as one of its `scalars`.

    Raises:
        ValueError: It is none of theirs.
    """
    scores = [*TOTALS, "calibration_error", *(f"trimap_miou/{width}" for width in TRIMAP_WIDTHS)]
    known = [f"val/{kind}/{key}" for kind in ("raw", "refined") for key in scores]
    known += ["crf/seconds_per_photo", *(f"cost/{key}" for key in COSTS)]
    plain = re.sub(r"^(train|test)/", "val/", name)
    if plain in known or re.fullmatch(r"val/(raw|refined)/iou/.+", plain):
        return
    near = difflib.get_close_matches(name, known, 1) or ["val/raw/miou"]
    raise ValueError(f"{where} is {name}, which no run logs; did you mean {near[0]}?")


class LogRun(Callback):
    """What W&B's config has beside the resolved YAML: commit, hashes of the data, parameters.

    And the end of every epoch, which a logger by itself is not told.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log them, in the first process; a resumed run's are those it goes on with."""
        tracker = tracker_of(trainer)
        if tracker is None:
            return
        assert isinstance(pl_module, SegmentationModule)
        facts = {
            "git": git_state(),
            "annotations_sha256": dict(pl_module.trained_on),
            "architecture": type(pl_module.network).__name__,
            "parameters": sum(p.numel() for p in pl_module.network.parameters()),
        }
        tracker.experiment.config.update(facts, allow_val_change=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the epoch's last step logged, before the checkpoint that is resumed from."""
        tracker = tracker_of(trainer)
        if tracker is not None:
            tracker.end_epoch()


def log_evaluation(trainer: Trainer, evaluation: dict[str, Any], out: Path) -> None:
    """Log an evaluation, in the first process.

    Args:
        trainer: Its tracker is written to; nothing happens where there is none.
        evaluation: The content of `evaluation.json`.
        out: The folder of that file, where `per_photo.jsonl.gz` and the label PNGs lie too.
    """
    tracker = tracker_of(trainer)
    if tracker is None:
        return
    data: TrashDataModule = trainer.datamodule  # type: ignore[attr-defined]  # untyped
    row: dict[str, Any] = scalars(evaluation)
    row["iou_per_class/final"] = iou_before_and_after(evaluation)
    for kind in ("raw", "refined"):
        if evaluation[kind] is not None:
            row[f"confusion/{kind}"] = confusion_chart(
                evaluation[kind]["confusion"], evaluation["classes"], f"Pixels, {kind}"
            )
    row["photos/worst"] = worst_photos(evaluation, out, data.read(evaluation["split"]))
    tracker.log_last(row)
    if tracker.checkpoint_as_artifact:
        _keep_checkpoint(tracker, evaluation)


def _keep_checkpoint(tracker: Tracker, evaluation: dict[str, Any]) -> None:
    run, checkpoint = tracker.experiment, Path(evaluation["checkpoint"])
    artifact = wandb.Artifact(
        f"model-{run.id}",
        type="model",
        description=f"{evaluation['experiment']}: the checkpoint that evaluation.json scores",
        metadata={"miou": evaluation["raw"]["miou"], "classes": evaluation["classes"]},
    )
    artifact.add_file(str(checkpoint))
    run.log_artifact(artifact, aliases=[checkpoint.stem])
    rank_zero_info(f"{checkpoint} is logged as the W&B artifact {artifact.name}.")
