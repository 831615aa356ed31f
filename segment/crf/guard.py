"""What a photo, its probabilities and settings must be: pydensecrf takes anything."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from segment.crf.dense import DenseCRF


def check(
    image: np.ndarray | Tensor, probabilities: np.ndarray | Tensor
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Refuse what the CRF would misread; bring the rest to one layout, on the CPU.

    Args:
        image: RGB, uint8 (H, W, 3) or (3, H, W), or N of them; where both fit, the first is meant.
        probabilities: Any float type, (C, H, W) or (N, C, H, W).

    Returns:
        Photos, uint8 (N, H, W, 3), and probabilities, float32 (N, C, H, W).

    Raises:
        ValueError: One of them is not that, or they do not fit each other.
    """
    maps = check_probabilities(probabilities)
    return _check_image(image, maps, batched=probabilities.ndim == 4), maps


def check_probabilities(probabilities: np.ndarray | Tensor) -> NDArray[np.float32]:
    """Float32 (N, C, H, W) of what `check` takes.

    Raises:
        ValueError: It is something else.
    """
    name = _dtype(probabilities, "the probabilities")
    if name not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(
            f"The CRF needs class probabilities as floats, got {name}; apply softmax to the logits "
            f"rather than argmax."
        )
    shape = tuple(probabilities.shape)
    if len(shape) not in (3, 4) or 0 in shape:
        raise ValueError(
            f"The CRF needs probabilities of shape (C, H, W) or (N, C, H, W), none of them 0, got "
            f"{shape}; add the missing axis or drop the empty photo."
        )
    if isinstance(probabilities, Tensor):  # torch first: numpy has no bfloat16
        maps = probabilities.detach().to("cpu", torch.float32).numpy()
    else:
        maps = probabilities.astype(np.float32, copy=False)
    maps = maps.reshape(-1, *shape[-3:])
    low, high = float(maps.min()), float(maps.max())  # both are NaN if any value is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            "The probabilities hold NaN or infinity, which would spread over the whole photo; find "
            "where the network's logits stop being finite."
        )
    if low < 0:
        raise ValueError(
            f"The probabilities go down to {low:.3g}, so they look like logits; apply softmax over "
            f"the classes."
        )
    off = float(np.abs(maps.sum(axis=1) - 1).max())
    # Softmax rounds each probability by eps/2 of itself, resizing once more. 61 classes measured:
    # 2.4e-4 in float16, 1.8e-3 in bfloat16. Sums in float32 need the floor.
    allowed = max(1e-4, {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(name, 0.0))
    if off > allowed:
        raise ValueError(
            f"The probabilities of a pixel must sum to 1, but one is off by {off:.3g}, more than "
            f"{name} rounds; apply softmax over the classes, or divide by the sum."
        )
    return maps


def _check_image(
    image: np.ndarray | Tensor, maps: NDArray[np.float32], batched: bool
) -> NDArray[np.uint8]:
    name = _dtype(image, "the photo")
    if "float" in name:
        raise ValueError(
            f"The CRF compares 8-bit grey levels, but the photo is {name}, as after normalization; "
            f"pass the uint8 photo from before it (casting back would give noise)."
        )
    if name != "uint8":
        raise ValueError(
            f"The CRF compares 8-bit grey levels, but the photo is {name}; pass it as uint8, 0 to "
            f"255."
        )
    shape = tuple(image.shape)
    if len(shape) != 3 + batched:
        wanted = "(N, H, W, 3) or (N, 3, H, W)" if batched else "(H, W, 3) or (3, H, W)"
        raise ValueError(
            f"With these probabilities the photo must have 3 channels and shape {wanted}, got "
            f"{shape}; convert a grey photo to RGB, and give both a batch axis or neither."
        )
    n, (height, width) = len(maps), maps.shape[-2:]
    if batched and shape[0] != n:
        raise ValueError(
            f"There are {shape[0]} photos but {n} probability maps; pass one photo for each."
        )
    photos = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    photos = photos.reshape(-1, *shape[-3:])
    if shape[-3:] == (height, width, 3):
        return photos
    if shape[-3:] == (3, height, width):
        return photos.transpose(0, 2, 3, 1)
    if shape[-3:] in ((width, height, 3), (3, width, height)):
        raise ValueError(
            f"Height and width are swapped: the photo is {width}x{height} (H x W), the "
            f"probabilities {height}x{width}; transpose one of them."
        )
    if 3 not in (shape[-3], shape[-1]):
        raise ValueError(
            f"The photo must have 3 channels, first or last, got shape {shape}; convert it to RGB."
        )
    size = shape[-3:-1] if shape[-1] == 3 else shape[-2:]
    raise ValueError(
        f"The photo is {size[0]}x{size[1]} (H x W), the probabilities {height}x{width}; resize one "
        f"to the other."
    )


def _dtype(array: np.ndarray | Tensor, what: str) -> str:
    if not isinstance(array, np.ndarray | Tensor):
        raise ValueError(
            f"The CRF takes {what} as a numpy array or a tensor, got {type(array).__name__}; "
            f"convert it with np.asarray."
        )
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"The CRF takes {what} without a mask; give `.filled()` of the array.")
    if isinstance(array, Tensor):
        if array.is_meta:
            raise ValueError(f"The CRF needs values, but {what} is a meta tensor; compute it.")
        if array.layout is not torch.strided or array.is_nested:
            raise ValueError(f"The CRF takes {what} as a dense tensor; call `.to_dense()` on it.")
        return str(array.dtype).removeprefix("torch.")
    return array.dtype.name  # str() would spell out a foreign byte order


