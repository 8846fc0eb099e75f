"""A model's files: the cache of tiny models, hub snapshots, what a folder must hold, and its revision."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from kvstore import model_code
from kvstore.errors import ModelError
from kvstore.outside import reason, told

_SETTINGS = ["*.json", "*.jinja", "*.txt", "*.model"]
_WEIGHTS = ["*.safetensors"]
_PICKLED = ["pytorch_model*.bin"]  # where a model was never published as safetensors: CLIP's at 336 pixels


def cache_folder() -> Path:
    """Where kvstore keeps what it can make again: `$KVSTORE_CACHE`, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("KVSTORE_CACHE") or platformdirs.user_cache_dir("kvstore"))


def shipped() -> dict[str, Path]:
    """The trained tiny models that come with the package: their folders by name.

    A folder of the user's recipes hides the shipped one of the same name; a folder under way is hidden.
    """
    from kvstore import recipes

    roots = (Path(root, "ingest/tiny") for root in reversed(recipes.__path__))
    return {path.parent.name: path.parent for root in roots for path in root.glob("[!_.]*/config.json")}


def tiny_folder(family: ModuleType) -> Path:
    """The folder of a family's untrained tiny model, made on first use.

    It is keyed by the code that makes it, and appears whole or not at all; of two processes that make it at
    once, one's folder stays.
    """
    folder = cache_folder() / "tiny" / f"{family.TINY}-untrained-{_tiny_key(family)}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{family.TINY}-", dir=folder.parent))
    except OSError as error:
        raise ModelError(
            f"cannot write the model cache {folder.parent}: {error.strerror}; set KVSTORE_CACHE to a folder"
        ) from error
    try:
        with quiet(), hushed():
            family.tiny(aside)
        with contextlib.suppress(OSError):  # another process was first: its folder holds the same
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _tiny_key(family: ModuleType) -> str:
    """sha256 of what makes a tiny model: its recipe, the code recipes share, transformers' version."""
    from importlib.metadata import version

    from kvstore import tiny_models

    digest = hashlib.sha256(version("transformers").encode())
    for module in (family, tiny_models):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars of transformers for work that takes a second."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Hide the warnings of transformers: of every SigLIP it warns of defaults that no file asks for."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def snapshot(hub_id: str, tiny: str, *, weights: bool, code: bool = False) -> Path:
    """Download (or find in the hub's cache) a snapshot; `tiny` is named when the hub cannot be reached.

    Its Python files come along only where `code` asks for them.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        settings = _SETTINGS + (["*.py"] if code else [])
        folder = Path(snapshot_download(hub_id, allow_patterns=settings + (_WEIGHTS if weights else [])))
        if weights and not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(hub_id, allow_patterns=settings + _PICKLED))
        return folder
    except GatedRepoError:
        fault = f"'{hub_id}' asks for its licence to be accepted on the hub, and for `hf auth login`"
    except RepositoryNotFoundError:
        fault = f"the hub has no model '{hub_id}'"
    except LocalEntryNotFoundError:
        fault = f"the model hub cannot be reached, and '{hub_id}' is not in its cache"
    except (HfHubHTTPError, OSError) as error:
        fault = f"'{hub_id}' cannot be downloaded ({reason(error, 120)})"
    raise ModelError(f"{fault}; a tiny model needs no hub: {command_with(tiny)}")


def command_with(model: str) -> str:
    """The command that this process was started with, another model put in."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    if words[0] != "kvstore":
        return f"--model {model}"
    for place, word in enumerate(words):
        if word == "--model" and place + 1 < len(words):
            words[place + 1] = model
            break
        if word.startswith("--model="):
            words[place] = f"--model={model}"
            break
    else:
        words += ["--model", model]
    return shlex.join(words)


def read_config(folder: Path) -> dict[str, object]:
    """A folder's config.json, as it stands there."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"'{folder}' is no model: it has no config.json")
    return _json(path)


def check_settings(folder: Path, *, text: bool = True) -> None:
    """Raise `ModelError` that names the first missing file of image processor or, with `text`, tokenizer.

    An image processor may be kept in processor_config.json, a tokenizer in the files of an older kind.
    """
    settings = folder / "processor_config.json"
    inner = settings.is_file() and "image_processor" in _json(settings)
    wanted = {"preprocessor_config.json": inner}
    if text:
        older = any(any(folder.glob(name)) for name in ("vocab.json", "vocab.txt", "*.model"))
        wanted |= {"tokenizer.json": older, "tokenizer_config.json": False}
    for name, elsewhere in wanted.items():
        if not elsewhere and not (folder / name).is_file():
            raise ModelError(f"'{folder}' lacks {name}; download it again")
    for name in ("tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            _json(folder / name)
    # it would be applied where the library peft is installed, and only there
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"'{folder}' holds an adapter (adapter_config.json), which is not applied; merge it into the "
            "weights (merge_and_unload() of peft) and save these without it"
        )
    _check_links(folder)


def _check_links(folder: Path) -> None:
    """Raise `ModelError` for a settings file that is a link out of the folder, or out of the hub's cache."""
    home = (folder.parent.parent if _is_snapshot(folder) else folder).resolve()
    for path in sorted(path for pattern in _SETTINGS for path in folder.glob(pattern)):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise ModelError(
                f"{path} is a link out of the model's folder, which is not followed; copy the file"
            )


