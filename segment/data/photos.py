"""Photos of any kind a user has, as 8-bit RGB the way a viewer shows them.

Turned as EXIF says; anything transparent is laid over white; 16-bit greys are scaled by
255 / 65535. Animations give their first picture. Colour profiles are not applied.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 200_000_000
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What the last byte of a whole file says; a cut one ends in the midst of its pixels.
_ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
_lock = threading.RLock()


def read_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a photo.

    Args:
        path: JPEG, PNG, WebP, BMP, TIFF or GIF of any bit depth up to 16, grey, palette, RGB or
            CMYK, with or without transparency.
        max_pixels: Largest height x width; a larger photo is refused before it is decoded.

    Returns:
        uint8 RGB (H, W, 3), contiguous and writable, H and W as displayed.

    Raises:
        ValueError: The file is missing, truncated, too large or no such photo.
    """
    with _opened(path, max_pixels) as image:
        orientation = _orientation(image, path)
        _load(image, path)
        return _rgb(image, orientation)


def photo_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read a photo's size from its header, without decoding it.

    Args:
        path: As for `read_photo`.
        max_pixels: As for `read_photo`.

    Returns:
        Height and width in pixels, as displayed: after the turn that EXIF asks for.

    Raises:
        ValueError: The file is missing, too large or no such photo.
    """
    with _opened(path, max_pixels) as image:
        return _shown(image, _orientation(image, path))


def check_ending(path: str | Path) -> None:
    """Refuse a photo that was cut short, as an interrupted copy leaves it.

    A few bytes at the end are read. Only where they are not those of a whole file, as behind a
    phone's motion photo, or in formats without an end mark, the photo is decoded.

    Args:
        path: As for `read_photo`.

    Raises:
        ValueError: The file is missing, truncated, too large or no such photo.
    """
    with _opened(path, MAX_PIXELS) as image:
        mark = _ENDINGS.get(str(image.format))
        if mark is None or not _tail(path).endswith(mark):
            _load(image, path)


def size_fault(path: str | Path, height: int, width: int) -> str | None:
    """Compare a photo with the size it has in its json, opening its header alone.

    Args:
        path: The photo.
        height: In the json, in pixels.
        width: In the json, in pixels.

    Returns:
        What differs and what to do, without a full stop; None where the sizes agree.

    Raises:
        ValueError: The file is missing, too large or no such photo.
    """
    with _opened(path, MAX_PIXELS) as image:
        orientation = _orientation(image, path)
        shown = _shown(image, orientation)
    if shown == (height, width):
        return None
    told = f"{path} is {shown[0]}x{shown[1]} (height x width), and {height}x{width} in the json"
    if shown != (width, height):
        return f"{told}; use the photo that was annotated, or annotate this one"
    if orientation >= 5:
        return (
            f"{told}, because its EXIF orientation {orientation} turns it when displayed; annotate "
            f"the photo as displayed, or remove that tag if it was annotated as stored"
        )
    return f"{told}; swap width and height there if the outlines fit the photo"


def name_fault(name: str) -> str | None:
    """Say why a json's `file_name` may not be opened, and the remedy; None for a sound one."""
    if not name.strip() or "\0" in name or re.search("[\ud800-\udfff]", name):
        return "`file_name` is empty or holds what no name may; name the photo"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "`file_name` is absolute; make it relative to the root of the photos"
    # Also where it climbs no further than it came down: past a link, `..` leads elsewhere.
    if ".." in PureWindowsPath(name).parts:  # which splits at both kinds of slash
        return "`file_name` climbs with `..`; make it a path below the root of the photos"
    return None


