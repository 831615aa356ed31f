"""Ctrl-C: one line about what it left, in place of a traceback."""

import sys
import traceback
from typing import NoReturn


def stopped(interrupt: KeyboardInterrupt, told: str) -> NoReturn:
    """Say what Ctrl-C left, and end the program."""
    traceback.clear_frames(interrupt.__traceback__)  # which keep progress bars in midline
    print(f"stopped: {told}")
    sys.exit(130)  # what a shell says of a program that Ctrl-C ended
