import numpy as np
from numpy.typing import NDArray

MOST_CLASSES: int

def mean_field(
    photo: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    *,
    iterations: int,
    clip: float,
    position_px: float,
    position_weight: float,
    bilateral_px: float,
    bilateral_levels: float,
    bilateral_weight: float,
    normalization: str,
    compatibility: NDArray[np.float64] | None,
    threads: int,
    instruction_set: str = "",
) -> NDArray[np.float32]: ...
def instruction_sets() -> list[str]: ...
