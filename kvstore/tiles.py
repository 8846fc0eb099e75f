"""Pixels and encoding of AnyRes tiles: common to families with an overview and a mosaic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvstore.anyres import Tiling, layout, padded
from kvstore.contracts import Encoded, Inputs, View

if TYPE_CHECKING:
    import torch
    from PIL import Image as PILImage


def preprocess(tiling: Tiling, processor: Any, image: PILImage.Image, view: View) -> Inputs:
    """Pixels [tiles, 3, side, side] and layout of one RGB image; the overview comes first."""
    tokens = layout(tiling, image.size, view)
    if view == "base":
        pixels = _overview(processor, image)
    else:
        pixels = processor(images=[image], return_tensors="pt")["pixel_values"][0]
    return Inputs(pixels.float(), image.size, tokens)


def several(tiling: Tiling, processor: Any, images: Sequence[PILImage.Image]) -> list[Inputs]:
    """Pixels [1, 3, side, side] and layout of each image of a prompt of several: padded, without tiles."""
    pixels = processor(images=[list(images)], return_tensors="pt")["pixel_values"]
    return [
        Inputs(pixels[i].float(), image.size, padded(tiling, image.size)) for i, image in enumerate(images)
    ]


def _overview(processor: Any, image: PILImage.Image) -> torch.Tensor:
    """The overview tile [1, 3, side, side] alone, by the processor's own steps in its own order."""
    import torch
    from transformers.image_utils import SizeDict

    height, width = squeezed(processor)
    tile = processor.process_image(image, do_convert_rgb=processor.do_convert_rgb)
    tile = processor.resize(tile, size=SizeDict(height=height, width=width), resample=processor.resample)
    if processor.do_resize:
        tile = processor.resize(tile, size=processor.size, resample=processor.resample)
    if processor.do_center_crop:
        tile = processor.center_crop(tile, size=processor.crop_size)
    if processor.do_rescale:
        tile = processor.rescale(image=tile, scale=processor.rescale_factor)
    if processor.do_normalize:
        tile = processor.normalize(image=tile, mean=processor.image_mean, std=processor.image_std)
    return torch.from_numpy(tile)[None]


def squeezed(processor: Any) -> tuple[int | None, int | None]:
    """Height and width in pixels that the whole image is squeezed into, as the processor reads its `size`."""
    size = processor.size
    if size.height and size.width:
        return size.height, size.width
    return size.shortest_edge, size.shortest_edge


def encode(model: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int], **packing: object) -> Encoded:
    """Tower, projector and packing of a batch, all tiles of all images in one call of the tower.

    The tower's hidden states are packed as the tokens are, newlines left out. `packing` are the family's own
    arguments of the model's ``pack_image_features``.
    """
    import torch

    inner = model.model
    counts = [item.pixels.shape[0] for item in batch]
    pixels = torch.cat([item.pixels for item in batch]).to(inner.vision_tower.dtype)
    states = inner.vision_tower(pixels, output_hidden_states=True, return_dict=True).hidden_states
    features = inner.multi_modal_projector(_selected(model.config, states))
    encoder: list[dict[int, torch.Tensor]] = [{} for _ in batch]
    for layer in encoder_layers:
        patches = torch.split(_patches(model.config, states[layer]), counts)
        grids = _pack(inner, batch, patches, None, packing)
        for index, grid in enumerate(grids):
            encoder[index][layer] = grid
    tokens = _pack(inner, batch, torch.split(features, counts), inner.image_newline, packing)
    return Encoded(tokens, encoder)


def _selected(config: Any, states: Sequence[torch.Tensor]) -> torch.Tensor:
    """The hidden states [tiles, patches, width] that the projector takes."""
    import torch

    return torch.cat([_patches(config, states[layer]) for layer in feature_layers(config)], dim=-1)


def feature_layers(config: Any) -> list[int]:
    """Indices of the hidden states that the projector takes, as Python counts (-1: the last)."""
    layers = config.vision_feature_layer
    return [layers] if isinstance(layers, int) else list(layers)


def _patches(config: Any, state: torch.Tensor) -> torch.Tensor:
    """A hidden state without the class token, where the tower has one."""
    return state[:, 1:] if config.vision_feature_select_strategy == "default" else state


def _pack(
    inner: Any,
    batch: Sequence[Inputs],
    features: Sequence[torch.Tensor],
    newline: torch.Tensor | None,
    packing: dict[str, object],
) -> list[torch.Tensor]:
    """Tokens [tokens, width] per image: patches of the overview alone, or the model's own packing."""
    if all(item.layout.tokens == item.layout.patches for item in batch):
        return [feature[0] for feature in features]
    sizes = [(item.size[1], item.size[0]) for item in batch]
    packed, _ = inner.pack_image_features(list(features), sizes, image_newline=newline, **packing)
    return list(packed)
