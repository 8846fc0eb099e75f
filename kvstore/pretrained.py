"""What transformers makes of a model's settings: configuration, tokenizer, image processor.

Whatever its parsers raise over a user's file becomes a `ModelError` that names the file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from kvstore import model_files, outside
from kvstore.errors import ModelError

#: What helps with most files that cannot be read.
AGAIN = "correct it or download it again"


@contextmanager
def told(what: str, remedy: str = "") -> Iterator[None]:
    """Within, what transformers raises is a `ModelError` of one line: `what`, why, and the remedy."""
    with model_files.hushed():
        try:
            with outside.told(what, remedy, ModelError):
                yield
        except ModelError as error:
            if isinstance(error.__cause__, ImportError):  # "X requires the library Y. Check out ..."
                reason = outside.reason(error.__cause__).partition(". ")[0]
                raise ModelError(f"{what}: {reason}; install it with pip") from error
            raise


def config(folder: Path) -> Any:
    """The configuration; attention kernels that are not installed are left for the default ones."""
    from transformers import AutoConfig

    with told(f"{folder / 'config.json'} cannot be loaded", AGAIN):
        made = AutoConfig.from_pretrained(folder)
    _settle_attention(made)
    return made


def _settle_attention(made: Any) -> None:
    """How attention is computed does not change what it is: without flash attention, the default will do."""
    from transformers.utils import is_flash_attn_2_available

    parts = [made, *(getattr(made, name) for name in made.sub_configs)]
    flash = {str(part._attn_implementation) for part in parts if "flash" in str(part._attn_implementation)}
    if flash and not is_flash_attn_2_available():
        made._attn_implementation = None
        print(
            f"config.json asks for {min(flash)}, which is not installed; the default attention is used",
            file=sys.stderr,
        )


@lru_cache(maxsize=8)
def tokenizer(folder: Path) -> Any:
    """The tokenizer; of a folder that changes while the process runs the first reading stays."""
    from transformers import AutoTokenizer

    with told(f"the tokenizer in '{folder}' cannot be loaded", AGAIN):
        return AutoTokenizer.from_pretrained(folder)


def image_processor(folder: Path, made: Any) -> Any:
    """The image processor with PIL's backend: pixels are the same with and without torchvision.

    `made` is the configuration. The class is looked up here, since the automatic class of older transformers
    asks for torchvision.
    """
    file, settings = model_files.image_processor_settings(folder)
    with told(f"{file} cannot be loaded", AGAIN):
        return _processor_class(file, settings, made).from_dict(_renamed(settings))


def _processor_class(file: Path, settings: dict[str, Any], made: Any) -> Any:
    """The class that the settings name; of a name that was the model's own or is missing, the model's.

    One that has no PIL backend asks for torchvision when it is made.
    """
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    name = model_files.image_processor_type(settings)
    own = IMAGE_PROCESSOR_MAPPING_NAMES.get(made.model_type, {}).get("pil")
    kind = getattr(transformers, f"{name}Pil", None)
    if kind is None and name.endswith("ImageProcessor"):
        kind = getattr(transformers, name, None)
    if kind is None and own is not None and name in ("", f"{_stem(made)}ImageProcessor"):
        kind = getattr(transformers, own)
    if kind is None:
        raise ModelError(
            f"{file}: there is no image processor '{name}' for {made.model_type} in transformers"
        )
    return kind


def _stem(made: Any) -> str:
    return type(made).__name__.removesuffix("Config")


def _renamed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the names of today: `size` was saved as least and most pixels by transformers 4.45."""
    size = settings.get("size")
    names = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
    if not isinstance(size, dict) or set(size) != set(names):
        return dict(settings)
    return {**settings, "size": {names[name]: value for name, value in size.items()}}
