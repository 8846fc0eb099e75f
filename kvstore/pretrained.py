"""What transformers makes of a model's folder: configuration, tokenizer, image processor, weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from kvstore import model_files
from kvstore.errors import ModelError


def config(folder: Path) -> Any:
    from transformers import AutoConfig

    return _told(folder / "config.json", lambda: AutoConfig.from_pretrained(folder))


@lru_cache(maxsize=8)
def tokenizer(folder: Path) -> Any:
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


def image_processor(folder: Path) -> Any:
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


def weights(folder: Path, device: str, dtype: str, *, encoder: bool) -> Any:
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


def parameters(config: Any, *, encoder: bool) -> int:
    """Number of weights, counted without making them; an encoder's text tower counts."""
    import torch

    with torch.device("meta"):
        return int(_auto(encoder).from_config(config).num_parameters())
