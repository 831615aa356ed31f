"""Seeds that follow from what they are for, so that a resumed run draws the same numbers."""

import os

import numpy as np


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several whole numbers, such as (seed, epoch, photo).

    numpy's SeedSequence spreads neighbouring inputs far apart, which `seed + epoch` would not.
    """
    state = np.random.SeedSequence([part % 2**64 for part in parts]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def run_seed() -> int:
    """The run's `seed_everything`, which Lightning keeps in the environment for all processes."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))
