"""COCO outlines, polygons and run-length encodings, as checked run lengths.

pycocotools decodes an RLE shorter than its photo into uninitialised memory, and coordinates that
are huge or not numbers crash it; so everything is checked here before it sees anything.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

_LONGEST_OUTLINE = 10_000_000  # pixels; pycocotools takes 40 bytes for each


def annotation_fault(annotation: dict[str, Any], height: int, width: int) -> str | None:
    """Say what is wrong with an annotation's outline, and the remedy.

    Args:
        annotation: One entry of the json's `annotations`; its `segmentation` should be a list of
            polygons, or an RLE as a dict.
        height: Of the photo, in pixels.
        width: Of the photo, in pixels.

    Returns:
        A sentence without its subject, or None for a sound outline.
    """
    segmentation = annotation.get("segmentation")
    if segmentation in (None, [], {}, ""):
        empty = "an empty" if "segmentation" in annotation else "no"
        if annotation.get("bbox"):
            return (
                f"has a bbox but {empty} segmentation, and a box is no outline; outline the object"
            )
        return f"has {empty} segmentation; outline the object or delete the annotation"
    if isinstance(segmentation, dict):
        return _rle_fault(segmentation, height, width)
    if not isinstance(segmentation, list):
        return f"has the segmentation {short(segmentation)}; give polygons or an RLE"
    if not isinstance(segmentation[0], list | dict):
        return "has one flat list as its segmentation; put each polygon into a list of its own"
    for number, polygon in enumerate(segmentation):
        if fault := _polygon_fault(polygon, height, width):
            return f"has a polygon (number {number} of its segmentation) {fault}"
    return None


def reaches_outside(segmentation: Any, height: int, width: int) -> bool:
    """Whether a sound outline has a polygon that leaves the photo, where it will be clipped."""
    if isinstance(segmentation, dict):
        return False
    return any(
        min(polygon) < 0 or max(polygon[0::2]) > width or max(polygon[1::2]) > height
        for polygon in segmentation
    )


def run_lengths(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Turn a sound outline into run lengths.

    Args:
        segmentation: An outline in which `annotation_fault` found no fault. Several polygons are
            one object, their union.
        height: Of the photo, in pixels.
        width: Of the photo, in pixels.

    Returns:
        int64 lengths of runs, alternately outside and inside the object and starting outside, down
        the first column, then the next; they add up to height x width.
    """
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        return np.array(counts, np.int64) if isinstance(counts, list) else _unpack(counts)
    polygons = [np.asarray(polygon, np.float64) for polygon in segmentation]
    parts = mask_api.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    return _unpack(mask_api.merge(parts)["counts"])


def _polygon_fault(polygon: Any, height: int, width: int) -> str | None:
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        return f"that is not a flat list of numbers, but {short(polygon)}; write [x, y, x, y, ...]"
    if len(polygon) % 2:
        return f"with an odd number of coordinates, {len(polygon)}; write x and y in turn"
    if len(polygon) < 6:
        return f"of {len(polygon) // 2} points; it takes 3, so complete or delete it"
    reach = max(height, width)
    for value in polygon:
        # Not `value < -reach or ...`, which NaN would pass. An int may be too large for a float.
        if not -reach <= value <= 2 * reach:
            return (
                f"with the coordinate {short(value)}, far outside its {height}x{width} photo; "
                f"was it drawn at another size? Draw it anew or delete it"
            )
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    length = np.abs(np.diff(points, axis=0)).max(axis=1).sum()
    if length > _LONGEST_OUTLINE:
        return f"that is {length:.0f} pixels long; simplify or delete it"
    return None


def _rle_fault(rle: dict[str, Any], height: int, width: int) -> str | None:
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        hint = " (width and height are swapped)" if size == [width, height] else ""
        return (
            f"has an RLE of size {short(size)} on a photo of [height, width] [{height}, {width}]"
            f"{hint}; encode it at the photo's size"
        )
    pixels = height * width
    if isinstance(counts, str):
        try:
            lengths = _unpack(counts)
        except ValueError as error:
            return f"has an RLE whose compressed counts are damaged ({error}); encode it anew"
        bad = bool(((lengths < 0) | (lengths > pixels)).any())
    elif isinstance(counts, list) and set(map(type, counts)) <= {int}:
        bad = any(not 0 <= count <= pixels for count in counts)
        lengths = np.array([] if bad else counts, np.int64)
    else:
        return "has an RLE whose counts are neither a string nor whole numbers; encode it anew"
    if bad:
        return "has an RLE with a negative or far too large count; encode it anew"
    if lengths.sum() != pixels:
        return (
            f"has an RLE that covers {lengths.sum()} pixels of a photo of {pixels}; encode it anew"
        )
    return None


def _unpack(text: str | bytes) -> np.ndarray:
    """Decode COCO's compressed counts, as `rleFrString` in pycocotools' maskApi.c does.

    A number is written in characters of 6 bits, 48 added to each: 5 bits of the number, least
    significant first, and a bit that says whether more follow. The highest bit of the last
    character is the sign. From the fourth number on, each is the difference to the one before the
    last.
    """
    if isinstance(text, str):
        text = text.encode("utf-8", errors="surrogatepass")
    if not text:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError("a character that is not one of theirs")
    last = np.flatnonzero(codes & 32 == 0)
    if not len(last) or last[-1] != len(codes) - 1:
        raise ValueError("the end is missing")
    first = np.concatenate([[0], last[:-1] + 1])
    digits = last - first + 1
    if digits.max() > 7:
        raise ValueError("a number beyond 32 bits")
    place = np.arange(len(codes)) - np.repeat(first, digits)
    values = np.add.reduceat((codes & 31) << (5 * place), first)
    values -= np.where(codes[last] & 16, 1 << (5 * digits), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def paint_runs(flat: np.ndarray, lengths: np.ndarray, value: int) -> None:
    """Write `value` inside an object, without ever making a mask of the object alone.

    Args:
        flat: The mask, integers (H * W,), column after column; written to.
        lengths: From `run_lengths`.
        value: Train id, or number of the object.
    """
    ends = np.cumsum(lengths).tolist()
    for start, end in list(pairwise(ends))[::2]:
        flat[start:end] = value


def short(value: Any) -> str:
    """Show a value of the json in a message, cut to 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits; deep nesting
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
