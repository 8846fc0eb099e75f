"""Loading of a model: its settings, enough for token layouts and prompts, and then its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from kvstore import checkpoints, model_files, pretrained
from kvstore.devices import choose_device, choose_dtype
from kvstore.errors import ModelError
from kvstore.model_names import family_of, folder_of, resolve

#: From this many weights on a model is not run on the CPU unless that is asked for.
_LARGE = 1_000_000_000
#: A small image, and most tokens of it: more would take all memory before anything is told.
_SMALL, _MOST_TOKENS = (64, 48), 65_536


@dataclass(frozen=True)
class Loaded:
    """A model ready for use, or (with `model` None) what the forecast needs of it.

    `asked` is the name that was asked for; `description` holds the columns of table `model`; `folder` is
    where its files lie on this machine; code of that folder may run where it is `trusted`.
    """

    name: str
    asked: str
    source: str
    revision: str
    family: ModuleType
    family_name: str
    folder: Path
    trusted: bool
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
        return pretrained.tokenizer(self.folder, trusted=self.trusted)

    @property
    def image_token_id(self) -> int:
        """Id of the placeholder that stands for one token of the image; -1 of an encoder alone."""
        return -1 if self.is_encoder else int(self.config.image_token_id)


def load_config(name: str, *, trusted: bool = False) -> Loaded:
    """All of a model but its weights: enough for token layouts, prompts and the forecast.

    `trusted`: Python code of the model's folder may run, where transformers lacks a class (`model_code`).
    """
    source = resolve(name)
    folder = folder_of(source, weights=False, code=trusted)
    family_name, family = family_of(model_files.read_config(folder).get("model_type"), folder)
    model_files.check_settings(folder, text=not _is_encoder(family))
    config = pretrained.config(folder, trusted=trusted)
    image_processor = pretrained.image_processor(folder, config, trusted=trusted)
    skeleton = _checked(folder, config, image_processor, family)
    return Loaded(
        name=Path(source.location).name if source.kind == "folder" else name,
        asked=name,
        source=source.location,
        revision=model_files.revision(folder, trusted=trusted),
        family=family,
        family_name=family_name,
        folder=folder,
        trusted=trusted,
        config=config,
        model=None,
        image_processor=image_processor,
        chat_template="" if _is_encoder(family) else _template(folder, trusted=trusted),
        description=_describe(skeleton, image_processor, encoder=_is_encoder(family)),
    )


def _checked(folder: Path, config: Any, image_processor: Any, family: ModuleType) -> Any:
    """The model without weights; `ModelError` where its settings contradict its processor's."""
    from PIL import Image

    checkpoints.check_quantisation(config)
    _check_depth(config)
    skeleton = checkpoints.skeleton(config, encoder=_is_encoder(family))
    with pretrained.told(f"the settings in '{folder}' cannot be used", pretrained.AGAIN):
        if hasattr(family, "check"):
            family.check(skeleton, image_processor, model_files.processor_settings(folder))
        _check_tokens(family.layout(config, image_processor, _SMALL, "base").tokens, folder)
        made = family.preprocess(config, image_processor, Image.new("RGB", _SMALL), "base")
        if not made.pixels.isfinite().all():
            raise ModelError("preprocessor_config.json makes pixels that are not finite; see image_std")
    return skeleton


def _check_depth(config: Any) -> None:
    for part in ("vision_config", "text_config"):
        layers = getattr(getattr(config, part, config), "num_hidden_layers", 1)
        if layers < 1:
            raise ModelError(f"config.json promises {layers} layers in {part}; one at least is needed")


def _check_tokens(tokens: int, folder: Path) -> None:
    if tokens > _MOST_TOKENS:
        wide, high = _SMALL
        raise ModelError(
            f"the settings in '{folder}' make {tokens:,} tokens of an image of {wide} x {high} pixels; "
            f"{_MOST_TOKENS:,} are the most: correct preprocessor_config.json"
        )


def load(
    name: str,
    device: str | None = None,
    dtype: str | None = None,
    *,
    whole: bool = True,
    trusted: bool = False,
) -> Loaded:
    """A model with its weights, in eval mode, without gradients, on `device` in `dtype`.

    `trusted` is as in `load_config`.

    Raises `ModelError` when it cannot be had, or is too large to be run on the CPU unasked; and, for the
    `whole` model, when a weight is missing that only answers need.
    """
    loaded, chosen = load_config(name, trusted=trusted), choose_device(device)
    check_usable(loaded, chosen, asked=device is not None)
    return with_weights(loaded, chosen, choose_dtype(dtype, chosen), whole=whole)