def check_settings(crf: "DenseCRF", choices: Mapping[str, Sequence[str]]) -> None:
    """Refuse a field that is out of its range.

    Args:
        crf: Whose fields.
        choices: By field, the words that it may be.

    Raises:
        ValueError: Names the field, what it is and what it may be.
    """

    def require(field: str, ok: bool, remedy: str) -> None:
        if not ok:
            raise ValueError(f"crf: {field} is {getattr(crf, field)!r}; make it {remedy}.")

    ok = whole(crf.iterations, 0) and crf.iterations <= MOST_ITERATIONS
    require("iterations", ok, f"a whole number, 0 or more, at most {MOST_ITERATIONS}")
    for name in ("position_width_px", "bilateral_width_px", "bilateral_width_levels"):
        width = getattr(crf, name)
        require(name, finite(width) and width >= LEAST_WIDTH, "a finite number from 0.0001 on")
    for name in ("position_weight", "bilateral_weight"):
        weight = getattr(crf, name)
        require(name, finite(weight) and weight >= 0, "finite and 0 or more (0 switches it off)")
    for name, allowed in choices.items():
        require(name, getattr(crf, name) in allowed, f"one of {', '.join(allowed)}")
    # Below 1e-30 a float32 underflows; -log of it would be infinite.
    require("clip", finite(crf.clip) and 1e-30 <= crf.clip < 1, "in [1e-30, 1)")
    ok = finite(crf.leave_out_below) and 0 <= crf.leave_out_below <= 1
    require("leave_out_below", ok, "a probability, 0 to 1 (0 leaves no class out)")
    for name in ("max_side", "reference_size"):
        size = getattr(crf, name)
        ok = size is None or whole(size, 1)
        require(name, ok, "a whole number of pixels, 1 or more, or null")
    kept = crf.keep_classes
    ok = kept is None or (isinstance(kept, list | tuple) and all(whole(one, 0) for one in kept))
    require("keep_classes", ok, "a list of train ids, or null")
    if crf.compatibility is not None:
        if isinstance(crf.compatibility, np.ndarray | Tensor):
            raise ValueError(
                f"crf: compatibility is a {type(crf.compatibility).__name__}; make it a list of "
                f"lists with `.tolist()`, as a YAML file holds it."
            )
        ok = symmetric(crf.compatibility)
        require("compatibility", ok, "a symmetric C x C matrix of finite numbers, none beyond 1e20")


def scaled_widths(crf: "DenseCRF", factor: float) -> list[float]:
    """Both widths in pixels, position and bilateral, for a photo resized by a factor.

    Raises:
        ValueError: One is out of its range at that size.
    """
    widths = []
    for name in ("position_width_px", "bilateral_width_px"):
        width = getattr(crf, name) * factor
        if not LEAST_WIDTH <= width < math.inf:
            raise ValueError(
                f"crf: {name} is {getattr(crf, name)}, which for this photo becomes {width:.3g} "
                f"pixels by reference_size {crf.reference_size} and max_side {crf.max_side}; give "
                f"those as a photo's longer side in pixels."
            )
        widths.append(width)
    return widths


def check_batch(photos: Tensor, scores: Tensor, classes: int) -> None:
    """Refuse a batch that `CRFLayer` would misread.

    Args:
        photos: To be uint8 (N, 3, H, W).
        scores: To be float (N, C, H, W).
        classes: C.

    Raises:
        ValueError: One is not that, or they do not fit each other.
    """
    if photos.dtype != torch.uint8:
        raise ValueError(
            f"The CRF compares 8-bit grey levels, but the photos are {photos.dtype}; pass them as "
            f"uint8, before normalization."
        )
    n, c, *size = scores.shape if scores.ndim == 4 else (0, 0)
    if c != classes or photos.shape != (n, 3, *size):
        raise ValueError(
            f"The CRF of {classes} classes takes photos (N, 3, H, W) with scores (N, {classes}, H, "
            f"W), got {tuple(photos.shape)} with {tuple(scores.shape)}; give one score map per "
            f"class and photo, at the photo's size."
        )


def whole(value: object, least: int) -> bool:
    """Whether a setting is a whole number, at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def finite(value: object) -> bool:
    """Whether a setting is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


MOST_COST = 1e20  # sums over all pixels still fit into a float
MOST_ITERATIONS = 1000  # the papers' fields settle within 10
LEAST_WIDTH = 1e-4  # the lattice counts in widths, and its counts must fit into 32 bits


def symmetric(rows: list[list[float]]) -> bool:
    """Whether rows make a symmetric matrix of numbers up to `MOST_COST`."""
    if not isinstance(rows, list | tuple):
        return False
    square = all(isinstance(row, list | tuple) and len(row) == len(rows) for row in rows)
    return square and all(
        finite(rows[a][b]) and abs(rows[a][b]) <= MOST_COST and rows[a][b] == rows[b][a]
        for a in range(len(rows))
        for b in range(len(rows))
    )
