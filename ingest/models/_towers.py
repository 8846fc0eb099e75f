"""What vision encoders alone share: where their patches lie in the image, and their hidden states.

An image processor resizes the whole image, or its shorter side and then cuts out the middle. The encoder
takes whole patches of what is left; a strip of less than a patch is lost on the right and at the bottom.

Layers are indices of transformers' ``hidden_states``: 0 the embeddings, n the output of layer n, the last one
before the encoder's last norm. The projector of a multimodal model takes one of its own tower's, by its
``vision_feature_layer``: the last of LLaVA-OneVision (SigLIP without its 27th layer, so 26 there is 26 here),
the last but one of LLaVA-NeXT (CLIP's 23 of 24).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvstore.contracts import Encoded, Grid, Inputs, Layout
from kvstore.errors import ImageError, ModelError
from kvstore.images import MAX_PIXELS


def check(tower: Any, processor: Any, patch: int, skip: int) -> None:
    """Raise `ModelError` where pixels as the processor makes them are not what the tower takes.

    `tower` is on the meta device, where nothing is computed but shapes; the first `skip` of its vectors are
    no patches. Honoured are all of the processor's settings but ``pad_size``: ``size``, ``do_resize``,
    ``crop_size``, ``do_center_crop``, ``resample``, ``do_rescale``, ``rescale_factor``, ``do_normalize``,
    ``image_mean``, ``image_std`` and ``do_convert_rgb``.
    """
    from PIL import Image

    image = Image.new("RGB", (64, 48))
    seen = layout(processor, patch, image.size).grids[0]
    made = pixels(processor, image)
    high, wide = made.shape[-2:]
    if (high // patch, wide // patch) != (seen.rows, seen.columns) or not made.isfinite().all():
        raise ModelError(
            f"preprocessor_config.json makes {wide} x {high} pixels where its size and crop_size ask for "
            f"{seen.columns} x {seen.rows} patches of {patch}, or numbers that are not finite"
        )
    states = tower(pixel_values=made[None].to("meta", tower.dtype), output_hidden_states=True).hidden_states
    if states[0].shape[1] - skip != seen.patches:
        raise ModelError(
            f"preprocessor_config.json makes {wide} x {high} pixels, {seen.patches} patches, of which the "
            f"encoder makes {states[0].shape[1] - skip} vectors"
        )


def layout(processor: Any, patch: int, size: tuple[int, int]) -> Layout:
    """The patches of an image of `size` (width, height), `patch` pixels wide, and what they see of it.

    Raises `ImageError` ("aspect-ratio") where resizing the shorter side makes too many pixels.
    """
    wide, high = _resized(processor, size)
    left, top, seen_wide, seen_high = _crop(processor, wide, high)
    columns, rows = seen_wide // patch, seen_high // patch
    across, down = size[0] / wide, size[1] / high  # image pixels in a resized one
    box = (left * across, top * down, (left + columns * patch) * across, (top + rows * patch) * down)
    grid = Grid(rows, columns, box)
    return Layout((grid,), grid.patches)


def _resized(processor: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height after resizing: transformers' `get_resize_output_image_size`."""
    if not processor.do_resize:
        return size
    wanted, (width, height) = processor.size, size
    if wanted.height and wanted.width:
        return int(wanted.width), int(wanted.height)
    if not wanted.shortest_edge or wanted.longest_edge:
        raise ModelError(
            f"the image processor's size {wanted} is unknown; height and width, or shortest_edge"
        )
    short, long = int(wanted.shortest_edge), int(wanted.shortest_edge * max(size) / min(size))
    if short * long > MAX_PIXELS:
        told = f"{width} x {height} pixels: with a shorter side of {short} the longer one would be {long}"
        raise ImageError("aspect-ratio", told)
    return (short, long) if width <= height else (long, short)


def _crop(processor: Any, wide: int, high: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of the part that is kept: transformers' `center_crop`.

    Of an image smaller than the part, left and top are negative: zeros are put around it.
    """
    if not getattr(processor, "do_center_crop", None):
        return 0, 0, wide, high
    part = processor.crop_size
    return (wide - part.width) // 2, (high - part.height) // 2, part.width, part.height


def pixels(processor: Any, image: Any) -> Any:
    """Pixels [3, height, width] of one image, as the image processor makes them."""
    return processor(images=[image], return_tensors="pt")["pixel_values"][0].float()


def encode(tower: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int], skip: int) -> Encoded:
    """Hidden states of a batch without their first `skip` tokens, which are no patches."""
    import torch

    encoder: list[dict[int, torch.Tensor]] = [{} for _ in batch]
    for rows in _alike(batch):
        stacked = torch.stack([batch[row].pixels for row in rows]).to(tower.dtype)
        states = tower(pixel_values=stacked, output_hidden_states=True, return_dict=True).hidden_states
        for place, row in enumerate(rows):
            encoder[row] = {layer: states[layer][place, skip:] for layer in encoder_layers}
    return Encoded([], encoder)


def _alike(batch: Sequence[Inputs]) -> list[list[int]]:
    """Places in the batch of images that become equally many pixels, which a processor may not see to."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, item in enumerate(batch):
        groups.setdefault(tuple(item.pixels.shape), []).append(row)
    return list(groups.values())