def load_again(
    name: str,
    revision: str,
    run_id: str,
    device: str | None,
    dtype: str,
    *,
    whole: bool = False,
    trusted: bool = False,
) -> Loaded:
    """The model that made a run; `ModelError` when what has its name by now is another.

    `trusted` is as in `load_config`, and has to be as it was when the run was made.
    """
    loaded = load(name, device, dtype, whole=whole, trusted=trusted)
    if loaded.revision != revision:
        raise ModelError(_other_revision(run_id, name, revision, loaded.revision))
    return loaded


def _other_revision(run_id: str, name: str, made: str, found: str) -> str:
    (files, _, code), (files_now, _, code_now) = made.partition("+"), found.partition("+")
    if files == files_now and bool(code) != bool(code_now):
        trust = "with" if code else "without"
        return f"run '{run_id}' was made {trust} --trust-remote-code; say it as then"
    what, then, now = ("revision", files, files_now) if files != files_now else ("code", code, code_now)
    return (
        f"run '{run_id}' was made with {what} {then[:12]} of '{name}', which is {now[:12]} by now; "
        "ingest again under another --run"
    )


def check_usable(loaded: Loaded, device: str, *, asked: bool) -> None:
    """Raise `ModelError` for a large model on a CPU unasked, and for a folder that lacks weights."""
    parameters = loaded.description["parameters"]
    if parameters > _LARGE and device == "cpu" and not asked:
        raise ModelError(_too_large(loaded.name, parameters, loaded.family.TINY))
    if resolve(loaded.asked).kind == "folder":
        model_files.check_weights(loaded.folder)


def with_weights(loaded: Loaded, device: str, dtype: str, *, whole: bool = False) -> Loaded:
    """A model of which all else is loaded, with its weights; `ModelError` when they cannot be had.

    Those that only answers need may be missing unless it is to be `whole`.
    """
    folder = folder_of(resolve(loaded.asked), weights=True, code=loaded.trusted)
    model_files.check_weights(folder)
    _check_count(loaded, model_files.weight_count(folder))
    model = checkpoints.weights(folder, loaded.config, device, dtype, encoder=loaded.is_encoder, whole=whole)
    return replace(loaded, model=model)


def _check_count(loaded: Loaded, stored: int | None) -> None:
    """Raise `ModelError` where far more weights are promised than are there: they would fill the memory."""
    parameters = loaded.description["parameters"]
    if stored is not None and 2 * stored < parameters and not checkpoints.is_quantised(loaded.config):
        raise ModelError(
            f"config.json of '{loaded.name}' describes {parameters:,} weights, and its files hold "
            f"{stored:,}; {pretrained.AGAIN}"
        )


def _too_large(name: str, parameters: int, tiny: str) -> str:
    return (
        f"model '{name}' has {parameters / 1e9:.1f} billion weights and there is no GPU here (--device cpu "
        f"runs it all the same, slowly); a tiny model: {model_files.command_with(tiny)}"
    )


def _template(folder: Path, *, trusted: bool) -> str:
    template = (
        model_files.chat_template(folder) or pretrained.tokenizer(folder, trusted=trusted).chat_template
    )
    if isinstance(template, dict):  # several by name, as transformers reads tokenizer_config.json
        template = template.get("default")
    if not isinstance(template, str):
        raise ModelError(
            f"'{folder}' has no chat template (chat_template.jinja), or of several none named 'default'; "
            "prompts need one"
        )
    return template


def _is_encoder(family: ModuleType) -> bool:
    return family.IMAGE_START is None


def vision_config(config: Any) -> Any:
    """The vision encoder's part of a configuration; the whole of one that has no other part."""
    return getattr(config, "vision_config", config)


def _describe(skeleton: Any, image_processor: Any, *, encoder: bool) -> dict[str, Any]:
    """The columns of table `model` that follow from the configuration."""
    config = skeleton.config
    vision = vision_config(config)
    settings = {"class": type(image_processor).__name__, **image_processor.to_dict()}
    return {
        "architecture": type(skeleton).__name__,
        **(dict.fromkeys(_LANGUAGE, 0) if encoder else _language(config.text_config)),
        "encoder_layers": getattr(vision, "num_hidden_layers", None) or vision.depth,
        "encoder_dim": vision.hidden_size,
        "parameters": int(skeleton.num_parameters()),
        "processor": json.dumps(settings, sort_keys=True, default=str),
    }


#: Columns of table `model` about the language model.
_LANGUAGE = ("layers", "query_heads", "kv_heads", "key_dim", "value_dim", "hidden_dim")


def _language(text: Any) -> dict[str, int]:
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = (text.num_attention_heads, text.num_key_value_heads)
    figures = (text.num_hidden_layers, *heads, head_dim, head_dim, text.hidden_size)
    return dict(zip(_LANGUAGE, figures, strict=True))
