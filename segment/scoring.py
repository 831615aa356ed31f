"""One photo's probabilities -> labels, refined labels, counts, label PNGs.

Pure functions of one photo, run by workers while the network goes on with the next: the CRF and
the distance maps of the boundary scores may take longer than the network itself.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segment.crf import DenseCRF, resize_maps, resized_photo
from segment.labels import Labels, labels_of, with_kept
from segment.metrics import PhotoCounts, count_photo


def at_most(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Probability maps (C, h, w), averaged down to `size` where they are larger."""
    if maps.shape[1] <= size[0] and maps.shape[2] <= size[1]:
        return maps
    return resize_maps(maps, size)


def at_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Probability maps (C, h, w) at another size, each pixel's sum 1."""
    if maps.shape[1:] == size:
        return maps
    maps = resize_maps(maps, size)
    return maps.div_(maps.sum(0))


def refine(
    image: NDArray[np.uint8], maps: NDArray[np.float32], crf: DenseCRF
) -> tuple[NDArray[np.float32], float]:
    """The CRF's probabilities at its working size, and its seconds.

    The photo itself guides at up to `crf.max_side`, however small the network saw it: that is
    where the sharper edges come from.

    Args:
        image: The photo, uint8 RGB (H, W, 3).
        maps: Probabilities, float32 (C, h, w), of any size.
        crf: For photos of this size.
    """
    height, width = image.shape[:2]
    size = crf.working_size(height, width)
    photo = resized_photo(image, size)
    probabilities = at_size(torch.from_numpy(maps), size)
    start = time.perf_counter()
    refined = crf.at_working_size(height, width)(photo, probabilities)
    return refined.numpy(), time.perf_counter() - start


@dataclass(frozen=True)
class Job:
    """A photo to score.

    Args:
        image: uint8 RGB (H, W, 3) at the photo's own size.
        truth: uint8 (H, W), 255 where unlabelled.
        ids: The network's own labels, uint8 (H, W).
        confidence: The probability of each, float32 (H, W).
        maps: Probabilities for the CRF, float32 (C, h, w); None scores the raw labels alone.
        image_id: Its id in the annotation file.
        file_name: Its name there.
        num_classes: Number of classes C.
        crf: The refinement, or None.
        labels: Folder for `raw/` and `refined/` label PNGs.
        png: Name of those PNGs.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    maps: NDArray[np.float32] | None
    image_id: int
    file_name: str
    num_classes: int
    crf: DenseCRF | None
    labels: Path
    png: str


@dataclass(frozen=True)
class Scored:
    """What a job found out: counts raw and refined, and how long the CRF took."""

    image_id: int
    file_name: str
    raw: PhotoCounts
    refined: PhotoCounts | None
    crf_seconds: float | None


def score(job: Job) -> Scored:
    """Count one photo raw and refined, and write its label PNGs."""
    raw = _count(job, job.ids, job.confidence, "raw")
    if job.crf is None or job.maps is None:
        return Scored(job.image_id, job.file_name, raw, None, None)
    refined, seconds = refine(job.image, job.maps, job.crf)
    size = job.truth.shape[0], job.truth.shape[1]
    own = Labels(torch.from_numpy(job.ids), torch.from_numpy(job.confidence))
    found = labels_of(torch.from_numpy(refined), size)
    ids, confidence = with_kept(own, found, job.crf.keep_classes)
    counts = _count(job, ids.numpy(), confidence.numpy(), "refined")
    return Scored(job.image_id, job.file_name, raw, counts, seconds)


def _count(
    job: Job, ids: NDArray[np.uint8], confidence: NDArray[np.float32], kind: str
) -> PhotoCounts:
    write_labels(job.labels / kind / job.png, ids)
    return count_photo(job.truth, ids, confidence, job.num_classes)


def write_labels(path: Path, ids: NDArray[np.uint8]) -> None:
    """Train ids as a grey 8-bit PNG.

    Raises:
        ValueError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", ids)
    assert done
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise ValueError(f"{path}: cannot write the labels ({error.strerror}).") from error


def cores() -> int:
    """Cores that this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return available or 1


def default_workers(processes: int = 1) -> int:
    """Half of this machine's share of cores: the network needs the rest."""
    return max(1, cores() // (2 * processes))
