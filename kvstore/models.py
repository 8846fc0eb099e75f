"""Loading of models by alias, hub id, folder or the name of a tiny model; the prompt before the image.

No family is known by name here: every recipe in ``ingest/models`` says which it reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from kvstore import model_files, recipes
from kvstore.errors import ModelError, UnknownNameError, UsageError

_KIND = "ingest/models"
#: From this many weights on a model is not run on the CPU unless that is asked for.
_LARGE = 1_000_000_000
#: What a tiny model's name ends with when its weights are drawn, not learnt.
_UNTRAINED = "-untrained"
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    `kind` is "tiny", "hub" or "folder"; `location` the tiny model, the hub id, or the folder's path.
    """

    name: str
    kind: str
    location: str


@dataclass(frozen=True)
class Loaded:
    """A model ready for use, or (with `model` None) what the forecast needs of it.

    `asked` is the name that was asked for; `description` holds the columns of table `model`; `folder` is
    where its files lie on this machine.
    """

    name: str
    asked: str
    source: str
    revision: str
    family: ModuleType
    family_name: str
    folder: Path
    config: Any
    model: Any
    image_processor: Any
    chat_template: str
    description: dict[str, Any]

    @property
    def is_encoder(self) -> bool:
        """It is a vision encoder alone: no language model, no prompt, no keys and values."""
        return _is_encoder(self.family)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer; `ModelError` where it cannot be loaded, as of an encoder that never had one."""
        return _tokenizer(self.folder)

    @property
    def image_token_id(self) -> int:
        """Id of the placeholder that stands for one token of the image; -1 of an encoder alone."""
        return -1 if self.is_encoder else int(self.config.image_token_id)


# ------------------------------------------------------------------------------------------ names


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


def _family_of(model_type: object, folder: Path) -> tuple[str, ModuleType]:
    known = {kind: (name, family) for name, family in families().items() for kind in family.MODEL_TYPES}
    if model_type not in known:
        raise ModelError(
            f"no family reads model_type '{model_type}' of {folder / 'config.json'}; known: "
            f"{', '.join(sorted(known))}. A new family is one file in {_KIND}/"
        )
    return known[str(model_type)]


def _is_encoder(family: ModuleType) -> bool:
    return family.IMAGE_START is None


# ------------------------------------------------------------------------------- device and dtype


def choose_device(device: str | None = None) -> str:
    """The device asked for (`UsageError` if it is not there), else cuda, else mps, else cpu."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{device}' cannot be used: {str(error).splitlines()[0]}") from error
    return device


def choose_dtype(dtype: str | None, device: str) -> str:
    """The dtype asked for, else bfloat16 on cuda and float32 elsewhere."""
    if dtype is None:
        return "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    return dtype


# ---------------------------------------------------------------------------------------- loading


def load_config(name: str) -> Loaded:
    """All of a model but its weights: enough for token layouts, prompts and the forecast."""
    source = resolve(name)
    folder = _folder(source, weights=False)
    family_name, family = _family_of(model_files.read_config(folder).get("model_type"), folder)
    model_files.check_settings(folder, text=not _is_encoder(family))
    config, image_processor = _config(folder), _image_processor(folder)
    return Loaded(
        name=Path(source.location).name if source.kind == "folder" else name,
        asked=name,
        source=source.location,
        revision=model_files.revision(folder),
        family=family,
        family_name=family_name,
        folder=folder,
        config=config,
        model=None,
        image_processor=image_processor,
        chat_template="" if _is_encoder(family) else _template(folder),
        description=_describe(config, image_processor, encoder=_is_encoder(family)),
    )


def load(name: str, device: str | None = None, dtype: str | None = None) -> Loaded:
    """A model with its weights, in eval mode, without gradients, on `device` in `dtype`.

    Raises `ModelError` when it cannot be had, or is too large to be run on the CPU unasked.
    """
    loaded, chosen = load_config(name), choose_device(device)
    check_usable(loaded, chosen, asked=device is not None)
    return with_weights(loaded, chosen, choose_dtype(dtype, chosen))


def load_again(name: str, revision: str, run_id: str, device: str | None, dtype: str) -> Loaded:
    """The model that made a run; `ModelError` when what has its name by now is another."""
    loaded = load(name, device, dtype)
    if loaded.revision != revision:
        raise ModelError(
            f"run '{run_id}' was made with revision {revision[:12]} of '{name}', which is "
            f"{loaded.revision[:12]} by now; ingest again under another --run"
        )
    return loaded


