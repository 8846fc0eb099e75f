"""A model's weights: its shape without them, what they need to be read, and the model with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kvstore import model_files
from kvstore.errors import ModelError
from kvstore.pretrained import AGAIN, told

#: Weights that no stored vector needs: what makes words of the last layer, and what pools an image.
_SPARE = re.compile(r"(^|\.)lm_head\.|(^|\.)vision_(model|tower)\.(.+\.)?(head|post_layernorm)\.|^logit_")


def _auto(encoder: bool) -> Any:
    """The class of transformers that finds a model's own."""
    import transformers

    return transformers.AutoModel if encoder else transformers.AutoModelForImageTextToText


def skeleton(config: Any, *, encoder: bool) -> Any:
    """The model on the meta device: shapes without numbers."""
    import torch

    with told("config.json describes no model", AGAIN), torch.device("meta"):
        made = _auto(encoder).from_config(config, trust_remote_code=_is_own(config))
        return made.eval().requires_grad_(False)


def _is_own(config: Any) -> bool:
    """Whether the configuration's class is of the folder's code, which was trusted when it was made."""
    return not type(config).__module__.startswith("transformers.")


def check_quantisation(config: Any) -> None:
    """Raise `ModelError` for quantised weights that cannot be read here, which names the library missing."""
    for settings in _quantisations(config):
        from transformers.quantizers import AutoHfQuantizer

        method = settings.get("quant_method") if isinstance(settings, dict) else settings
        with told(f"the weights are quantised with {method} (quantization_config of config.json)"):
            quantiser = AutoHfQuantizer.from_config(settings, pre_quantized=True)
            quantiser.validate_environment(device_map=None, weights_only=True)


def is_quantised(config: Any) -> bool:
    """Whether several weights may lie packed in one number."""
    return bool(_quantisations(config))


def _quantisations(config: Any) -> list[Any]:
    parts = (config, *(getattr(config, name) for name in config.sub_configs))
    return list(filter(None, (getattr(part, "quantization_config", None) for part in parts)))


def weights(folder: Path, config: Any, device: str, dtype: str, *, encoder: bool, whole: bool) -> Any:
    """The model with its weights; a weight that the files lack is an error, not a random number.

    Unless the `whole` model is asked for, weights that no stored vector needs may be missing; each is NaN, so
    that no use of it goes unseen.
    """
    import torch

    with told(f"the weights in '{folder}' cannot be loaded", "download them again"), model_files.quiet():
        model, report = _auto(encoder).from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            trust_remote_code=_is_own(config),
            local_files_only=True,
            use_safetensors=not model_files.is_pickled(folder),
            weights_only=True,  # of a pickle: tensors and plain data, nothing that runs
        )
        missing = {name for name in report["missing_keys"] if whole or not _SPARE.search(name)}
        if missing:
            raise ModelError(f"the weights in '{folder}' lack {min(missing)}; download it again")
        for name in report["missing_keys"]:
            model.get_parameter(name).data.fill_(float("nan"))
        return model.to(device).eval().requires_grad_(False)
