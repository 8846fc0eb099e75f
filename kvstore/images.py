"""Image files read safely: bytes in, an upright 8-bit RGB image or an `ImageError` with its reason out.

Only the formats in `FORMATS` are tried, so no file can reach Pillow's readers that start other programs. The
pixel limit is checked on the header, before anything is decoded. Nothing global in Pillow is read or changed
for that: `PIL.Image.open` would print its own warning about large images, so its readers are called directly.
HEIC, which Pillow does not read, is read by pillow-heif (the extra ``heic``), loaded when a file asks for it.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import (  # the imports register the readers in Image.OPEN
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from kvstore.budget import Budget
from kvstore.errors import ImageError

FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        BmpImagePlugin.BmpImageFile,
        GifImagePlugin.GifImageFile,
        TiffImagePlugin.TiffImageFile,
        PpmImagePlugin.PpmImageFile,
        AvifImagePlugin.AvifImageFile,
    )
)

#: What the names of image files end in, in small letters.
ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif"),
)

#: Brands of HEIF files whose pictures are HEVC's; the last two may hold AV1's, which the AVIF reader takes.
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")

#: Images of more pixels are refused unread (`too-large`): a quarter GiB at 3 bytes a pixel, which is where
#: Pillow starts to warn. No model of ours sees more than a few megapixels.
MAX_PIXELS = 2**28 // 3

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"  # the last piece: its name and its checksum

#: Pixels of images that are being decoded at a time, over all threads: as many as the largest image may have,
#: so that many threads with large images take no more memory than one. Who works on with the image, and means
#: that to count, takes its pixels first.
IN_FLIGHT = Budget(MAX_PIXELS)

#: Images are turned into RGB by strips of so many pixels, where that needs memory besides the RGB's own.
_STRIP = 2**20

#: A PPM with so many bytes of header, comments included, is refused, and a plain one with so many comments.
_SINGLE_BYTES, _COMMENTS = 4096, 1000

_EXIF_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image file, decoded.

    image         upright, mode RGB
    width, height upright, pixels
    format        as Pillow names it: JPEG, PNG, ...
    orientation   EXIF's, 1 to 8; `image` has been turned by it
    sha256        of the file's bytes, hex: what an image is known by
    bytes         size of the file
    """

    image: Image.Image
    width: int
    height: int
    format: str
    orientation: int
    sha256: str
    bytes: int


def decode(data: bytes) -> Decoded:
    """Decode an image file's bytes.

    EXIF orientation is applied, as ``transformers.image_utils.load_image`` does. Transparency is composited
    on white (`load_image` shows whatever colour lies under it). 16-bit grey is scaled by 1/257 and rounded,
    not clipped. Of an animation the first frame is taken.

    Raises `ImageError`: ``empty``, ``not-an-image``, ``truncated``, ``too-large``, ``unreadable``.
    """
    image = _open(data)
    format_ = image.format or ""
    check_sums(data)
    try:
        with IN_FLIGHT.taking(image.width * image.height):
            upright, orientation = _upright(image)
    except ImageError:
        raise
    except Exception as error:  # a hostile file can raise anything from a reader
        raise _refusal(error, format_) from error
    digest = hashlib.sha256(data).hexdigest()
    return Decoded(upright, *upright.size, format_, orientation, digest, len(data))


def check_sums(data: bytes) -> None:
    """Hold a PNG's pixels to their checksums, which Pillow passes over: it draws what damage left.

    Raises `ImageError` (``unreadable``) where one differs, and where the lengths of its pieces do not lead to
    its end; what is cut off is left to the reader.
    """
    place, kind = len(_PNG), b""
    while data.startswith(_PNG) and kind != _PNG_END[:4] and place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4])
        kind, said = data[place + 4 : place + 8], data[end : end + 4]
        summed = kind == b"IDAT" and len(said) == 4
        if summed and zlib.crc32(memoryview(data)[place + 4 : end]) != int.from_bytes(said):
            raise ImageError("unreadable", "PNG: its pixels do not fit their checksum: it is damaged")
        place = end + 4
    if data.startswith(_PNG) and kind != _PNG_END[:4] and _PNG_END in data:
        raise ImageError("unreadable", "PNG: the lengths of its pieces do not fit: it is damaged")