@contextmanager
def _opened(path: str | Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open a photo of at most `max_pixels`; anything that fails until it closes is a ValueError."""
    path = Path(path)
    try:
        found = path.is_file()
    except OSError:  # a name too long for the file system
        found = False
    if not found:
        raise ValueError(f"{path}: no such photo; restore the file or correct the path.")
    # Pillow's own limit is one number per process, and warns where ours would raise. The lock
    # keeps another thread from restoring it halfway.
    with _lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(path, formats=FORMATS) as image:
                height, width = _stored(image)
                if height * width > max_pixels:
                    raise _TooLargeError(
                        f"{path}: {height}x{width} is {height * width:,} pixels, more than the "
                        f"limit of {max_pixels:,}; make the photo smaller."
                    )
                yield image
        except _TooLargeError:
            raise
        except UnidentifiedImageError as error:
            raise ValueError(
                f"{path}: not a photo in a format that is read ({', '.join(FORMATS)}); convert it, "
                f"for example to PNG."
            ) from error
        except (
            Exception
        ) as error:  # decoders fail with nearly any type, struct.error to SyntaxError
            detail = str(error) or type(error).__name__
            raise ValueError(
                f"{path}: cannot be decoded ({detail}); copy the photo anew from its source, or "
                f"convert it to an 8-bit PNG."
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


class _TooLargeError(ValueError):
    """A photo of more pixels than allowed; its message is complete."""


def _tail(path: str | Path) -> bytes:
    """The end of a file, without the zeros that some cameras fill up with."""
    with Path(path).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        return file.read().rstrip(b"\0")


def _load(image: Image.Image, path: str | Path) -> None:
    """Decode; a JPEG without an end mark is refused, whose gap the decoder would fill with grey."""
    if image.format in ("JPEG", "MPO") and not _tail(path).endswith(_ENDINGS["JPEG"]):
        data = Path(path).read_bytes()
        place = 2
        while place < len(data) and data[place : place + 2] != b"\xff\xda":  # the pixels' start
            is_marker = data[place] == 0xFF and data[place + 1 : place + 2] != b"\xff"
            length = int.from_bytes(data[place + 2 : place + 4], "big")
            place += 2 + length if is_marker else 1  # past a thumbnail, which has its own end mark
        if data.find(_ENDINGS["JPEG"], place) < 0:
            raise ValueError("cut short: a JPEG's end mark is missing")
    image.load()


def _stored(image: Image.Image) -> tuple[int, int]:
    if hasattr(image, "tag_v2"):  # newer Pillows report a TIFF's size as already turned
        return image.tag_v2[257], image.tag_v2[256]
    return image.height, image.width


def _shown(image: Image.Image, orientation: int) -> tuple[int, int]:
    height, width = _stored(image)
    return (width, height) if orientation >= 5 else (height, width)


def _orientation(image: Image.Image, path: str | Path) -> int:
    """EXIF orientation of an opened photo, 1 to 8; 1 if there is none, or none that can be read.

    Decoding changes what Pillow knows of it, so it is asked before, here alone.
    """
    try:
        if image.format == "PNG":
            image = Image.open(BytesIO(_without_pixels(path)), formats=["PNG"])
        # Not image.getexif(): a PNG's decodes the whole photo to find an eXIf behind the pixels.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block must not cost a good photo
        return 1
    return value if value in _TURNS else 1


def _without_pixels(path: str | Path) -> bytes:
    """The header and the metadata of a PNG, which may stand before or behind its pixels."""
    kept = []
    with Path(path).open("rb") as file:
        kept.append(file.read(8))
        while len(start := file.read(8)) == 8 and start[4:] != b"IEND":
            length, kind = int.from_bytes(start[:4], "big"), start[4:]
            if kind in (b"IHDR", b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                kept.append(start + file.read(length + 4))
            else:
                file.seek(length + 4, os.SEEK_CUR)
    return b"".join([*kept, bytes(4), _ENDINGS["PNG"]])


def _rgb(image: Image.Image, orientation: int) -> np.ndarray:
    is_tiff = hasattr(image, "tag_v2")  # Pillow turns a TIFF while loading it
    turn = None if is_tiff else _TURNS.get(orientation)
    if image.mode.startswith("I"):
        image = _eight_bit(image)
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.has_transparency_data:
        # Hidden pixels hold anything; white is what a page shows through them.
        image = image.convert("LA") if image.mode == "La" else image
        picture = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    image = image.convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
    return np.array(image)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, mode I;16 or I, to mode L: 65535 becomes 255, to the nearest level."""
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("its grey values exceed 16 bits")
    scaled = ((grey + 128) // 257).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        scaled[grey == clear] = 255
    return Image.fromarray(scaled)
