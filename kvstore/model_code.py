"""Python code in a model's folder: what asks for it, whether it may run, and what tells it from other code.

`auto_map` in a settings file names classes of the folder's own, for loaders of transformers. Where
transformers has the class itself, its own is taken, whatever `auto_map` says, and nothing of the folder runs.
Where it has not, the folder's code runs if the user trusts it (``--trust-remote-code``), and is a
`ModelError` otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kvstore.errors import ModelError


def runs(file: Path, settings: Mapping[str, object], loader: str, *, trusted: bool) -> bool:
    """Whether code of the folder makes what transformers has no class for; False where none is named.

    loader  the class of transformers that would load it: ``AutoTokenizer``

    Raises `ModelError`, which names `file` and the setting, for code that is not trusted, and for code of
    another repository, which would be fetched.
    """
    name = reference(settings, loader)
    if name is None:
        return False
    if "--" in name:
        raise ModelError(
            f"{file} asks for code of another repository (auto_map: {name}), which is not fetched; put it "
            "into the folder and name it there"
        )
    if not trusted:
        raise ModelError(
            f"{file} needs Python code of its folder (auto_map: {name}), which is not run; once you have "
            "read it and trust it, add --trust-remote-code"
        )
    return True


def reference(settings: Mapping[str, object], loader: str) -> str | None:
    """``module.Class`` that `auto_map` names for a loader, as ``tokenization.MyTokenizer``."""
    named = settings.get("auto_map")
    if isinstance(named, Mapping):
        named = named.get(loader)
    elif loader != "AutoTokenizer":  # a bare list, as an older format has it, is a tokenizer's
        return None
    if isinstance(named, list):  # the slow one and the fast one
        named = next((name for name in reversed(named) if name), None)
    return named if isinstance(named, str) else None


def digest(folder: Path) -> str:
    """sha256 over names and bytes of the Python files of a folder, hex; "" where there are none."""
    found = hashlib.sha256()
    files = sorted(path for path in folder.rglob("*.py") if path.is_file())
    for path in files:
        content = path.read_bytes()
        found.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return found.hexdigest() if files else ""
