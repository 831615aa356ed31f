"""Photos and their masks as a torch dataset."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from segment.data.coco import CocoFile
from segment.data.photos import read_photo
from segment.data.taxonomy import IGNORE

_log = logging.getLogger(__name__)

Item = dict[str, Any]


class Draw(NamedTuple):
    """One photo to load, and how.

    Attributes:
        index: Place of the photo in the dataset.
        seed: Number that the augmentation follows from, whatever was drawn before; None leaves it
            to the global generator.
        counted: False for a photo that only fills up a process's share in evaluation: it comes
            back unlabelled and with the image id -1.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    seed: int | None = None
    counted: bool = True


class CocoSegmentation(Dataset[Item]):
    """The photos of a COCO json, in its order.

    Args:
        coco: The json, checked. Where its `on_bad_photo` is `skip`, a photo that cannot be read
            comes back black and unlabelled, of the json's size, with one warning per process.
        transform: Called with an item, returns the item to use; None changes nothing.

    Attributes:
        instances: Whether items say which annotation owns a pixel; False until it is set.
        skipped: One flag per photo that could not be read, bool (photos,), in memory that loader
            processes share.
    """

    def __init__(self, coco: CocoFile, transform: Callable[[Item], Item] | None = None) -> None:
        self.coco, self.transform, self.instances = coco, transform, False
        self.skipped = torch.zeros(len(coco.photos), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.coco.photos)

    def __getitem__(self, key: int | Draw) -> Item:
        """Load one photo.

        Args:
            key: Place of the photo, or a `Draw`.

        Returns:
            `image` uint8 RGB (3, H, W), `mask` int64 (H, W) of train ids and 255 for unlabelled,
            `image_id` int; where they are wanted `instances` too, int64 (H, W), a number per object
            where `mask` shows one.

        Raises:
            ValueError: The photo cannot be read, or is not of the json's size.
        """
        draw = Draw(*key) if isinstance(key, tuple) else Draw(key)
        item = self._load(draw.index)
        if self.transform is not None:
            if draw.seed is None:
                item = self.transform(item)
            else:
                with torch.random.fork_rng(devices=[]):
                    # Not torch.manual_seed, which would seed the accelerators too.
                    torch.default_generator.manual_seed(draw.seed)
                    item = self.transform(item)
        if not draw.counted:
            item["mask"] = tv_tensors.Mask(torch.full_like(item["mask"], IGNORE))
            item["image_id"] = -1
        return item

    def _load(self, index: int) -> Item:
        photo = self.coco.photos[index]
        height, width = photo.height, photo.width
        path = self.coco.photo_path(photo)
        try:
            pixels = read_photo(path)
        except ValueError as error:
            if self.coco.on_bad_photo == "stop":
                raise
            if not self.skipped[index]:
                self.skipped[index] = True
                _log.warning("skipping a photo: %s", error)
            item = {
                "image": tv_tensors.Image(torch.zeros(3, height, width, dtype=torch.uint8)),
                "mask": tv_tensors.Mask(torch.full((height, width), IGNORE)),
                "image_id": photo.id,
            }
            if self.instances:
                item["instances"] = tv_tensors.Mask(torch.zeros_like(item["mask"]))
            return item
        if pixels.shape[:2] != (height, width):
            raise ValueError(
                f"{path}: is {pixels.shape[0]}x{pixels.shape[1]} (height x width), and "
                f"{height}x{width} in {self.coco.path}; run python -m segment.prepare check."
            )
        item = {
            "image": tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous()),
            "mask": tv_tensors.Mask(torch.from_numpy(self.coco.paint(photo)).long()),
            "image_id": photo.id,
        }
        if self.instances:
            numbers = torch.from_numpy(self.coco.paint_instances(photo)).long()
            item["instances"] = tv_tensors.Mask(numbers)
        return item
