"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests import stores


@pytest.fixture
def make_store(tmp_path: Any) -> Callable[..., stores.Made]:
    """`make_store(runs=..., images=..., ...)`: a small consistent store in the test's own folder."""
    return lambda **wanted: stores.make_store(tmp_path / "store", **wanted)
