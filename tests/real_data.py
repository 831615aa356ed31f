"""Where the real photos are that some tests take, and what skips without them."""

import os
from pathlib import Path

import pytest

DATA = Path(
    os.environ.get("SEGMENT_TEST_DATA", Path(__file__).resolve().parents[1] / "../shared/data")
)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="shared test data is absent")
