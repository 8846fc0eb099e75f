"""Data sets: found by their recipe's file name, loaded, identified; files read without leaving the root."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from kvstore import recipes
from kvstore.contracts import Dataset, ImageRecord
from kvstore.errors import DatasetError, ImageError, UnknownNameError, UsageError
from kvstore.outside import local_path

#: Larger files are refused unread (`too-large`): no image of `images.MAX_PIXELS` pixels needs as much.
MAX_BYTES = 2**30

T_co = TypeVar("T_co", covariant=True)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    _Path = Path
else:
    _Path = type(Path())  # Python 3.11 has no other way to a path of one's own


class Linked(_Path):
    """A folder whose links may lead out of it, as ``--follow-links`` asks: `read_file` follows them.

    So is each path that is made from it with ``/``, ``parent`` and the like.
    """

    __slots__ = ()


class Lazy(Sequence[T_co], Generic[T_co]):
    """A sequence whose items are made when asked for: ``make(0)`` to ``make(length - 1)``."""

    def __init__(self, length: int, make: Callable[[int], T_co]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        picked = range(self._length)[index]
        if isinstance(picked, range):
            return Lazy(len(picked), lambda i: self._make(picked[i]))
        return self._make(picked)

    def __iter__(self) -> Iterator[T_co]:
        return map(self._make, range(self._length))


class First(Lazy[T_co]):
    """The first `limit` items of `whole`, which stays at hand: a limit does not change what a data set is."""

    def __init__(self, whole: Sequence[T_co], limit: int) -> None:
        super().__init__(min(limit, len(whole)), whole.__getitem__)
        self.whole = whole


def load(
    name: str,
    root: Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    *,
    annotations: Path | None = None,
    images: Path | None = None,
    follow_links: bool = False,
) -> Dataset:
    """The data set `name`, as ``ingest/datasets/<name>.py`` reads it from `root`.

    root    default ``$KVSTORE_DATA/<name>`` if it is there, then ``./data/<name>``
    split   default the recipe's first
    limit   only the first so many images; `pairs`, `identity` and the fingerprint stay those of the whole
    annotations, images   a tool's export instead of a root and a split: the file, and where the images lie
    follow_links   links in these folders may lead out of them: the recipe is given each path as `Linked`

    Raises `UnknownNameError` for the data set or split, `DatasetError` when it is not there or is malformed,
    `UsageError` for a limit below 1, and for annotations where the recipe takes none.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1; got {limit}")
    recipe = _recipe(name)
    if split is not None and split not in recipe.SPLITS:
        raise UnknownNameError(f"split of {name}", split, recipe.SPLITS)
    path_of = Linked if follow_links else Path
    if annotations is not None or images is not None:
        given = _export(name, recipe, root or split, annotations, images)
        dataset = recipe.load(None, None, **{key: path_of(path) for key, path in given.items()})
    else:
        if split is None and recipe.SPLITS:
            split = recipe.SPLITS[0]
        folder = local_path(root).expanduser() if root else default_root(name)
        dataset = recipe.load(path_of(folder), split)
    if not isinstance(dataset, Dataset):
        raise DatasetError(
            f"{recipe.__file__}: load returned a {type(dataset).__name__}, not a Dataset; mend it"
        )
    if limit is not None:
        dataset = dataclasses.replace(dataset, images=First(dataset.images, limit))
    return dataset


def _recipe(name: str) -> ModuleType:
    """The recipe of that name; `DatasetError` where it lacks what a recipe needs."""
    recipe = recipes.load("ingest/datasets", name)
    for needed in ("SPLITS", "load"):
        if not hasattr(recipe, needed):
            raise DatasetError(f"{recipe.__file__} has no {needed}, which a data set's recipe needs; add it")
    return recipe


def _export(
    name: str, recipe: ModuleType, other: object, annotations: Path | None, images: Path | None
) -> dict[str, Path]:
    """A tool's export as a recipe takes it; `UsageError` where it takes none, or is asked for more."""
    if "annotations" not in inspect.signature(recipe.load).parameters:
        raise UsageError(f"{name} takes no --annotations and --images; COCO files: kvstore ingest coco")
    if annotations is None:
        raise UsageError("--images goes with --annotations FILE, which says what is in the images")
    if other:
        raise UsageError("--root and --split do not go with --annotations: the file is the whole data set")
    given = {"annotations": annotations, "images": images}
    return {key: local_path(path).expanduser() for key, path in given.items() if path is not None}


