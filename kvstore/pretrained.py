"""What transformers makes of a model's settings: configuration, tokenizer, image processor.

Whatever its parsers raise over a user's file becomes a `ModelError` that names the file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from kvstore import model_code, model_files, outside
from kvstore.errors import ModelError
from kvstore.limits import within_limits
from kvstore.lines import one_line

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


#: Most layers of a part; transformers makes a name or a module for each before anybody can look at them.
_MOST_LAYERS = 1_024


def config(folder: Path, *, trusted: bool) -> Any:
    """The configuration; attention that needs more than is installed is left for the default one."""
    from transformers import CONFIG_MAPPING, AutoConfig

    file, settings = folder / "config.json", model_files.read_config(folder)
    _check_depth(settings, file)
    known = settings.get("model_type") in CONFIG_MAPPING
    own = not known and model_code.runs(file, settings, "AutoConfig", trusted=trusted)
    with told(f"{file} cannot be loaded", AGAIN):
        made = AutoConfig.from_pretrained(folder, trust_remote_code=own, local_files_only=True)
    _settle_attention(made)
    return made


def _check_depth(settings: Mapping[str, object], file: Path) -> None:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            _check_depth(value, file)
        elif name in ("num_hidden_layers", "depth") and isinstance(value, int) and value > _MOST_LAYERS:
            raise ModelError(f"{file} promises {value} layers ({name}); {_MOST_LAYERS} are the most")


def _settle_attention(made: Any) -> None:
    """How attention is computed does not change what it is: without flash attention, the default will do.

    Any other that transformers does not hold is a kernel, compiled code that it would fetch from the hub.
    """
    from transformers.utils import is_flash_attn_2_available

    known = {"None", "eager", "sdpa", "flex_attention"}
    known |= {"flash_attention_2"} if is_flash_attn_2_available() else set()
    parts = [made, *(getattr(made, name) for name in made.sub_configs)]
    others = {str(part._attn_implementation) for part in parts} - known
    if others:
        made._attn_implementation = None
        print(
            one_line(
                f"config.json asks for {min(others)}, which is not installed; the default attention is used"
            ),
            file=sys.stderr,
        )


@lru_cache(maxsize=8)
def tokenizer(folder: Path, *, trusted: bool) -> Any:
    """The tokenizer; of a folder that changes while the process runs the first reading stays."""
    from transformers import AutoTokenizer

    file, settings = model_files.tokenizer_settings(folder)
    own = not _has_tokenizer(settings) and model_code.runs(file, settings, "AutoTokenizer", trusted=trusted)
    # given the configuration, its loader does not make one, with code that it does not need
    made = config(folder, trusted=trusted)
    # the folder's files are meant, wherever the settings say that these files were when they were saved
    files = {name: None for name in settings if name.endswith("_file")}
    with told(f"the tokenizer in '{folder}' cannot be loaded", AGAIN):
        found = AutoTokenizer.from_pretrained(
            folder, config=made, trust_remote_code=own, local_files_only=True, **files
        )
    within_limits(f"the tokenizer in '{folder}'", AGAIN, lambda: _try(folder, found))
    return found


def _try(folder: Path, found: Any) -> None:
    """Take the letters of English apart, each one of which a tokenizer might multiply."""
    with told(f"the tokenizer in '{folder}' cannot be used", AGAIN):
        found("".join(map(chr, range(32, 127))))


def _has_tokenizer(settings: dict[str, Any]) -> bool:
    """Whether transformers has the class that a tokenizer's settings name."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    name = str(settings.get("tokenizer_class")).removesuffix("Fast")
    return any(tokenizer_class_from_name(each) is not None for each in (name, f"{name}Fast"))


def image_processor(folder: Path, made: Any, *, trusted: bool) -> Any:
    """The image processor with PIL's backend: pixels are the same with and without torchvision.

    `made` is the configuration. The class is looked up here, since the automatic class of older transformers
    asks for torchvision.
    """
    file, settings = model_files.image_processor_settings(folder)
    kind = _processor_class(settings, made)
    if kind is None and model_code.runs(file, settings, "AutoImageProcessor", trusted=trusted):
        kind = _own_class(folder, file, settings)
    if kind is None:
        name = model_files.image_processor_type(settings)
        raise ModelError(
            f"{file}: there is no image processor '{name}' for {made.model_type} in transformers"
        )
    with told(f"{file} cannot be loaded", AGAIN):
        return kind.from_dict(_renamed(settings))


def _own_class(folder: Path, file: Path, settings: dict[str, Any]) -> Any:
    """The image processor's class that the folder's code makes: the code runs."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    name = model_code.reference(settings, "AutoImageProcessor")
    with told(f"the code that {file} names cannot be run"):
        return get_class_from_dynamic_module(name, folder, local_files_only=True)


def _processor_class(settings: dict[str, Any], made: Any) -> Any:
    """The class that the settings name; of a name that was the model's own or is missing, the model's.

    None where transformers has no such class. One without a PIL backend asks for torchvision when it is made.
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