def check_usable(loaded: Loaded, device: str, *, asked: bool) -> None:
    """Raise `ModelError` for a large model on a CPU unasked, and for a folder that lacks weights."""
    parameters = loaded.description["parameters"]
    if parameters > _LARGE and device == "cpu" and not asked:
        raise ModelError(_too_large(loaded.name, parameters, loaded.family.TINY))
    if resolve(loaded.asked).kind == "folder":
        model_files.check_weights(loaded.folder)


def with_weights(loaded: Loaded, device: str, dtype: str) -> Loaded:
    """A model of which all else is loaded, with its weights; `ModelError` when they cannot be had."""
    folder = _folder(resolve(loaded.asked), weights=True)
    model_files.check_weights(folder)
    return replace(loaded, model=_weights(folder, device, dtype, encoder=loaded.is_encoder))


def _too_large(name: str, parameters: int, tiny: str) -> str:
    return (
        f"model '{name}' has {parameters / 1e9:.1f} billion weights and there is no GPU here (--device cpu "
        f"runs it all the same, slowly); a tiny model: {model_files.command_with(tiny)}"
    )


def _folder(source: Source, *, weights: bool) -> Path:
    """The folder with a source's files on this machine."""
    if source.kind == "folder":
        return Path(source.location)
    if source.kind == "hub":
        return model_files.snapshot(source.location, nearest_tiny(source.location), weights=weights)
    shipped = model_files.shipped()
    if source.location in shipped:
        return shipped[source.location]
    untrained = {each.TINY: each for each in families().values()}
    return model_files.tiny_folder(untrained[source.location.removesuffix(_UNTRAINED)])


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return _told(folder / "config.json", lambda: AutoConfig.from_pretrained(folder))


@lru_cache(maxsize=8)
def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return _told(folder / "tokenizer.json", lambda: AutoTokenizer.from_pretrained(folder))


def _told(file: Path, load: Callable[[], Any]) -> Any:
    """What `load` makes; `ModelError` that names the file when it fails."""
    try:
        with model_files.hushed():
            return load()
    except ImportError as error:  # "X requires the Y library but it was not found. Check out ..."
        told = str(error).strip().partition(". ")[0]
        raise ModelError(f"{file} cannot be loaded: {told}; install it with pip") from error
    except Exception as error:  # transformers raises whatever its parsers raise
        raise ModelError(f"{file} cannot be loaded: {str(error).strip().splitlines()[0]}") from error


def _template(folder: Path) -> str:
    template = model_files.chat_template(folder) or _tokenizer(folder).chat_template
    if not isinstance(template, str):
        raise ModelError(f"'{folder}' has no chat template (chat_template.jinja); prompts need one")
    return template


def _image_processor(folder: Path) -> Any:
    """The image processor with PIL's backend: pixels are the same with and without torchvision.

    It is looked up by its class, since the automatic class of older transformers asks for torchvision.
    """
    import transformers

    name = model_files.image_processor_type(folder)
    kind = getattr(transformers, f"{name}Pil", None)
    further = {} if kind else {"backend": "pil"}
    load = (kind or transformers.AutoImageProcessor).from_pretrained
    return _told(folder / "preprocessor_config.json", lambda: load(folder, **further))


def _auto(encoder: bool) -> Any:
    """The class of transformers that finds a model's own."""
    import transformers

    return transformers.AutoModel if encoder else transformers.AutoModelForImageTextToText


