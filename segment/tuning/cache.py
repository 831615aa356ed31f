"""A network's answers on photos, kept on disk so that a search asks the network once."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from segment.crf import DenseCRF, resize_maps
from segment.data.coco import CocoFile, Photo
from segment.data.photos import read_photo
from segment.files import write_atomically, write_json
from segment.modules import SegmentationModule
from segment.scoring import at_most, at_size

# Labels that may differ where a coarser grid of scores is stored: 1 in 1000.
KEPT = 0.999
FLOOR = -16.0  # of a log probability: e^-16 is 1e-7, and float16 counts in steps of 1/128 there


class Example(NamedTuple):
    """One photo at the size that the CRF works at.

    Attributes:
        photo: uint8 RGB (H, W, 3).
        probabilities: The network's, float32 (C, H, W).
        truth: Train ids or 255, uint8 (H, W).
    """

    photo: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    truth: NDArray[np.uint8]


class Cache:
    """A folder with one file for each photo.

    Several processes may fill it together: a file appears whole or not at all.

    Args:
        folder: Where; made if it is new.
        identity: What the files follow from, such as the checkpoint's sha256.

    Raises:
        ValueError: The folder was filled from something else.
    """

    def __init__(self, folder: Path, identity: dict[str, str]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "identity.json"
        if path.exists() and json.loads(path.read_text()) != identity:
            raise ValueError(
                f"{folder}: holds the answers of another checkpoint, or on other photos; give "
                f"--out another folder, or delete this one."
            )
        write_json(path, identity)

    def path(self, photo: Photo) -> Path:
        """The file of a photo."""
        return self.folder / f"{photo.id}.npz"

    def missing(self, photos: list[Photo]) -> list[Photo]:
        """Those that have no file yet."""
        return [photo for photo in photos if not self.path(photo).exists()]

    def fill(
        self, module: SegmentationModule, coco: CocoFile, photos: list[Photo], crf: DenseCRF
    ) -> Iterator[Photo]:
        """Ask the network about photos that have no file yet, one after another.

        Args:
            module: On its device, in evaluation mode.
            coco: Their file.
            photos: Which.
            crf: Whose working size they are kept at.
        """
        for photo in self.missing(photos):
            image = read_photo(coco.photo_path(photo))
            size = crf.working_size(*image.shape[:2])
            tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
            with torch.inference_mode():
                maps = at_most(module.probabilities(tensor.to(module.device))[0], size).cpu()
            small = resize_maps(tensor[0].float(), size).round().to(torch.uint8)
            buffer = io.BytesIO()
            np.savez_compressed(
                buffer,
                scores=compact(maps).numpy(),
                size=np.array(maps.shape[1:]),
                photo=small.permute(1, 2, 0).numpy(),
                truth=cv2.resize(coco.paint(photo), size[::-1], interpolation=cv2.INTER_NEAREST),
            )
            write_atomically(self.path(photo), buffer.getvalue())
            yield photo


def read_example(path: Path) -> Example:
    """One photo's file.

    Raises:
        ValueError: It was cut short or changed.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            scores, photo, truth = file["scores"], file["photo"], file["truth"]
            height, width = (int(side) for side in file["size"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path}: is damaged; delete it, and it is made again.") from error
    maps = restored(torch.from_numpy(scores).float(), (height, width))
    return Example(photo, at_size(maps, truth.shape).numpy(), truth)


def compact(probabilities: torch.Tensor) -> torch.Tensor:
    """Log probabilities, float16, on the coarsest grid that keeps the labels.

    A network that answers at stride 8 and interpolates has said no more than every eighth pixel
    does. Others lose labels on a coarser grid, which shows.

    Args:
        probabilities: float32 (C, H, W).

    Returns:
        float16 (C, h, w) at a stride of 8, 4, 2 or 1.
    """
    scores = probabilities.log().clamp_(min=FLOOR)
    size = scores.shape[1], scores.shape[2]
    labels = scores.argmax(0)
    for stride in (8, 4, 2):
        coarse = [-(-side // stride) for side in size]
        small = F.interpolate(scores[None], coarse, mode="bilinear", align_corners=False)[0].half()
        again = restored(small.float(), size).argmax(0)
        if (again == labels).float().mean() >= KEPT:
            return small
    return scores.half()


def restored(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Probabilities, float32 (C, H, W), of `compact` scores.

    What a pixel's scores have in common cancels in the softmax, also between grid points, so
    interpolating log probabilities gives what interpolating the logits would.
    """
    return resize_maps(scores, size).softmax(0)
