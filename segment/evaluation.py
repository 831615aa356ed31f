"""Scores of one checkpoint, raw and refined: what `evaluation.json` holds and how it is made."""

import gzip
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from segment.cost import multiply_adds, peak_memory_mb, training_cost
from segment.crf import DenseCRF
from segment.crf.pool import WorkerPool
from segment.data.datamodule import TrashDataModule
from segment.files import write_json
from segment.labels import labels_of
from segment.metrics import SegmentationScores
from segment.modules import SegmentationModule
from segment.runs import read_config, validations
from segment.scoring import Job, Scored, at_most, default_workers, score
from segment.seeds import run_seed
from segment.versions import git_state, versions

SCHEMA = 1
# What the photos that are scored may have decided before, in `notes`.
TRAINED, CHOSE, TUNED = "trained the network", "chose the checkpoint", "tuned the CRF"


class Evaluation(Callback):
    """Scores what `test_step` returns and writes `evaluation.json` and its companions.

    Memory does not grow with the number of photos: counts are summed, and each photo's own go to
    a file as they come.

    Args:
        run: Folder of the run, which knows what training cost.
        out: Folder to write to.
        experiment: Name of the experiment.
        checkpoint: Path of the checkpoint that is scored.
        split: `val`, `test` or `train`.
        crf: The refinement, or None.
        workers: Photos that are refined and counted at a time; None is half the cores.
        init_args: What replaced the model's own arguments.
    """

    def __init__(
        self,
        run: Path,
        out: Path,
        experiment: str,
        checkpoint: Path,
        split: str,
        crf: DenseCRF | None,
        workers: int | None = None,
        init_args: dict[str, Any] | None = None,
    ) -> None:
        self.run, self.out = run, out
        self.experiment, self.checkpoint = experiment, checkpoint
        self.split, self.crf, self.workers = split, crf, workers
        self.init_args = init_args
        self.result: dict[str, Any] | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the workers and this process's part of the per-photo file."""
        assert isinstance(pl_module, SegmentationModule)
        assert pl_module.taxonomy is not None
        self.out = Path(trainer.strategy.broadcast(str(self.out)))
        self.data: TrashDataModule = trainer.datamodule  # type: ignore[attr-defined]  # untyped
        self.coco = self.data.read(self.split)
        if not self.coco.shown_classes():
            raise ValueError(
                f"{self.coco.path}: not one pixel is labelled, so there is nothing to score; add "
                f"`annotations`, or have the photos labelled by python -m segment.predict."
            )
        self.names = {photo.id: photo.file_name for photo in self.coco.photos}
        self.taxonomy = pl_module.taxonomy
        shape = self.taxonomy.num_classes, self.taxonomy.background
        self.scores = {
            kind: SegmentationScores(*shape) for kind in ("raw", *(["refined"] if self.crf else []))
        }
        threads = self.crf is None or self.crf.releases_lock
        workers = self.workers
        if workers is None:
            # A few photos are done before a process has started.
            few = len(self.coco.photos) < 8 and not threads
            workers = 0 if few else default_workers(trainer.world_size)
        self.out.mkdir(parents=True, exist_ok=True)
        self.pool: WorkerPool[Job, Scored] = WorkerPool(score, workers, threads)
        self.part = self.out / f".per_photo.{trainer.global_rank}.part"
        self.part_file = self.part.open("w")
        self.crf_seconds: list[float] = []
        self.forward_seconds: list[float] = []

    def on_test_batch_start(self, *_: Any) -> None:
        """Start the clock of one photo's forward pass."""
        _synchronize()
        self.started = time.perf_counter()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, torch.Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hand one photo to the workers, and take in what they have finished."""
        _synchronize()
        self.forward_seconds.append(time.perf_counter() - self.started)
        image_id = int(batch["image_id"])
        if image_id == -1:  # padding of the last round: another process counts this photo
            return
        name = self.names[image_id]
        truth = batch["mask"][0].to(torch.uint8).cpu().numpy()
        ids, confidence = labels_of(outputs[0], truth.shape)
        image = batch["image"][0].permute(1, 2, 0).cpu().numpy()
        maps = None
        if self.crf is not None:
            # Of a 12-megapixel photo only what the CRF works on goes to another process.
            maps = at_most(outputs[0], self.crf.working_size(*truth.shape)).cpu().numpy()
        job = Job(
            image,
            truth,
            ids.cpu().numpy(),
            confidence.cpu().numpy(),
            maps,
            image_id,
            name,
            self.taxonomy.num_classes,
            self.crf,
            self.out / "labels",
            png_name(name),
        )
        self._take(self.pool.submit(job))

    def _take(self, results: Iterable[Scored]) -> None:
        for scored in results:
            record: dict[str, Any] = {"image_id": scored.image_id, "file_name": scored.file_name}
            for kind, counts in (("raw", scored.raw), ("refined", scored.refined)):
                if counts is not None:
                    self.scores[kind].update(counts)
                    record[kind] = counts.to_json()
            if scored.crf_seconds is not None:
                self.crf_seconds.append(scored.crf_seconds)
                record["crf_seconds"] = round(scored.crf_seconds, 4)
            self.part_file.write(json.dumps(record, allow_nan=False) + "\n")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over processes and write."""
        self._take(self.pool.drain())
        self.pool.close()
        self.part_file.close()
        assert isinstance(pl_module, SegmentationModule)
        # Computing sums over processes, on the device that the process group can reach.
        results = {
            kind: scores.to(pl_module.device).compute() for kind, scores in self.scores.items()
        }
        flags = self.data.skipped(self.split).to(pl_module.device, torch.uint8)
        skipped = int(trainer.strategy.reduce(flags, reduce_op="max").sum())
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self._merge_parts(trainer.world_size)
            self.result = self._document(pl_module, results, skipped)
            write_json(self.out / "evaluation.json", self.result)
        trainer.strategy.barrier()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave no process and no part file behind."""
        if hasattr(self, "part_file"):
            self.pool.close()
            with suppress(OSError):  # a full disk, which may be the exception itself
                self.part_file.close()
            self.part.unlink(missing_ok=True)

    def _merge_parts(self, world_size: int) -> None:
        """One file in the order of the annotation file, whatever the number of processes."""
        parts = [self.out / f".per_photo.{rank}.part" for rank in range(world_size)]
        place = {photo.id: index for index, photo in enumerate(self.coco.photos)}
        lines: list[tuple[int, int, int]] = []  # place, part, offset: the lines stay on disk
        for number, part in enumerate(parts):
            with part.open() as file:
                while True:
                    offset = file.tell()
                    line = file.readline()
                    if not line:
                        break
                    lines.append((place[json.loads(line)["image_id"]], number, offset))
        # Also of photos that were skipped: those count no pixel.
        assert sorted(index for index, *_ in lines) == list(range(len(place)))
        target = self.out / "per_photo.jsonl.gz"
        temporary = target.with_name(f".{target.name}.tmp")
        files = [part.open() for part in parts]
        with temporary.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as merged:
            for _, number, offset in sorted(lines):
                files[number].seek(offset)
                merged.write(files[number].readline().encode())
        for file, part in zip(files, parts, strict=True):
            file.close()
            part.unlink()
        temporary.replace(target)

    def _trained_on(self, module: SegmentationModule) -> dict[str, str]:
        """sha256 of the files of the photos that made this checkpoint what it is, by split."""
        unchosen = self.checkpoint.stem in ("last", "interrupted")  # by no score
        if self.checkpoint.resolve().parent == (self.run / "checkpoints").resolve():
            # Of a run that was validated once, the best is the only one; but what it started from
            # may have been chosen.
            config = read_config(self.run)
            given = config["model"].get("init_args") or {}
            started = any(given.get(name) for name in module.starts_from)
            unchosen |= validations(config.get("trainer")) == 1 and not started
        roles = module.trained_on.items()
        return {split: digest for split, digest in roles if not (unchosen and split == "val")}

    def _document(
        self, module: SegmentationModule, results: dict[str, Any], skipped: int
    ) -> dict[str, Any]:
        sha256 = self.coco.sha256
        return {
            "schema": SCHEMA,
            "experiment": self.experiment,
            "checkpoint": str(self.checkpoint),
            "init_args": self.init_args,
            "split": self.split,
            "notes": notes(sha256, self._trained_on(module), self.crf, skipped),
            "annotations": {
                "path": str(self.coco.path),
                "sha256": sha256,
                "photos": len(self.coco.photos),
            },
            "classes": list(self.taxonomy.classes),
            "colors": [list(color) for color in self.taxonomy.colors],
            "background": self.taxonomy.background,
            "raw": results["raw"],
            "refined": results.get("refined"),
            "crf": None
            if self.crf is None
            else {
                "parameters": asdict(self.crf),
                "backend": self.crf.backend_used,
                "seconds_per_photo": _median(self.crf_seconds),
            },
            "cost": {
                "parameters": sum(p.numel() for p in module.network.parameters()),
                "multiply_adds_512": multiply_adds(module.network),
                "seconds_per_training_step": None,
                "seconds_per_photo_forward": _median(self.forward_seconds),
                "peak_memory_mb": peak_memory_mb(),
                **training_cost(self.run),
            },
            "per_photo": "per_photo.jsonl.gz",
            "labels": "labels",
            "pretrained_on": module.pretrained_on,
            "starts_from": list(module.starts_from),
            "versions": versions(),
            "seed": run_seed(),
            "git": git_state(),
        }


def notes(sha256: str, trained_on: dict[str, str], crf: DenseCRF | None, skipped: int) -> list[str]:
    """What a reader of the scores must know of these photos."""
    roles = {"train": TRAINED, "val": CHOSE}
    found = [
        f"the same photos {role}, so new ones may score lower"
        for split, role in roles.items()
        if trained_on.get(split) == sha256
    ]
    if crf is not None and crf.tuned_on == sha256:
        found.append(f"the same photos {TUNED}, so new ones may gain less from it")
    if skipped:
        found.append(f"{skipped} photos could not be read and are not in the scores")
    return found


def png_name(file_name: str) -> str:
    """A label PNG's name: the photo's, folders and all; x.jpg and x.png stay apart."""
    return f"{file_name}.png"


def _median(seconds: list[float]) -> float | None:
    return round(float(np.median(seconds)), 4) if seconds else None


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