def again(con: DuckDBPyConnection, dataset_id: str) -> Dataset:
    """A data set that a catalog knows, loaded from where it was ingested; raises what `load` does."""
    name, split, root, annotations, links = con.execute(
        "select name, split, root, annotations, coalesce(follow_links, false) from dataset"
        " where dataset_id = $dataset",
        {"dataset": dataset_id},
    ).fetchall()[0]
    folder = Path(root) if root else None
    if annotations:
        return load(name, annotations=Path(annotations), images=folder, follow_links=links)
    return load(name, folder, split or None, follow_links=links)


def default_root(name: str) -> Path:
    """Where a data set is looked for without ``--root``: ``$KVSTORE_DATA/<name>``, then ``./data/<name>``."""
    shared, here = os.environ.get("KVSTORE_DATA"), Path("data", name)
    if not shared:
        return here
    first = local_path(shared).expanduser() / name
    return here if here.is_dir() and not first.is_dir() else first


def all_images(dataset: Dataset) -> Sequence[ImageRecord]:
    """The images that the data set names, a limit left aside."""
    return dataset.images.whole if isinstance(dataset.images, First) else dataset.images


def fingerprint(dataset: Dataset) -> str:
    """What identifies a data set: sha256, hex, over name, split, identity, image names in order, and sources.

    Each part goes in with its length, so that no two data sets give the same bytes. Images' own bytes are
    not read: an image is identified by its own sha256. Raises `DatasetError` when a source cannot be read.
    """
    digest = hashlib.sha256()

    def add(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "little") + part)

    identity = json.dumps(dataset.identity, sort_keys=True, default=str)
    images = all_images(dataset)
    for text in (dataset.name, dataset.split, identity, str(len(images))):
        add(text.encode())
    for record in images:
        add(record.name.encode())
    for source in dataset.sources:
        add(_file_digest(source))
    return digest.hexdigest()


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error


def storable(name: str) -> str:
    """A file name as UTF-8 text, different names staying different.

    Bytes that are not UTF-8 become ``\\xff``, and a backslash two: ``a\\b`` and the bytes it might stand for
    never meet. All else stays as it is, line breaks and quotes included.
    """
    text = name.replace("\\", "\\\\").replace("\0", "\\x00")
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate, as JSON can hold
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")


def sound(text: str) -> str:
    """A text as UTF-8 holds it: half a surrogate pair, as a cut emoji leaves in JSON, is written out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def text_lines(path: Path) -> list[str]:
    """Lines of a text file, spaces around them and blank ones left out.

    The text is UTF-8, with or without a byte order mark; `DatasetError` for any other, and for no file.
    """
    return [line for line in _stripped(path) if line]


def numbered_lines(path: Path) -> list[str]:
    """The same of a file in which a line's place counts: a blank line before the last is a `DatasetError`."""
    found = _stripped(path)
    while found and not found[-1]:
        found.pop()
    if "" in found:
        raise DatasetError(f"{path}: line {found.index('') + 1} is blank, but the i-th line stands for i")
    return found


def _stripped(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is no UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error


def read_file(root: Path, name: str) -> Callable[[], bytes]:
    """A reader of the file `name` in the folder `root`, for `ImageRecord.read`; it can be pickled.

    Making it never fails. Reading raises `ImageError`: ``unsafe-path`` for a name that leaves `root`
    (absolute, with ``..``, or through a symbolic link unless `root` is `Linked`; `root` itself may be a
    link), ``missing``, ``too-large`` over `MAX_BYTES`, ``unreadable``.
    """
    return partial(_read, root, name)


def _read(root: Path, name: str) -> bytes:
    try:
        # Missing files can be many, and to resolve one takes ten times as long as to look for it.
        if ".." not in name and not name.startswith("/"):
            os.lstat(f"{root}/{name}")
        path = _inside(root, name)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
            raise ImageError("unreadable", f"{name!r} is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError(
                "too-large", f"{name!r} has {status.st_size} bytes; at most {MAX_BYTES} are read"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError("missing", f"no file {name!r} in {root}") from error
    except (OSError, ValueError, RuntimeError) as error:  # NUL, lone surrogate; a loop of links
        raise ImageError("unreadable", f"{name!r} in {root}: {error}") from error


def _inside(root: Path, name: str) -> Path:
    """The real path of `name` in `root`; `ImageError` if it lies elsewhere."""
    real = root.resolve()
    path = (real / name).resolve()
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ImageError("unsafe-path", f"{name!r} leaves the folder {root}, which no name may")
    if not path.is_relative_to(real) and not isinstance(root, Linked):
        raise ImageError("unsafe-path", f"{name!r} is a link out of {root}; --follow-links reads it")
    return path
