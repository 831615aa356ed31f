"""A network's answers on photos, kept on disk so that a search asks the network once."""

import io
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from segment.crf import DenseCRF, resized_photo
from segment.data.dataset import CocoSegmentation
from segment.data.records import Photo
from segment.files import write_atomically, write_json
from segment.modules import SegmentationModule
from segment.scoring import at_most, at_size

# Where a coarser grid of scores is stored, 1 label in 1000 may differ, and 1 pixel in 1000 have a
# probability that is further off than CLOSE. A strided network's own grid is within 0.001.
KEPT, CLOSE = 0.999, 0.02
FLOOR = -80.0  # of a log probability; lower ones are 0 in float32


class Example(NamedTuple):
    """One photo at the size that the CRF works at.

    Attributes:
        photo: uint8 RGB (H, W, 3).
        probabilities: The network's, float32 (C, H, W).
        truth: Train ids or 255, uint8 (H, W).
        size: Height and width of the photo itself, which its CRF's widths are for.
    """

    photo: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    truth: NDArray[np.uint8]
    size: tuple[int, int]


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
        if not path.exists():
            write_json(path, identity)
        elif _read_identity(path) != identity:
            raise ValueError(
                f"{folder}: holds the answers of another checkpoint, or on other photos; give "
                f"--out another folder, or delete this one."
            )

    def path(self, photo: Photo) -> Path:
        """The file of a photo."""
        return self.folder / f"{photo.id}.npz"

    def missing(self, photos: list[Photo]) -> list[Photo]:
        """Those that have no file yet."""
        return [photo for photo in photos if not self.path(photo).exists()]

    def fill(
        self,
        module: SegmentationModule,
        dataset: CocoSegmentation,
        photos: list[Photo],
        crf: DenseCRF,
    ) -> Iterator[Photo]:
        """Ask the network about photos that have no file yet, one after another.

        Args:
            module: On its device, in evaluation mode.
            dataset: Where they are read; a photo that it skips gets no file.
            photos: Which.
            crf: Whose working size they are kept at.
        """
        for photo in self.missing(photos):
            if not self.path(photo).exists():  # another process may have been faster
                self._ask(module, dataset, photo, crf)
            yield photo

    def _ask(
        self, module: SegmentationModule, dataset: CocoSegmentation, photo: Photo, crf: DenseCRF
    ) -> None:
        place = dataset.coco.photos.index(photo)
        item = dataset[place]
        if dataset.skipped[place]:
            return
        tensor = item["image"].as_subclass(torch.Tensor)
        truth = item["mask"].numpy().astype(np.uint8)
        size = crf.working_size(*truth.shape)
        with torch.inference_mode():
            maps = at_most(module.probabilities(tensor[None].to(module.device))[0], size).cpu()
        scores, grid = compact(maps)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            scores=scores.numpy(),
            grid=np.array(grid),
            maps=np.array(maps.shape[1:]),
            photo=resized_photo(tensor.permute(1, 2, 0).numpy(), size),
            truth=cv2.resize(truth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT),
            size=np.array(truth.shape),
        )
        write_atomically(self.path(photo), buffer.getvalue())


def _read_identity(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:  # cut short, or no text
        raise ValueError(
            f"{path}: is damaged, so nothing says whose answers these are; delete {path.parent}."
        ) from error


def read_example(path: Path) -> Example:
    """One photo's file.

    Raises:
        ValueError: It was cut short or changed.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            scores, photo, truth = file["scores"], file["photo"], file["truth"]
            grid, maps, size = (tuple(int(n) for n in file[k]) for k in ("grid", "maps", "size"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: is damaged; delete it, and it is made again.") from error
    whole = restored(torch.from_numpy(scores), Grid(*grid), (maps[0], maps[1]))
    return Example(photo, at_size(whole, truth.shape).numpy(), truth, (size[0], size[1]))


class Grid(NamedTuple):
    """Where the scores lie that a map is interpolated between: every `stride` pixels.

    The first lies on the first pixel (`corner` 1), or in the middle of the first `stride` pixels
    (0), as networks of these kinds interpolate (`align_corners` true and false).
    """

    stride: int
    corner: int


def compact(probabilities: torch.Tensor) -> tuple[torch.Tensor, Grid]:
    """Log probabilities, float16, on the coarsest grid that keeps labels and probabilities.

    A network that scores every eighth pixel and interpolates has said no more than those scores.
    Others lose labels on a coarser grid, or what is probable without winning, which shows. What the
    scores of a pixel have in common cancels in the softmax, so log probabilities do for logits.

    Args:
        probabilities: float32 (C, H, W).

    Returns:
        float16 (C, h, w), and its grid, of stride 32, 16, 8, 4, 2 or 1.
    """
    scores = probabilities.log().clamp_(min=FLOOR)
    labels = scores.argmax(0)
    height, width = labels.shape
    for stride in (32, 16, 8, 4, 2):
        for corner in (0, 1):
            grid = Grid(stride, corner)
            if min(height, width) <= 2 * stride:
                continue
            down, across = _knots(height, grid), _knots(width, grid)
            small = (down @ scores @ across.T).half()
            again = restored(small, grid, (height, width))
            if (again.argmax(0) == labels).float().mean() < KEPT:
                continue
            off = again.sub_(probabilities).abs_().amax(0)
            if (off <= CLOSE).float().mean() >= KEPT:
                return small, grid
    return scores.half(), Grid(1, 1)


def restored(scores: torch.Tensor, grid: Grid, size: tuple[int, int]) -> torch.Tensor:
    """Probabilities, float32 (C, H, W), of `compact` scores."""
    maps = scores.float()
    if grid.stride > 1:
        maps = _between(size[0], grid) @ maps @ _between(size[1], grid).T
    return maps.softmax(0)


def _places(length: int, grid: Grid) -> tuple[int, torch.Tensor]:
    """Number of grid points along a side, and where each pixel lies between them."""
    pixels = torch.arange(length, dtype=torch.float32)
    if grid.corner:
        return -(-(length - 1) // grid.stride) + 1, pixels / grid.stride
    count = -(-length // grid.stride)
    return count, ((pixels + 0.5) / grid.stride - 0.5).clamp(0, count - 1)


def _between(length: int, grid: Grid) -> torch.Tensor:
    """Weights of the grid points in each pixel, (length, points)."""
    count, place = _places(length, grid)
    first = place.floor().long().clamp(max=count - 2)
    part = (place - first)[:, None]
    weights = torch.zeros(length, count)
    return weights.scatter_(1, first[:, None], 1 - part).scatter_(1, first[:, None] + 1, part)


def _knots(length: int, grid: Grid) -> torch.Tensor:
    """Weights of the pixels in each grid point, (points, length).

    A point is on the line through two pixels of the same stretch between grid points, which need
    not reach it: interpolation has a kink there.
    """
    count, _ = _places(length, grid)
    stride = grid.stride
    weights = torch.zeros(count, length)
    for point in range(count):
        at = point * stride + (0 if grid.corner else (stride - 1) / 2)
        near = math.ceil(at)
        if near + 1 > length - 1:  # from the left
            near = min(math.floor(at), length - 1)
            far = near - 1
        else:
            far = near + 1
        slope = (at - near) / (far - near)
        weights[point, near] = 1 - slope
        weights[point, far] = slope
    return weights
