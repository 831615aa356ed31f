"""Photos in W&B: masks over them that can be switched on and off, and the table of the worst."""

import gzip
import heapq
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import wandb
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from segment.crf import DenseCRF
from segment.data.coco import CocoFile
from segment.data.photos import read_photo
from segment.evaluation import png_name
from segment.labels import labels_of
from segment.metrics import PhotoCounts, Scores, scores_from_counts
from segment.modules import SegmentationModule
from segment.scoring import refine
from segment.tracking.tracker import tracker_of

SIDE = 512  # pixels of the longer side of what is logged, at most
UNLABELLED = 255
# W&B has one list of names per picture, so an error map's ids lie where no class has its own.
RIGHT, WRONG = 253, 254
ERRORS = {RIGHT: "right", WRONG: "wrong", UNLABELLED: "unlabelled"}

Ids = NDArray[np.uint8]


def scale_of(height: int, width: int, side: int = SIDE) -> float:
    """By how much a photo is shrunk for W&B; 1 where it is small enough."""
    return min(1.0, side / max(height, width))


def shrunk(pixels: NDArray[np.uint8], scale: float, interpolation: int) -> NDArray[np.uint8]:
    """Photo or labels, uint8 (H, W) or (H, W, 3), at `scale`."""
    if scale == 1.0:
        return pixels
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=interpolation).astype(np.uint8)


def error_map(truth: Ids, ids: Ids) -> Ids:
    """Where labels are right and where they are wrong; 255 where the truth is not known."""
    judged = np.where(ids == truth, RIGHT, WRONG)
    return np.where(truth == UNLABELLED, UNLABELLED, judged).astype(np.uint8)


def overlaid(photo: NDArray[np.uint8], truth: Ids, labels: dict[str, Ids], names: Sequence[str],
             caption: str) -> wandb.Image:  # fmt: skip
    """A photo with its masks: `true`, every one of `labels`, and where each of these errs.

    Args:
        photo: uint8 RGB (H, W, 3).
        truth: Train ids, uint8 (H, W), 255 where unlabelled.
        labels: Predicted train ids by name, `raw` and `refined`, uint8 (H, W).
        names: The classes' names.
        caption: What stands below it.
    """
    classes = {**dict(enumerate(names)), UNLABELLED: "unlabelled"}
    masks = {"true": (truth, classes)}
    masks |= {name: (ids, classes) for name, ids in labels.items()}
    masks |= {f"errors {name}": (error_map(truth, ids), ERRORS) for name, ids in labels.items()}
    return wandb.Image(
        photo,
        caption=caption,
        file_type="jpg",
        masks={
            name: {"mask_data": ids, "class_labels": known} for name, (ids, known) in masks.items()
        },
    )


class LogPredictions(Callback):
    """The same few validation photos after every validation: true, raw and refined masks, errors.

    Args:
        crf: The refinement, or None.
        photos: How many.
    """

    def __init__(self, crf: DenseCRF | None, photos: int = 4) -> None:
        self.crf, self.photos = crf, photos

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict, refine and log them, in the first process."""
        tracker = tracker_of(trainer)
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if tracker is None or trainer.sanity_checking or tracker.has_logged(step):
            return
        assert isinstance(pl_module, SegmentationModule)
        dataset = trainer.datamodule.val_dataloader().dataset  # type: ignore[attr-defined]  # untyped
        shown = np.linspace(0, len(dataset) - 1, min(self.photos, len(dataset))).round()
        places = [int(place) for place in dict.fromkeys(shown)]
        images = [
            self._image(pl_module, dataset[place], dataset.coco.photos[place].file_name)
            for place in places
        ]
        tracker.log_metrics({"photos/validation": images}, step)

    def _image(self, module: SegmentationModule, item: dict[str, Any], caption: str) -> wandb.Image:
        image = item["image"].as_subclass(torch.Tensor)
        probabilities = module.probabilities(image[None].to(module.device))[0].cpu().numpy()
        truth = item["mask"].numpy().astype(np.uint8)
        scale = scale_of(*truth.shape)
        photo = shrunk(image.permute(1, 2, 0).numpy(), scale, cv2.INTER_AREA)
        truth = shrunk(truth, scale, cv2.INTER_NEAREST)
        size = truth.shape[0], truth.shape[1]
        labels = {"raw": labels_of(torch.from_numpy(probabilities), size).ids.numpy()}
        if self.crf is not None:
            # Widths are in pixels of the photo itself, so they shrink with it.
            crf = self.crf.scaled(scale)
            refined, _ = refine(np.ascontiguousarray(photo), probabilities, crf)
            labels["refined"] = labels_of(torch.from_numpy(refined), size).ids.numpy()
        assert module.taxonomy is not None
        return overlaid(photo, truth, labels, module.taxonomy.classes, caption)


class Line(NamedTuple):
    """A photo of `per_photo.jsonl.gz`: its mean IoU, its place there, and its counts by kind."""

    miou: float
    place: int
    record: dict[str, Any]


def _lines(path: Path, kind: str, classes: int, background: int | None) -> Iterator[Line]:
    """Photos that have a score of a kind, `raw` or `refined`, one at a time."""
    with gzip.open(path, "rt") as file:
        for place, line in enumerate(file):
            record = json.loads(line)
            miou = _scores(record[kind], classes, background)["miou"]
            if miou is not None:
                yield Line(miou, place, record)


def _scores(counts: dict[str, Any], classes: int, background: int | None) -> Scores:
    return scores_from_counts([PhotoCounts.from_json(counts)], classes, background)


def worst_photos(
    evaluation: dict[str, Any], out: Path, coco: CocoFile, number: int = 20
) -> wandb.Table:
    """The photos with the lowest mean IoU, worst first: refined where there is a CRF, else raw.

    Args:
        evaluation: The content of `evaluation.json`.
        out: Its folder, with `per_photo.jsonl.gz` and the label PNGs.
        coco: The photos that were scored, in the same order.
        number: How many, at most.
    """
    names = evaluation["classes"]
    kinds = [kind for kind in ("raw", "refined") if evaluation[kind] is not None]
    shape = len(names), evaluation["background"]
    lines = _lines(out / evaluation["per_photo"], kinds[-1], *shape)
    worst = heapq.nsmallest(number, lines, key=lambda line: (line.miou, line.place))
    columns: list[str | int] = ["photo", "file"]
    columns += [f"{name} {kind}" for name in ("mIoU", "pixel accuracy") for kind in kinds]
    table = wandb.Table(columns=columns)
    for line in worst:
        photo = coco.photos[line.place]
        pixels, truth = read_photo(coco.photo_path(photo)), coco.paint(photo)
        scale = scale_of(*truth.shape)
        labels = {}
        for kind in kinds:
            path = out / evaluation["labels"] / kind / png_name(photo.file_name)
            ids = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
            assert ids is not None, path
            labels[kind] = shrunk(ids.astype(np.uint8), scale, cv2.INTER_NEAREST)
        image = overlaid(
            shrunk(pixels, scale, cv2.INTER_AREA),
            shrunk(truth, scale, cv2.INTER_NEAREST),
            labels,
            names,
            photo.file_name,
        )
        scores = [_scores(line.record[kind], *shape) for kind in kinds]
        mious = [one["miou"] for one in scores]
        table.add_data(image, photo.file_name, *mious, *(one["pixel_accuracy"] for one in scores))
    return table