def _weights(folder: Path, device: str, dtype: str, *, encoder: bool) -> Any:
    """The model with its weights; a weight that the files lack is an error, not a random number."""
    import torch

    try:
        with model_files.quiet():
            model, report = _auto(encoder).from_pretrained(
                folder, dtype=getattr(torch, dtype), output_loading_info=True
            )
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(f"'{folder}' cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if report["missing_keys"]:
        raise ModelError(f"the weights in '{folder}' lack {min(report['missing_keys'])}; download it again")
    return model.to(device).eval().requires_grad_(False)


def vision_config(config: Any) -> Any:
    """The vision encoder's part of a configuration; the whole of one that has no other part."""
    return getattr(config, "vision_config", config)


def _describe(config: Any, image_processor: Any, *, encoder: bool) -> dict[str, Any]:
    """The columns of table `model` that follow from the configuration."""
    vision = vision_config(config)
    settings = {"class": type(image_processor).__name__, **image_processor.to_dict()}
    return {
        "architecture": (config.architectures or [type(config).__name__])[0],
        **(dict.fromkeys(_LANGUAGE, 0) if encoder else _language(config.text_config)),
        "encoder_layers": getattr(vision, "num_hidden_layers", None) or vision.depth,
        "encoder_dim": vision.hidden_size,
        "parameters": _parameters(config, encoder=encoder),
        "processor": json.dumps(settings, sort_keys=True, default=str),
    }


#: Columns of table `model` about the language model.
_LANGUAGE = ("layers", "query_heads", "kv_heads", "key_dim", "value_dim", "hidden_dim")


def _language(text: Any) -> dict[str, int]:
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = (text.num_attention_heads, text.num_key_value_heads)
    figures = (text.num_hidden_layers, *heads, head_dim, head_dim, text.hidden_size)
    return dict(zip(_LANGUAGE, figures, strict=True))


def _parameters(config: Any, *, encoder: bool) -> int:
    """Number of weights, counted without making them; an encoder's text tower counts."""
    import torch

    with torch.device("meta"):
        return int(_auto(encoder).from_config(config).num_parameters())


# ----------------------------------------------------------------------------------------- prompt


def processor(loaded: Loaded) -> Any:
    """The real processor of the family for text and images, built from its parts.

    Its video part, where it has one, is left out: that would need torchvision.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    real = getattr(transformers, PROCESSOR_MAPPING_NAMES[loaded.config.model_type])

    def check(self: Any, argument_name: str, argument: Any) -> Any:
        return (
            None if argument is None else real.check_argument_for_proper_class(self, argument_name, argument)
        )

    kind = type(
        real.__name__, (real,), {"check_argument_for_proper_class": check, "__module__": real.__module__}
    )
    settings = model_files.processor_settings(loaded.folder)
    return kind(loaded.image_processor, loaded.tokenizer, chat_template=loaded.chat_template, **settings)


def prompt(loaded: Loaded, prefix: str = "") -> str:
    """The text before the first image token: a user turn that begins with `prefix` and the image.

    Templates put images before text whatever the order of the turn's content, so the rendered text is cut
    where the image starts and the prefix is put there verbatim.
    """
    return _rendered(loaded, prefix)[0]


def prompt_ids(loaded: Loaded, prefix: str = "") -> list[int]:
    """Token ids before the first image token, as the real processor makes them of the whole prompt."""
    ids = _ids(loaded, "".join(_rendered(loaded, prefix)))
    return ids[: ids.index(loaded.image_token_id)]


def question_ids(loaded: Loaded, question: str, images: int, prefix: str = "") -> list[int]:
    """Token ids of a whole prompt: a user turn of images, each one placeholder, and a question, verbatim.

    `prefix` stands right before the first image, as in `prompt`. Raises `UsageError` for a question that
    holds the placeholder.
    """
    return _ids(loaded, "".join(_rendered(loaded, prefix, images, question)))


def _ids(loaded: Loaded, text: str) -> list[int]:
    """Token ids of a rendered prompt, as the real processor makes them."""
    begin = loaded.tokenizer.bos_token
    # as `apply_chat_template` does: a template that writes the begin token itself gets no second one
    special = not (begin is not None and text.startswith(begin))
    return [int(token) for token in loaded.tokenizer(text, add_special_tokens=special)["input_ids"]]


def _rendered(
    loaded: Loaded, prefix: str, images: int = 1, question: str | None = None
) -> tuple[str, str, str]:
    """Head (prefix and image start included), placeholder and tail of the rendered prompt."""
    if loaded.is_encoder:
        raise UsageError(
            f"model '{loaded.name}' is a vision encoder alone and reads no prompt; take a model with a "
            f"language model, for example {model_files.command_with('tiny-onevision')}"
        )
    placeholder = loaded.tokenizer.convert_ids_to_tokens(loaded.image_token_id)
    for what, text in (("prefix", prefix), ("question", question)):
        if placeholder in (text or ""):
            raise UsageError(f"the {what} holds '{placeholder}', which stands for the image")
    content = [{"type": "image"}] * images
    content += [] if question is None else [{"type": "text", "text": question}]
    text = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=loaded.chat_template,
        add_generation_prompt=True,
        tokenize=False,
    )
    start = loaded.family.IMAGE_START
    head, found, tail = text.partition(start + placeholder)
    if not found:
        raise ModelError(
            f"the chat template in '{loaded.folder}' writes no '{start + placeholder}' for an image"
        )
    return head + prefix + start, placeholder, tail
