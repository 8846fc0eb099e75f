"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvstore import cli
from tests import stores


@pytest.fixture
def make_store(tmp_path: Any) -> Callable[..., stores.Made]:
    """`make_store(runs=..., images=..., ...)`: a small consistent store in the test's own folder."""
    return lambda **wanted: stores.make_store(tmp_path / "store", **wanted)


@pytest.fixture
def run(capfd: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """`run("sql", ...)` in this process: exit code, stdout, stderr."""
    for name in ("KVSTORE_STORE", "KVSTORE_RECIPES", "KVSTORE_DEBUG"):
        monkeypatch.setenv(name, "")  # so that what a command sets goes again, too
        monkeypatch.delenv(name)

    def call(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(arg) for arg in args])
        said = capfd.readouterr()
        return int(caught.value.code or 0), said.out, said.err

    return call
