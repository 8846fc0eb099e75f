"""Where the real samples of real data sets lie; they are no part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def folder(name: str) -> Path:
    """The samples of one data set; skips the test where there are none."""
    root = Path(os.environ.get("KVSTORE_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / name).is_dir():
        pytest.skip(f"no real samples in {root / name}; set KVSTORE_TEST_DATA")
    return root / name
