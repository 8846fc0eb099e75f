"""Where the real samples of real data sets lie; they are no part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def root() -> Path:
    """The folder of all samples, which need not be there."""
    return Path(os.environ.get("KVSTORE_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def folder(name: str) -> Path:
    """The samples of one data set; skips the test where there are none."""
    if not (root() / name).is_dir():
        pytest.skip(f"no real samples in {root() / name}; set KVSTORE_TEST_DATA")
    return root() / name