def check_weights(folder: Path) -> None:
    """Raise `ModelError` that names the first weight file that is missing or damaged."""
    for path in _weight_files(folder):
        if not path.is_file():
            raise ModelError(f"'{folder}' lacks the weight file {path.name}; download it again")
        with told(f"the weight file {path} is damaged", "download it again", ModelError):
            _check_weight_file(path)


def _check_weight_file(path: Path) -> None:
    """Raise for a file that is no weights, or a part of one."""
    from safetensors import safe_open

    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is a pointer of git-lfs, not the weights; fetch them with `git lfs pull`")
    if path.suffix == ".safetensors":
        with safe_open(path, framework="numpy"):
            pass
    elif not zipfile.is_zipfile(path) and not start.startswith(b"\x80\x02"):  # torch's formats, new and old
        raise ValueError("it is no file of torch, or a part of one")


def weight_count(folder: Path) -> int | None:
    """How many numbers the weight files hold, by their headers; None where they are pickled."""
    from safetensors import safe_open

    if is_pickled(folder):
        return None
    count = 0
    for path in _weight_files(folder):
        with safe_open(path, framework="numpy") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


def _weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, as its index lists them."""
    name = "pytorch_model.bin" if is_pickled(folder) else "model.safetensors"
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return [folder / name]
    shards = _json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(n, str) for n in shards.values()):
        raise ModelError(f"{index} lists no weights; download it again")
    if strays := [name for name in shards.values() if Path(name).name != name]:
        raise ModelError(f"{index} names weights in other folders ({min(strays)}); download it again")
    return [folder / name for name in sorted(set(shards.values()))]


def is_pickled(folder: Path) -> bool:
    """The weights are there, but not as safetensors."""
    return any(folder.glob("pytorch_model*.bin*")) and not any(folder.glob("*.safetensors*"))


def _json(path: Path) -> dict[str, object]:
    """A JSON object of a file; `ModelError` names the file that is none."""
    with told(f"{path} cannot be read", "download it again", ModelError):
        value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object")
    return value


def chat_template(folder: Path) -> str | None:
    """The processor's chat template, in the order in which processors look for it; None: the tokenizer's."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        with told(f"{path} cannot be read", "save it as UTF-8 text", ModelError):
            return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json"):
        found = _json(folder / name).get("chat_template") if (folder / name).is_file() else None
        if isinstance(found, dict):
            found = found.get("default")
        if isinstance(found, str):
            return found
    return None


def image_processor_settings(folder: Path) -> tuple[Path, dict[str, object]]:
    """The file with the image processor's settings, and these; where transformers 5 saves them first."""
    path = folder / "processor_config.json"
    nested = _json(path).get("image_processor") if path.is_file() else None
    if nested is not None:
        if not isinstance(nested, dict):
            raise ModelError(f"image_processor of {path} is {nested!r}, and has to be an object")
        return path, nested
    path = folder / "preprocessor_config.json"
    return path, _json(path)


def image_processor_type(settings: dict[str, object]) -> str:
    """Class of an image processor, the name of a backend cut off; "" where there is none."""
    # CLIP's own folders have the name of transformers 4.1
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    name = str(kind).replace("FeatureExtractor", "ImageProcessor")
    return name.removesuffix("Fast").removesuffix("Pil")


def tokenizer_settings(folder: Path) -> tuple[Path, dict[str, object]]:
    """The file with the tokenizer's settings, and these; none where it is not there."""
    path = folder / "tokenizer_config.json"
    settings = _json(path) if path.is_file() else {}
    versions = settings.get("fast_tokenizer_files") or []
    if not isinstance(versions, list) or any(Path(str(name)).name != name for name in versions):
        raise ModelError(
            f"fast_tokenizer_files of {path} is {versions!r}, and has to be a list of file names"
        )
    return path, settings


def processor_settings(folder: Path) -> dict[str, object]:
    """The arguments of the processor's class that processor_config.json holds."""
    path = folder / "processor_config.json"
    found = _json(path) if path.is_file() else {}
    parts = {
        "processor_class",
        "auto_map",
        "chat_template",
        "image_processor",
        "video_processor",
        "tokenizer",
    }
    return {name: value for name, value in found.items() if name not in parts}


def _is_snapshot(folder: Path) -> bool:
    """Whether it lies in the hub's cache: ``models--owner--name/snapshots/<commit>``."""
    return folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name) is not None


def revision(folder: Path, *, trusted: bool = False) -> str:
    """The hub commit of a snapshot; of any other folder the sha256 over names and bytes of the files used.

    Used are weights, configurations, tokenizer and templates at the folder's top level. Where the folder's
    code is `trusted`, ``+`` and the sha256 over its Python files follow.
    """
    code = model_code.digest(folder) if trusted else ""
    return _revision(folder) + (f"+{code}" if code else "")


def _revision(folder: Path) -> str:
    if _is_snapshot(folder):
        return folder.name
    patterns = _SETTINGS + (_PICKLED if is_pickled(folder) else _WEIGHTS)
    names = {path.name for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0{(folder / name).stat().st_size}\0".encode())
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
