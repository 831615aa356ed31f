"""Maps at other sizes, and results on the device that they came from."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Array = np.ndarray | Tensor


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (C, h, w) at another size: averaged over areas to shrink, bilinear to grow."""
    shrinks = size[0] <= maps.shape[1] and size[1] <= maps.shape[2]
    if shrinks:
        return F.interpolate(maps[None], size, mode="area")[0]
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


def resized(maps: NDArray, size: tuple[int, int]) -> NDArray[np.float32]:
    """`resize_maps` of an array."""
    return resize_maps(torch.from_numpy(np.require(maps, np.float32, ["C", "W"])), size).numpy()


def resized_photo(photo: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A photo (H, W, 3) at another size, as `resize_maps`; itself where it has that size."""
    if photo.shape[:2] == size:
        return photo
    return resized(photo.transpose(2, 0, 1), size).round().astype(np.uint8).transpose(1, 2, 0)


def restorer(probabilities: Array) -> Callable[[NDArray[np.float32]], Tensor]:
    """Puts a result into the shape and on the device of the input, without keeping the input."""
    shape, device = tuple(probabilities.shape), device_of(probabilities)
    return lambda refined: torch.from_numpy(refined).reshape(shape).to(device)


def device_of(array: Array) -> torch.device:
    """Where an array is."""
    return array.device if isinstance(array, Tensor) else torch.device("cpu")
