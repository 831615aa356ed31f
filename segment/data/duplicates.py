"""Photos that are the same, or nearly: a photo in two splits makes a score better than it is.

Every photo is reduced to a digest of its pixels and a small grey picture. Small pictures are
compared by a 64-bit hash of their lowest frequencies, under all eight turns and flips; what is
close is laid over each other exactly and confirmed by correlation.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 64  # of the small pictures, pixels
_REACH = 14  # bits of 63: a crop by 3 % flips up to a dozen, unrelated photos differ in 31
_ALIKE = 0.97  # correlation after alignment
_BLOCK = 64  # photos compared with all others at once: 20 MB of differences at 5,000 photos


class Print(NamedTuple):
    """What is kept of a photo.

    Attributes:
        digest: SHA-256 of size and pixels.
        small: Grey, uint8 (64, 64), whatever the photo's proportions.
        size: Height and width of the photo, pixels.
    """

    digest: bytes
    small: NDArray[np.uint8]
    size: tuple[int, int]


class Twins(NamedTuple):
    """Two photos that show the same.

    Attributes:
        first: Place of one in the list.
        second: Place of the other, later in it.
        exact: Whether every pixel is equal.
        likeness: Correlation of the two, laid over each other; 1 for exact ones.
        turned: Whether one is turned or mirrored.
    """

    first: int
    second: int
    exact: bool
    likeness: float
    turned: bool


def take_print(pixels: NDArray[np.uint8]) -> Print:
    """Reduce a photo, uint8 RGB (H, W, 3), to what comparing takes."""
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{height}x{width}".encode() + pixels.tobytes()).digest()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return Print(digest, small.astype(np.uint8), (height, width))


def find_twins(prints: Sequence[Print]) -> Iterator[Twins]:
    """Find photos that are copies of each other: re-encoded, brightened, cropped a little, turned.

    Memory grows with the number of photos, time with its square: 5,000 take seconds.

    Args:
        prints: One for each photo.

    Yields:
        Each pair once, in the order of its first photo.
    """
    if not prints:
        return
    hashes = np.stack([[_hash(turned) for turned in _turns(p.small)] for p in prints])
    upright = np.ascontiguousarray(hashes[:, 0])
    for start in range(0, len(prints), _BLOCK):
        block = hashes[start : start + _BLOCK]
        nearest = np.full((len(block), len(prints)), 64, np.uint8)
        for turn in range(8):
            far = np.bitwise_count(block[:, turn, None] ^ upright[None])
            np.minimum(nearest, far, out=nearest)
        for row, second in np.argwhere(nearest <= _REACH).tolist():
            first = start + row
            if first < second and (twins := _confirmed(prints, first, second, hashes)):
                yield twins


def _confirmed(
    prints: Sequence[Print], first: int, second: int, hashes: NDArray[np.uint64]
) -> Twins | None:
    a, b = prints[first], prints[second]
    if a.digest == b.digest:
        return Twins(first, second, True, 1.0, False)
    far = np.bitwise_count(hashes[first] ^ hashes[second, 0])
    best, upright = 0.0, True
    for turn in np.flatnonzero(far <= _REACH).tolist():
        if (likeness := _likeness(list(_turns(a.small))[turn], b.small)) > best:
            best, upright = likeness, turn == 0
    return Twins(first, second, False, best, not upright) if best >= _ALIKE else None


def _turns(small: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """The picture itself, then its other seven turns and flips."""
    for flipped in (small, small[:, ::-1]):
        for quarter in range(4):
            yield np.ascontiguousarray(np.rot90(flipped, quarter))


def _hash(small: NDArray[np.uint8]) -> np.uint64:
    """Which of the 63 lowest frequencies lie above their median, a bit for each."""
    low = cv2.dct(small.astype(np.float32))[:8, :8].ravel()[1:]
    bits = np.append(low > np.median(low), False)
    return np.packbits(bits).view(np.uint64)[0]


def _likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Correlation of two small pictures once one is shifted and scaled to lie on the other."""
    soft = [cv2.GaussianBlur(side.astype(np.float32), (0, 0), 1) for side in (a, b)]
    if min(side.std() for side in soft) < 1:
        return 0.0  # photos of nothing are alike without being copies
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        likeness, _ = cv2.findTransformECC(
            soft[0], soft[1], np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, stop
        )
    except cv2.error:  # it does not converge on photos that have nothing in common
        return 0.0
    return float(likeness)
