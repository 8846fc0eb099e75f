"""Names of models: tiny models, aliases, hub ids and folders; which family reads a model, and where it lies.

No family is known by name here: every recipe in ``ingest/models`` says which it reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from types import ModuleType

from kvstore import model_files, recipes
from kvstore.errors import ModelError, UnknownNameError

_KIND = "ingest/models"
#: What a tiny model's name ends with when its weights are drawn, not learnt.
_UNTRAINED = "-untrained"


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    `kind` is "tiny", "hub" or "folder"; `location` the tiny model, the hub id, or the folder's path.
    """

    name: str
    kind: str
    location: str


def families() -> dict[str, ModuleType]:
    """All model families by name of their recipe."""
    return {name: recipes.load(_KIND, name) for name in recipes.listing(_KIND)}


def aliases() -> dict[str, str]:
    """Short name -> hub id, of all families; a tiny model's name stands for itself."""
    found: dict[str, str] = {name: name for name in model_files.shipped()}
    for family in families().values():
        names = (family.TINY, f"{family.TINY}{_UNTRAINED}")
        found.update({**dict(zip(names, names, strict=True)), **family.ALIASES})
    return dict(sorted(found.items()))


def resolve(name: str) -> Source:
    """What a name stands for: a tiny model, an alias, a folder, or a hub id (owner/name).

    Raises `UnknownNameError` with the nearest name, `ModelError` for a path where there is no folder.
    """
    known = aliases()
    if name in known:
        return Source(name, "tiny" if known[name] == name else "hub", known[name])
    if Path(name).expanduser().is_dir():
        return Source(name, "folder", str(Path(name).expanduser().resolve()))
    if name.startswith(("/", "./", "../", "~", ".")) or name.count("/") > 1:
        raise ModelError(f"there is no model folder '{name}'")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return Source(name, "hub", name)
    raise UnknownNameError("model", name, known, "A folder or a hub id (owner/name) will do too.")


def nearest_tiny(location: str) -> str:
    """The tiny model of the family whose names are most like `location`."""

    def likeness(names: Iterable[str]) -> float:
        return max(SequenceMatcher(None, location.lower(), name.lower()).ratio() for name in names)

    family = max(
        families().values(), key=lambda each: likeness([each.TINY, *each.ALIASES, *each.ALIASES.values()])
    )
    return str(family.TINY)


def family_of(model_type: object, folder: Path) -> tuple[str, ModuleType]:
    """Name and recipe of the family that reads a model type; `folder` is named when none does."""
    known = {kind: (name, family) for name, family in families().items() for kind in family.MODEL_TYPES}
    if not isinstance(model_type, str) or model_type not in known:
        raise ModelError(
            f"no family reads model_type '{model_type}' of {folder / 'config.json'}; known: "
            f"{', '.join(sorted(known))}. A new family is one file in {_KIND}/"
        )
    return known[model_type]


def folder_of(source: Source, *, weights: bool, code: bool = False) -> Path:
    """The folder with a source's files on this machine: its settings, `weights` and `code` as asked."""
    if source.kind == "folder":
        return Path(source.location)
    if source.kind == "hub":
        tiny = nearest_tiny(source.location)
        return model_files.snapshot(source.location, tiny, weights=weights, code=code)
    shipped = model_files.shipped()
    if source.location in shipped:
        return shipped[source.location]
    untrained = {each.TINY: each for each in families().values()}
    return model_files.tiny_folder(untrained[source.location.removesuffix(_UNTRAINED)])
