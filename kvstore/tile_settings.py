"""Whether settings of an AnyRes model and of its image processor fit together, before weights are loaded.

Honoured: ``vision_feature_layer`` (a number or a list), ``image_grid_pinpoints``, ``projector_hidden_act``,
``multimodal_projector_bias``, the tower's own settings; of the processor ``resample``, ``do_resize``,
``do_rescale``, ``rescale_factor``, ``do_normalize``, ``image_mean``, ``image_std``, ``do_convert_rgb`` and
``do_pad`` (one image at a time has nothing to be padded to). Refused unless they agree with the tower:
``vision_feature_select_strategy``, ``size``, ``crop_size``, ``image_grid_pinpoints`` of both files, and in
processor_config.json ``patch_size``, ``num_image_tokens``, ``num_additional_image_tokens``,
``vision_feature_select_strategy`` and ``vision_aspect_ratio``. ``image_seq_length`` is read by nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvstore.anyres import Tiling
from kvstore.errors import ModelError
from kvstore.lines import one_line
from kvstore.tiles import feature_layers, preprocess, squeezed


def check(model: Any, processor: Any, settings: Mapping[str, Any], tiling: Tiling) -> None:
    """Raise `ModelError` that names the first setting at fault.

    `model` is on the meta device, where nothing is computed but shapes; `settings` are those of
    processor_config.json.
    """
    for name, side in (("image_size", tiling.side), ("patch_size", tiling.patch)):
        if type(side) is not int:
            raise ModelError(f"vision_config.{name} of config.json is {side!r}; one number is read")
    _check_pinpoints(model.config, processor, tiling)
    _check_sides(processor, tiling)
    _check_features(model, tiling)
    _check_processor(model.config, settings, tiling)
    _check_pixels(processor, tiling)


def _check_pinpoints(config: Any, processor: Any, tiling: Tiling) -> None:
    theirs, ours = config.image_grid_pinpoints, getattr(processor, "image_grid_pinpoints", None)
    if ours != theirs:
        raise ModelError(
            f"image_grid_pinpoints of preprocessor_config.json ({one_line(ours, 80)}) are not those of "
            f"config.json ({one_line(theirs, 80)})"
        )
    for pinpoint in theirs:
        whole = all(type(side) is int and side > 0 and side % tiling.side == 0 for side in pinpoint)
        if len(pinpoint) != 2 or not whole:
            raise ModelError(
                f"image_grid_pinpoints hold {pinpoint}; height and width have to be multiples of the tower's "
                f"{tiling.side} pixels"
            )
    if not theirs:
        raise ModelError("image_grid_pinpoints are empty; at least one resolution is needed")


def _check_sides(processor: Any, tiling: Tiling) -> None:
    """The whole image and every tile have to become as large as the tower takes them."""
    size, crop = processor.size, processor.crop_size
    if squeezed(processor) != (tiling.side, tiling.side):
        raise ModelError(
            f"size of preprocessor_config.json ({dict(size)}) is not the tower's {tiling.side} pixels "
            "(vision_config.image_size of config.json)"
        )
    if crop and (crop.height, crop.width) != (tiling.side, tiling.side):
        raise ModelError(
            f"crop_size of preprocessor_config.json ({dict(crop)}) is not the tower's {tiling.side} pixels "
            "(vision_config.image_size of config.json)"
        )


def _check_features(model: Any, tiling: Tiling) -> None:
    """The projector's input exists, and has one vector per patch."""
    import torch

    config = model.config
    tower = model.model.vision_tower
    pixels = torch.empty(1, 3, tiling.side, tiling.side, device="meta", dtype=tower.dtype)
    states = tower(pixels, output_hidden_states=True, return_dict=True).hidden_states
    layers = feature_layers(config)
    if not layers:
        raise ModelError("vision_feature_layer of config.json is an empty list; a hidden state is needed")
    for layer in layers:
        if not -len(states) <= layer < len(states):
            raise ModelError(
                f"the vision encoder has {len(states) - 1} layers, there is no hidden state {layer}; "
                "correct vision_feature_layer in config.json"
            )
    strategy, patches = config.vision_feature_select_strategy, tiling.count**2
    vectors = states[0].shape[1] - (strategy == "default")
    if vectors != patches:
        right = "has a class token: 'default'" if vectors > patches else "has no class token: 'full'"
        raise ModelError(
            f"vision_feature_select_strategy '{strategy}' of config.json gives {vectors} vectors for "
            f"a tile's {patches} patches; this tower {right}"
        )


def _check_processor(config: Any, settings: Mapping[str, Any], tiling: Tiling) -> None:
    """What processor_config.json counts image tokens by is what the model does, where it is said at all."""
    strategy = config.vision_feature_select_strategy
    expected = {
        "patch_size": tiling.patch,
        "num_image_tokens": tiling.count**2,
        "num_additional_image_tokens": int(strategy == "default"),
        "vision_feature_select_strategy": strategy,
        "vision_aspect_ratio": getattr(config, "vision_aspect_ratio", None),
    }
    for name, value in expected.items():
        if settings.get(name) is not None and settings[name] != value and value is not None:
            raise ModelError(
                f"{name} of processor_config.json is {settings[name]!r}; by config.json it is {value!r}"
            )


def _check_pixels(processor: Any, tiling: Tiling) -> None:
    """A small image becomes tiles as the tower takes them, of finite numbers."""
    from PIL import Image

    for view in ("base", "all"):
        made = preprocess(tiling, processor, Image.new("RGB", (64, 48)), view)
        if made.pixels.shape[1:] != (3, tiling.side, tiling.side) or not made.pixels.isfinite().all():
            raise ModelError(
                f"preprocessor_config.json makes tiles of {tuple(made.pixels.shape[1:])} numbers, of which "
                f"the tower takes (3, {tiling.side}, {tiling.side}), or numbers that are not finite"
            )
