"""The same mean field as pydensecrf's, several times faster, by the package's own C++ (cpp/).

Both filter on permutohedral lattices and place pixels alike, so their labels are equal and their
probabilities differ by rounding. What makes this one fast: slicing, softmax and splatting are one
pass, so Q never travels to memory; a tile of 32x32 pixels goes through it at a time, sorted by
simplex, so lattice points stay in the first cache and are read once per simplex; and it uses the
widest vectors that the CPU has, and threads, without Python's lock.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

try:
    from segment.crf import _native
except ImportError:  # no compiler at installation: `auto` falls back on pydensecrf
    _native = None  # type: ignore[assignment]  # a module or None

if TYPE_CHECKING:
    from segment.crf.dense import DenseCRF

AVAILABLE = _native is not None


@functools.cache
def warn_missing() -> None:
    """Say once a process that photos take the slower way."""
    warnings.warn(MISSING, stacklevel=3)


MISSING = (
    "crf: the native backend was not built when `segment` was installed, so photos are refined by "
    "`pydensecrf`, which is several times slower; install a C++ compiler and then `segment` again."
)
# Sums over 2^31 pixels at this weight still fit into a float.
MOST_WEIGHT = 1e20


def mean_field(
    photo: NDArray[np.uint8], probabilities: NDArray[np.float32], crf: DenseCRF, threads: int
) -> NDArray[np.float32]:
    """Refine one photo.

    Args:
        photo: RGB, uint8 (H, W, 3), 8-bit levels.
        probabilities: After softmax, float32 (C, H, W).
        crf: Widths, weights, clip and iterations.
        threads: How many to use at most, 1 or more.

    Returns:
        Probabilities Q, float32 (C, H, W); each pixel sums to 1 within float32's rounding.

    Raises:
        ImportError: The extension was not built.
        ValueError: There are more than 1024 classes, or weights so large that sums overflow.
    """
    if _native is None:
        raise ImportError(
            "crf: the native backend was not built when `segment` was installed; install a C++ "
            "compiler and then `segment` again, or take the backend `pydensecrf`."
        )
    classes = len(probabilities)
    if classes > _native.MOST_CLASSES:
        raise ValueError(
            f"crf: the native backend takes at most {_native.MOST_CLASSES} classes, not {classes}; "
            f"take the backend `pydensecrf`."
        )
    matrix = None if crf.compatibility is None else np.array(crf.compatibility, np.float64)
    largest = 1.0 if matrix is None else max(1.0, np.abs(matrix).max())
    for name in ("position_weight", "bilateral_weight"):
        if getattr(crf, name) * largest > MOST_WEIGHT:
            costs = "" if largest == 1 else f" times {largest:.3g}, the largest of compatibility,"
            raise ValueError(
                f"crf: {name} is {getattr(crf, name)}, which{costs} overflows; lower "
                f"{'compatibility' if costs else 'it'} (papers use weights of 2 to 10)."
            )
    if crf.iterations == 0:
        clipped = np.clip(probabilities, crf.clip, 1)
        return clipped / clipped.sum(axis=0)
    return _native.mean_field(
        photo,
        probabilities,
        iterations=crf.iterations,
        clip=crf.clip,
        position_px=crf.position_width_px,
        position_weight=crf.position_weight,
        bilateral_px=crf.bilateral_width_px,
        bilateral_levels=crf.bilateral_width_levels,
        bilateral_weight=crf.bilateral_weight,
        normalization=crf.normalization,
        compatibility=matrix,
        threads=threads,
    )
