"""Points, boxes and masks land where the marked pixel lands when Pillow turns the image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from kvstore.errors import ImageError
from kvstore.masks import from_array, to_array
from kvstore.upright import stored_size, turn_box, turn_mask, turn_of, turn_point

WIDTH, HEIGHT = 7, 4  # as stored


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The array as Pillow's own exif_transpose turns it."""
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_marked_pixel_and_its_annotations_go_together(orientation: int) -> None:
    stored = np.zeros((HEIGHT, WIDTH), np.uint8)
    stored[1, 5] = 1  # x 5, y 1
    ((y,), (x,)) = np.nonzero(turned(stored, orientation))
    size = (WIDTH, HEIGHT, orientation)
    assert turn_point((5.5, 1.5), *size) == (x + 0.5, y + 0.5)
    assert turn_box((5, 1, 6, 2), *size) == (x, y, x + 1, y + 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_turn_as_the_image(orientation: int) -> None:
    stored = np.random.RandomState(3).randint(0, 2, (HEIGHT, WIDTH)).astype(np.uint8)
    found = to_array(turn_mask(from_array(stored), WIDTH, HEIGHT, orientation))
    np.testing.assert_array_equal(found, turned(stored, orientation))


def test_a_mask_of_another_size_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="mask of"):
        turn_mask(from_array(np.zeros((3, 3))), WIDTH, HEIGHT, 6)


def test_what_the_annotations_speak_of() -> None:
    assert stored_size(40, 24, 6) == (24, 40)
    assert stored_size(40, 24, 3) == (40, 24)
    assert turn_of((24, 40), 40, 24, 6) == 6  # declared as stored: turn them
    assert turn_of((40, 24), 40, 24, 6) == 1  # declared upright: leave them
    assert turn_of((40, 24), 40, 24, 3) == 3  # cannot tell: as stored
    assert turn_of((24, 24), 24, 24, 6) == 6
    assert turn_of(None, 40, 24, 8) == 8
    with pytest.raises(ImageError, match="80 x 48") as caught:
        turn_of((80, 48), 40, 24, 1)
    assert caught.value.reason == "changed"
