"""A cached answer of a network that a test makes up."""

from pathlib import Path

import numpy as np
import torch

from segment.tuning.cache import Example


def write_example(path: Path, example: Example) -> None:
    """Write what `Cache` would have kept, its scores on every pixel."""
    np.savez(
        path,
        scores=torch.from_numpy(example.probabilities).log().half().numpy(),
        grid=np.array([1, 1]),
        maps=np.array(example.truth.shape),
        photo=example.photo,
        truth=example.truth,
        size=np.array(example.size),
    )
