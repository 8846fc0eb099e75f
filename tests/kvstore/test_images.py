"""Every kind of file that a folder of images can hold: what is read, and what is refused, and why."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import sys
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from kvstore.errors import ImageError
from kvstore.images import MAX_PIXELS, Header, decode, header


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 40, height: int = 24) -> Image.Image:
    """Noise in colour, so that every turn of it looks different."""
    pixels = np.random.RandomState(0).randint(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    return tuple(int(v) for v in np.asarray(image)[y, x])


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return caught.value.reason


def test_a_plain_image_is_read_with_its_size_and_digest() -> None:
    data = encoded(photo())
    found = decode(data)
    assert (found.width, found.height, found.format, found.orientation) == (40, 24, "PNG", 1)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.bytes == len(data)
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(photo()))


def test_what_is_no_image_is_refused_with_its_reason() -> None:
    jpeg = encoded(photo(200, 160), "JPEG")
    assert refused(b"") == "empty"
    assert refused(b"this is a text, named .jpg\n") == "not-an-image"
    assert refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not-an-image"
    assert refused(jpeg[: len(jpeg) // 2]) == "truncated"
    assert refused(encoded(photo(200, 160))[:300]) == "truncated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_any_cut_of_any_format_is_an_image_error_or_the_whole_image(kind: str) -> None:
    data = encoded(photo(64, 48), kind)
    for end in range(0, len(data), max(1, len(data) // 60)):
        try:
            found = decode(data[:end])
        except ImageError:
            continue
        assert (found.width, found.height) == (64, 48)  # only an unneeded tail was cut


def test_broken_bytes_never_raise_anything_else() -> None:
    rng = np.random.RandomState(1)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = np.frombuffer(encoded(photo(64, 48), kind), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[rng.randint(0, len(whole), 8)] = rng.randint(0, 256, 8)
            with contextlib.suppress(ImageError):
                assert decode(broken.tobytes()).image.mode == "RGB"


def test_no_flipped_byte_of_a_png_is_drawn() -> None:
    whole = encoded(photo(64, 48))
    for place in range(0, whole.index(b"IEND") - 4, 5):
        with pytest.raises(ImageError):
            decode(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])


@pytest.mark.parametrize("side", [9_500, 20_000])  # Pillow would warn of the first and refuse the second
def test_a_decompression_bomb_is_refused_unread_and_unwarned(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refused(png_header(side, side)) == "too-large"
        with pytest.raises(ImageError) as caught:
            header(png_header(side, side))
    assert caught.value.reason == "too-large"
    assert side * side > MAX_PIXELS


def test_the_pixel_limit_itself_is_no_bomb() -> None:
    found = header(png_header(MAX_PIXELS // 1000, 1000))
    assert (found.width, found.height) == (MAX_PIXELS // 1000, 1000)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_odd_sizes_are_images(size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size, (10, 20, 30)))
    found = decode(data)
    assert found.image.size == (header(data).width, header(data).height) == size
    assert pixel(found.image, size[0] - 1, size[1] - 1) == (10, 20, 30)


def test_cmyk_becomes_rgb() -> None:
    found = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = pixel(found.image, 8, 8)
    assert red > 240
    assert green < 15
    assert blue < 15


def test_transparency_is_composited_on_white() -> None:
    half = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    expected = round(200 * 128 / 255 + 255 * 127 / 255)
    red, green, blue = pixel(decode(encoded(half)).image)
    assert abs(red - expected) <= 1
    assert abs(green - 127) <= 1
    assert abs(blue - 127) <= 1
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    assert pixel(decode(encoded(clear)).image) == (255, 255, 255)
    assert pixel(decode(encoded(Image.new("LA", (4, 4), (0, 0)))).image) == (255, 255, 255)
    assert pixel(decode(encoded(Image.new("L", (4, 4), 7), transparency=7)).image) == (255, 255, 255)


def test_palette_with_alpha() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    found = decode(encoded(image, transparency=bytes([255, 0]))).image
    assert pixel(found, 0) == (255, 0, 0)
    assert pixel(found, 1) == (255, 255, 255)


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.array([[0, 257, 32896, 65535]], np.uint16)  # 257 * (0, 1, 128, 255)
    for kind in ("PNG", "TIFF"):
        found = decode(encoded(Image.fromarray(grey), kind)).image
        assert np.asarray(found)[0, :, 0].tolist() == [0, 1, 128, 255]
    pgm = b"P5 4 1 65535\n" + grey.astype(">u2").tobytes()
    assert np.asarray(decode(pgm).image)[0, :, 1].tolist() == [0, 1, 128, 255]
    wide = Image.fromarray(np.array([[0, 70_000]], np.int32))
    assert refused(encoded(wide, "TIFF")) == "unreadable"


def test_a_jpeg_of_several_pictures_gives_its_first() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    red, _, blue = pixel(decode(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])).image)
    assert red > 240
    assert blue < 15


def test_one_bit_and_floating_point() -> None:
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert [pixel(decode(encoded(bits)).image, x) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]
    assert refused(encoded(Image.new("F", (2, 2), 0.5), "TIFF")) == "unreadable"


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixel(decode(data).image) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_does(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(photo(), kind, exif=exif, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    found = decode(data)
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(expected))
    assert found.orientation == orientation
    assert found.image.size == ((24, 40) if orientation >= 5 else (40, 24))
    assert header(data) == Header(*found.image.size, kind, orientation)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage that is no TIFF", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0", b"Exif\0\0II*\0"]
)
def test_a_broken_exif_block_is_passed_over(exif: bytes) -> None:
    data = encoded(photo(), "JPEG", exif=exif)
    assert decode(data).orientation == 1
    assert header(data) == Header(40, 24, "JPEG", 1)


def test_an_orientation_out_of_range_is_passed_over() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert decode(encoded(photo(), "JPEG", exif=exif)).orientation == 1


# ------------------------------------------------------------------------------------------- AVIF and HEIC


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def near(ours: Image.Image, theirs: Image.Image) -> bool:
    """Whether two images differ by lossy coding alone; turned ones of noise differ by about 80."""
    difference = np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)
    return ours.size == theirs.size and abs(difference).mean() < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_image_is_upright(orientation: int) -> None:
    found = decode(encoded(photo(64, 48), "AVIF", quality=95, exif=turned(orientation)))
    jpeg = Image.open(io.BytesIO(encoded(photo(64, 48), "JPEG", quality=95, exif=turned(orientation))))
    assert (found.format, found.orientation) == ("AVIF", orientation)
    assert near(found.image, ImageOps.exif_transpose(jpeg).convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_image_is_upright_by_its_reader(orientation: int) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pip install 'kvstore[heic]'")
    buffer = io.BytesIO()
    heif.from_pillow(photo(64, 48)).save(buffer, quality=95, exif=turned(orientation).tobytes())
    jpeg = Image.open(io.BytesIO(encoded(photo(64, 48), "JPEG", quality=95, exif=turned(orientation))))
    found, head = decode(buffer.getvalue()), header(buffer.getvalue())
    assert head == Header(*found.image.size, "HEIF", 1)
    assert near(found.image, ImageOps.exif_transpose(jpeg).convert("RGB"))
    assert refused(buffer.getvalue()[:300]) in ("truncated", "unreadable")


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_without_its_reader_a_heic_image_names_the_remedy(
    brand: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install 'kvstore\[heic\]'") as caught:
        decode(b"\0\0\0\x18ftyp" + brand + bytes(40))
    assert caught.value.reason == "unreadable"
