"""Crops around one annotated object: the two stages of DeconvNet's curriculum.

Noh, Hong and Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015,
https://arxiv.org/abs/1505.04366

Differs from the paper: one object per photo and epoch, drawn at random, instead of all of them; an
object proposal is a random box around it; boxes end where the photo ends. The release confirms 250
and 224 pixels, not the factor of 1.2 and the overlap of 0.5.
"""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from segment.data.coco import CocoFile
from segment.data.outlines import paint_runs, run_lengths
from segment.data.taxonomy import IGNORE

ENLARGED = 1.2  # side of stage 1's crop over that of the object's box
RESIZED = 250 / 224  # side of a box after resizing over that of the random crop taken from it
OVERLAP = 0.5  # least intersection over union of a proposal and the object's box

Box = tuple[int, int, int, int]  # top, left, bottom, right; pixels, the last two excluded


class ObjectCrop(nn.Module):
    """Cuts a random object's box out of its photo and makes a training crop of it.

    A photo without objects is taken whole. Randomness comes from torch's global generator.

    Args:
        coco: The annotations of the photos.
        kind: `object`, stage 1: centred on an object, all other objects made background;
            `proposal`, stage 2: a random box that overlaps an object, every class kept.
        crop_size: Side of the crop in pixels.
        flip: Probability of a horizontal flip.

    Raises:
        ValueError: Stage 1 needs a background, and the taxonomy has none.
    """

    def __init__(
        self, coco: CocoFile, kind: Literal["object", "proposal"], crop_size: int, flip: float
    ) -> None:
        super().__init__()
        if kind == "object" and coco.taxonomy.background is None:
            raise ValueError(
                f"data.crop is object, which makes all but one object background, and the "
                f"taxonomy {coco.taxonomy.name} has none; choose another, or data.crop: proposal."
            )
        self.coco, self.kind = coco, kind
        self.photos = {photo.id: photo for photo in coco.photos}
        self.train_ids = {c["id"]: coco.taxonomy.train_id(c) for c in coco.categories}
        # At least 2: torch's antialiased resizing of 8-bit photos breaks off at a single pixel.
        side = max(2, crop_size, round(crop_size * RESIZED))
        self.finish = v2.Compose(
            [
                v2.Resize((side, side), antialias=True),
                v2.RandomCrop(crop_size),
                v2.RandomHorizontalFlip(flip),
            ]
        )

    def forward(self, item: dict[str, Any]) -> dict[str, Any]:
        """Cut image (3, H, W) and masks (H, W) of the photo that `image_id` names."""
        objects = [
            a
            for a in self.coco.annotations.get(item["image_id"], [])
            if self.train_ids[a["category_id"]] != IGNORE and not a.get("iscrowd", 0)
        ]
        if not objects:
            return self.finish(item)
        chosen = objects[int(torch.randint(len(objects), ()))]
        own = self._pixels(item["image_id"], chosen)
        if not own.any():  # an outline thinner than a pixel
            return self.finish(item)
        box = box_of(own)
        mask = item["mask"]
        if self.kind == "object":
            kept = torch.from_numpy(own) & (mask == self.train_ids[chosen["category_id"]])
            background = self.coco.taxonomy.background
            assert background is not None
            mask = mask.masked_fill(~kept & (mask != IGNORE), background)
            box = enlarged(box, ENLARGED, own.shape)
        else:
            box = proposal(box, own.shape)
        top, left, bottom, right = box
        cut = {
            key: F.crop(value, top, left, bottom - top, right - left)
            for key, value in {**item, "mask": tv_tensors.Mask(mask)}.items()
            if isinstance(value, tv_tensors.TVTensor)
        }
        return self.finish({**item, **cut})

    def _pixels(self, image_id: int, annotation: dict[str, Any]) -> NDArray[np.bool_]:
        photo = self.photos[image_id]
        flat = np.zeros(photo.height * photo.width, np.uint8)
        paint_runs(flat, run_lengths(annotation["segmentation"], photo.height, photo.width), 1)
        return np.ascontiguousarray(flat.reshape(photo.width, photo.height).T).astype(bool)


def box_of(pixels: NDArray[np.bool_]) -> Box:
    """The smallest box around the true pixels of (H, W)."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def enlarged(box: Box, factor: float, size: tuple[int, ...]) -> Box:
    """A box with its sides `factor` times as long about its centre, within a photo of `size`."""
    more_rows, more_columns = (
        round((box[axis + 2] - box[axis]) * (factor - 1) / 2) for axis in (0, 1)
    )
    return (
        max(0, box[0] - more_rows),
        max(0, box[1] - more_columns),
        min(size[0], box[2] + more_rows),
        min(size[1], box[3] + more_columns),
    )


def proposal(box: Box, size: tuple[int, ...]) -> Box:
    """A random box in a photo of `size` whose intersection over union with `box` is 0.5 or more."""
    height, width = box[2] - box[0], box[3] - box[1]
    for _ in range(50):
        # An edge may move by half of the box's side, either way.
        moves = (torch.rand(4) - 0.5).tolist()
        drawn = (
            max(0, round(box[0] + moves[0] * height)),
            max(0, round(box[1] + moves[1] * width)),
            min(size[0], round(box[2] + moves[2] * height)),
            min(size[1], round(box[3] + moves[3] * width)),
        )
        if drawn[0] < drawn[2] and drawn[1] < drawn[3] and overlap(box, drawn) >= OVERLAP:
            return drawn
    return box


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    rows = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    columns = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    both = rows * columns
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)
