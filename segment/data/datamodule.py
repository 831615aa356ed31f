"""TrashDataModule: COCO files on disk -> batches of {image, mask, image_id}.

The order of photos and their augmentation follow from (seed, epoch, photo) alone: the sampler
draws a seed for every photo and hands it to the dataset, whoever loads it.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, default_collate

from segment.data.coco import CocoFile
from segment.data.dataset import CocoSegmentation
from segment.data.object_crops import ObjectCrop
from segment.data.sample import make_sample
from segment.data.sampler import PhotoSampler
from segment.data.taxonomy import Taxonomy
from segment.data.transforms import training_transform
from segment.seeds import run_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """The generated trash set, made at `root` where it is missing.

    Args:
        train: Number of training photos.
        val: Number of validation photos.
        size: Side of a photo in pixels.
        seed: Seed of the pictures; not the seed of the training.
    """

    train: int = 200
    val: int = 50
    size: int = 256
    seed: int = 0


def _collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack items; tv_tensors become plain tensors, since geometry is done."""
    return {
        key: value.as_subclass(torch.Tensor) if isinstance(value, torch.Tensor) else value
        for key, value in default_collate(items).items()
    }


class TrashDataModule(LightningDataModule):
    """Photos of trash in COCO format.

    Batches are dicts: `image` uint8 RGB (N, 3, H, W), `mask` int64 (N, H, W) with 255 where
    nothing is labelled, `image_id` int64 (N,). Training photos are scaled, cropped, flipped and
    jittered; evaluation takes one photo at a time, at its own size. Where the module that trains
    asks for them, training batches hold `instances` too, int64 (N, H, W), a number per object.

    Args:
        root: Folder that the annotation files and their `file_name`s are relative to.
        train: COCO json of the training photos.
        val: COCO json of the photos that choose the checkpoint.
        test: COCO json of photos that chose nothing.
        taxonomy: Preset name (trash10, trash11, taco60, taco28, garbage6, bags, camvid11) or the
            path of a YAML file; null takes the training json's categories plus Background 0.
        sample: Generate the embedded trash set at `root` where it is missing.
        short_side: Length in pixels that the shorter side of every photo has for the network;
            null keeps each photo's own size. Scores are at the annotation's size all the same.
        crop: What training crops show: `random` parts of a photo, one annotated `object`, or a
            random box around one (`proposal`). The last two are resized to a little more than
            `crop_size` (DeconvNet), whatever `short_side`, `scale` and `colour_jitter` say.
        crop_size: Side of a training crop in pixels.
        scale: Smallest and largest random factor on top of `short_side`.
        flip: Probability of a horizontal flip.
        colour_jitter: Strength from 0 (off) to 1 of the colour changes.
        elastic: Standard deviation in pixels of U-Net's elastic deformation; 0 is off, it has 10.
        batch_size: Training photos per process and step.
        workers: Processes per training process that load photos; 0 loads between the steps.
        seed: Seed of order and augmentation; null takes the run's `seed_everything`.
        on_bad_photo: Whether a photo that cannot be read stops the run or is counted and skipped.
    """

    def __init__(
        self,
        root: str,
        train: str = "train.json",
        val: str = "val.json",
        test: str | None = None,
        taxonomy: str | None = None,
        sample: Sample | None = None,
        short_side: int | None = None,
        crop_size: int = 321,
        scale: tuple[float, float] = (0.5, 1.5),
        flip: float = 0.5,
        colour_jitter: float = 0.2,
        elastic: float = 0.0,
        batch_size: int = 8,
        workers: int = 2,
        seed: int | None = None,
        on_bad_photo: Literal["stop", "skip"] = "stop",
        crop: Literal["random", "object", "proposal"] = "random",
    ) -> None:
        super().__init__()
        if crop not in ("random", "object", "proposal"):
            raise ValueError(f"data.crop is {crop!r}; write 'random', 'object' or 'proposal'.")
        for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
            if value < least:
                raise ValueError(f"data.{name} is {value}; give {least} or more.")
        self.root = Path(root)
        self.files = {"train": train, "val": val, "test": test}
        self.taxonomy_source = taxonomy
        self._taxonomy: Taxonomy | None = None
        self._is_prepared = False
        self.sample = sample
        self.short_side = short_side
        self.train_transform = training_transform(
            crop_size, short_side, scale, flip, colour_jitter, elastic
        )
        self.crop, self.crop_size, self.flip = crop, crop_size, flip
        self.batch_size = batch_size
        self.workers = workers
        self.seed = run_seed() if seed is None else seed
        self.on_bad_photo = on_bad_photo
        self.instances = False  # set by the module that trains
        self.first_epoch = 0
        self.split = "val"  # what `test_dataloader` hands out
        self.coco: dict[str, CocoFile] = {}
        self.datasets: dict[tuple[str, bool], CocoSegmentation] = {}  # by split, for training?

    def prepare_data(self) -> None:
        """Generate the embedded set, where the experiment asks for it. One process per node."""
        if self.sample is not None and not self._is_prepared:
            spec = self.sample
            make_sample(self.root, train=spec.train, val=spec.val, size=spec.size, seed=spec.seed)
            self._is_prepared = True  # Lightning asks again before it scores

    def setup(self, stage: str) -> None:
        """Read and check the annotation files of a stage (`fit`, `validate`, `test`).

        Raises:
            ValueError: A file has defects, or there is nothing to learn from or to score with.
        """
        for split in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ()):
            self.read(split)
        if "train" in self.coco and stage == "fit":
            self._check_labels()

    def read(self, split: str) -> CocoFile:
        """The checked annotation file of a split.

        Raises:
            ValueError: The split has no file, or the file has defects.
        """
        if split not in self.coco:
            name = self.files.get(split)
            if name is None:
                raise ValueError(
                    f"data.{split} names no annotation file; give one, for instance "
                    f"--data.{split} {split}.json."
                )
            taxonomy = self.taxonomy if self._knows_taxonomy() or split != "train" else None
            self.coco[split] = CocoFile(
                self.root / name, self.root, taxonomy=taxonomy, on_bad_photo=self.on_bad_photo
            )
            for warning in self.coco[split].warnings:
                log.warning(warning)
        return self.coco[split]

    @property
    def taxonomy(self) -> Taxonomy:
        """The one given, else the training json's own categories, for every split."""
        if self._taxonomy is None:
            if self.taxonomy_source is not None:
                self._taxonomy = Taxonomy.load(self.taxonomy_source)
            else:
                self._taxonomy = self.read("train").taxonomy
        return self._taxonomy

    def _knows_taxonomy(self) -> bool:
        return self._taxonomy is not None or self.taxonomy_source is not None

    def use_taxonomy(self, taxonomy: Taxonomy) -> None:
        """Take a checkpoint's taxonomy for every split that is read from now on."""
        self._taxonomy = taxonomy
        self.coco.clear()
        self.datasets.clear()

    def train_dataloader(self) -> DataLoader:
        """Shuffled, augmented crops; the last incomplete batch of an epoch is left out."""
        transform: Callable = self.train_transform
        if self.crop != "random":
            transform = ObjectCrop(self.read("train"), self.crop, self.crop_size, self.flip)
        dataset = self._dataset("train", transform)
        dataset.instances = self.instances
        sampler = self._sampler(len(dataset), shuffle=True)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            # A set smaller than one batch is still a set: keep its only batch.
            drop_last=len(sampler) >= self.batch_size,
            collate_fn=_collate,
            **self._loading(),
        )

    def val_dataloader(self) -> DataLoader:
        """The validation photos in file order, one at a time."""
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> DataLoader:
        """The photos of `self.split`, which `segment.evaluate` chooses."""
        return self.evaluation_dataloader(self.split)

    def evaluation_dataloader(self, split: str) -> DataLoader:
        """The photos of a split in file order, each exactly once over all processes.

        One at a time: photos differ in size, memory stays flat, and no score depends on which
        photos share a batch.
        """
        dataset = self._dataset(split, None)
        return DataLoader(
            dataset,
            batch_size=1,
            sampler=self._sampler(len(dataset), shuffle=False),
            collate_fn=_collate,
            **self._loading(),
        )

    def _dataset(self, split: str, transform: Callable | None) -> CocoSegmentation:
        key = split, transform is not None
        if key not in self.datasets:  # one for all loaders: it counts what it skips
            self.datasets[key] = CocoSegmentation(self.read(split), transform)
        return self.datasets[key]

    def skipped(self, split: str) -> torch.Tensor:
        """For every photo of a split, whether evaluation could not read it, bool (photos,)."""
        return self.datasets[split, False].skipped

    def teardown(self, stage: str) -> None:
        """Tell how many photos were skipped."""
        for (split, _), dataset in self.datasets.items():
            if count := int(dataset.skipped.sum()):
                log.warning(f"{count} photos of {split} could not be read.")

    def _sampler(self, num_photos: int, *, shuffle: bool) -> PhotoSampler:
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        sampler = PhotoSampler(num_photos, self.seed, shuffle=shuffle, rank=rank, world_size=world)
        if shuffle:
            # Workers load ahead before Lightning first calls `set_epoch`.
            sampler.set_epoch(self.first_epoch)
        return sampler

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint of an epoch's end: the epoch that a resumed run starts with."""
        return {"first_epoch": self.trainer.current_epoch + 1 if self.trainer else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning calls this before it asks for any loader."""
        self.first_epoch = state_dict["first_epoch"]

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.workers,
            "persistent_workers": self.workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # Workers paint and decode; with more threads each they fight over the cores.
            "worker_init_fn": _start_worker,
        }

    def _check_labels(self) -> None:
        coco, val = self.read("train"), self.read("val")
        absent = coco.absent_classes()
        # Behind the background, which needs no annotation.
        objects = self.taxonomy.classes[0 if self.taxonomy.background is None else 1 :]
        if set(objects) <= set(absent):
            raise ValueError(
                f"{coco.path}: no photo shows a pixel of any object, so there is nothing to learn; "
                f"add `annotations`, of categories that the taxonomy does not ignore."
            )
        if not val.annotations or not val.shown_classes():
            raise ValueError(
                f"{val.path}: no photo has an annotation, or only of categories that are ignored, "
                f"so no score could choose a checkpoint; add `annotations`."
            )
        if absent:
            log.warning(
                f"{coco.path}: no training photo shows {', '.join(absent)}; the network cannot "
                f"learn what it never sees, so expect an IoU of 0 there."
            )


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
