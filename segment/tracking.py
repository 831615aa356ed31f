"""Weights & Biases: online where a key is at hand, offline where not, and never in the way."""

import netrc
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import torch
import wandb
import yaml
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from wandb.sdk.wandb_run import Run

from segment.crf import DenseCRF
from segment.labels import labels_of
from segment.modules import SegmentationModule
from segment.scoring import refine


def _run_id(run: Path, anew: bool = False) -> str:
    """The W&B id of a run folder, made up once: names and times may be the same elsewhere."""
    path = run / ".wandb_id"
    if anew or not path.is_file():
        path.write_text(secrets.token_hex(5))
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

    Args:
        project: W&B project.
        entity: W&B team or user; null is the account's own.
        group: W&B group, for runs that belong together.
        tags: W&B tags.
    """

    def __init__(
        self,
        project: str = "segment",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        self.offline_because = why_offline()
        online = self.offline_because is None
        super().__init__(
            project=project,
            offline=not online,
            entity=entity,
            group=group,
            tags=tags,
            # Offline, what matters is said below. A server that does not answer costs half a
            # minute, not a minute and a half.
            settings=wandb.Settings(
                silent=not online,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", "30")),
            ),
        )
        del self._wandb_init["anonymous"]  # wandb warns about it

    def follow(self, run: Path, experiment: str, config: str) -> None:
        """In the first process: write into a run's folder; a resumed run goes on where it was."""
        self._save_dir = self._wandb_init["dir"] = str(run)
        name = f"{experiment}/{run.name}"
        self._name = self._wandb_init["name"] = name
        self._id = self._wandb_init["id"] = _run_id(run)
        self._wandb_init["resume"] = "allow"
        self._wandb_init["config"] = yaml.safe_load(config)

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The W&B run, made when first used; offline where the server cannot be reached."""
        if self._experiment is None:
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
                # W&B's service goes on holding the id of the run that failed.
                self._id = _run_id(Path(str(self._save_dir)), anew=True)
                self._wandb_init.update(mode="offline", id=self._id)
        return super().experiment

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Nothing: `follow` hands over the whole configuration."""


class LogPredictions(Callback):
    """The same few validation photos after every validation: true, raw and refined masks.

    Args:
        crf: The refinement, or None.
        photos: How many.
        side: Longest side in pixels of what is logged.
    """

    def __init__(self, crf: DenseCRF | None, photos: int = 4, side: int = 512) -> None:
        self.crf, self.photos, self.side = crf, photos, side

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict, refine and log them, in the first process."""
        tracker = next((one for one in trainer.loggers if isinstance(one, WandbLogger)), None)
        if tracker is None or trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, SegmentationModule)
        dataset = trainer.datamodule.val_dataloader().dataset  # type: ignore[attr-defined]  # untyped
        shown = np.linspace(0, len(dataset) - 1, min(self.photos, len(dataset))).round()
        images = [self._image(pl_module, dataset[int(index)]) for index in dict.fromkeys(shown)]
        tracker.experiment.log(
            {
                "photos": images,
                "trainer/global_step": trainer.fit_loop.epoch_loop._batches_that_stepped,
            }
        )

    def _image(self, module: SegmentationModule, item: dict[str, Any]) -> wandb.Image:
        image = item["image"].as_subclass(torch.Tensor)
        probabilities = module.probabilities(image[None].to(module.device))[0].cpu().numpy()
        photo = image.permute(1, 2, 0).numpy()
        truth = item["mask"].numpy().astype(np.uint8)
        scale = min(1.0, self.side / max(truth.shape))
        if scale < 1:
            size = [max(1, round(side * scale)) for side in truth.shape[::-1]]
            photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
            truth = cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST)
        shape = truth.shape[0], truth.shape[1]
        masks = {
            "true": truth,
            "raw": labels_of(torch.from_numpy(probabilities), shape).ids.numpy(),
        }
        if self.crf is not None:
            # Widths are in pixels of the photo itself, so they shrink with it.
            crf = self.crf.scaled(scale)
            refined, _ = refine(np.ascontiguousarray(photo), probabilities, crf)
            masks["refined"] = labels_of(torch.from_numpy(refined), shape).ids.numpy()
        assert module.taxonomy is not None
        names = {**dict(enumerate(module.taxonomy.classes)), 255: "unlabelled"}
        return wandb.Image(
            photo,
            masks={name: {"mask_data": ids, "class_labels": names} for name, ids in masks.items()},
        )


def log_evaluation(trainer: Trainer, evaluation: dict[str, Any]) -> None:
    """The final scores, the per-class chart and the confusion matrices, to W&B."""
    tracker = next((one for one in trainer.loggers if isinstance(one, WandbLogger)), None)
    if tracker is None or not trainer.is_global_zero:
        return
    run = tracker.experiment
    names = evaluation["classes"]
    for kind in ("raw", "refined"):
        scores = evaluation[kind]
        if scores is None:
            continue
        for key in ("miou", "miou_foreground", "pixel_accuracy", "mean_accuracy", "boundary_f1"):
            run.summary[f"{evaluation['split']}/{kind}/{key}"] = scores[key]
        rows = [[name, value] for name, value in zip(names, scores["iou"], strict=True)]
        ious = wandb.Table(columns=["class", "IoU"], data=rows)
        cells = [
            [names[i], names[j], count]
            for i, row in enumerate(scores["confusion"])
            for j, count in enumerate(row)
        ]
        confusion = wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=cells)
        fields = {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"}
        run.log(
            {
                f"iou_per_class/{kind}": wandb.plot.bar(ious, "class", "IoU", f"IoU, {kind}"),
                f"confusion/{kind}": wandb.plot_table(
                    "wandb/confusion_matrix/v1", confusion, fields, {"title": f"Pixels, {kind}"}
                ),
            }
        )