def _upright(image: ImageFile.ImageFile) -> tuple[Image.Image, int]:
    """The decoded RGB image, turned, and EXIF's orientation, by which it was turned."""
    turned = image.format == "TIFF"  # by Pillow itself, in load()
    orientation = _orientation(image) if turned else 0
    image.load()
    orientation = orientation or _orientation(image)
    upright = _rgb(image)
    return upright if turned or orientation == 1 else upright.transpose(_TRANSPOSE[orientation]), orientation


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file says of itself: upright size in pixels, format, EXIF orientation."""

    width: int
    height: int
    format: str
    orientation: int


def header(data: bytes) -> Header:
    """Size and orientation of an image, without decoding it.

    Raises `ImageError` as `decode` does, but for faults that only decoding can find.
    """
    image = _open(data)
    width, height = image.size
    with IN_FLIGHT.taking(width * height):
        orientation = _orientation(image) if _may_be_turned(image, data) else 1
    if orientation >= 5 and image.format != "TIFF":  # Pillow gives a TIFF's size upright
        width, height = height, width
    return Header(width, height, image.format or "", orientation)


def _may_be_turned(image: ImageFile.ImageFile, data: bytes) -> bool:
    """False when asking Pillow costs time in vain: a PNG's EXIF may follow its pixels, so it decodes them."""
    marks = (b"eXIf", b"Raw profile type", b"iTXt", b"tiff:Orientation")
    return image.format != "PNG" or any(mark in data for mark in marks)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header; `ImageError` for what is empty, of no known format, or too large."""
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    image = _first_reader(data)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError("too-large", f"{width} x {height} pixels; at most {MAX_PIXELS} are decoded")
    if image.format == "PPM" and data[1:2] in b"123" and data.count(b"#") > _COMMENTS:
        raise ImageError("unreadable", f"PPM: it has more than {_COMMENTS} comments")
    return image


def _first_reader(data: bytes) -> ImageFile.ImageFile:
    fault: ImageError | None = None
    for name in FORMATS:
        reader, accepts = Image.OPEN[name]
        if accepts and accepts(data[:16]) is not True:  # a text means: the format, but not built into Pillow
            continue
        try:
            return reader(_Bytes(data), "")
        except Exception as error:
            fault = _refusal(error, name)
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
        return _heic(data)
    if fault:
        raise fault
    raise ImageError("not-an-image", f"no known image format; it begins with {data[:16]!r}")


class _Bytes(io.BytesIO):
    """A file of which few single bytes can be read: so Pillow reads a PPM's header, comments included."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _SINGLE_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if size == 1:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"its header has more than {_SINGLE_BYTES} bytes")
        return super().read(size)


def _heic(data: bytes) -> ImageFile.ImageFile:
    """A HEIC image, whose reader turns it upright and says so in its EXIF."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        remedy = "reading it needs pillow-heif: pip install 'kvstore[heic]'"
        raise ImageError("unreadable", f"this is a HEIC image, and {remedy}") from error
    try:
        image: ImageFile.ImageFile = HeifImageFile(io.BytesIO(data), "")
    except Exception as error:
        raise _refusal(error, "HEIC") from error
    return image


def _refusal(error: Exception, format_: str) -> ImageError:
    """What a reader's failure means."""
    cut = isinstance(error, EOFError | IndexError | struct.error) or "truncated" in str(error).lower()
    return ImageError("truncated" if cut else "unreadable", f"{format_}: {error or type(error).__name__}")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode."""
    if image.mode == "F":
        raise ImageError("unreadable", "floating point pixels have no fixed range to scale to 8 bit")
    if image.mode.startswith("I"):
        return _by_strips(image, _from_16_bit)
    return _by_strips(image, _on_white) if image.has_transparency_data else image.convert("RGB")


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """RGB of the whole, a strip at a time."""
    (width, height), made = image.size, Image.new("RGB", image.size)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        made.paste(convert(image.crop(box)), box)
    return made


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Grey of 0 to 65535 scaled to 0 to 255; Pillow's own conversion clips it."""
    grey: np.ndarray[Any, Any] = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise ImageError("unreadable", f"grey values from {grey.min()} to {grey.max()}; 0 to 65535 are known")
    return Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
