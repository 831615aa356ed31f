"""Photos that are the same, or nearly: a photo in two splits makes a score better than it is.

Every photo is reduced to a digest of its pixels and a small grey picture. Small pictures are
compared by a 64-bit hash of their lowest frequencies, under all eight turns and flips; what is
close is laid over each other exactly and confirmed by correlation.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

_SIDE = 64  # of the small pictures, pixels
_REACH = 18  # bits of 63: a crop by 3 % flips up to 18, unrelated photos differ in 31
_ALIKE = 0.9  # correlation after alignment; other photos of such things reach 0.86
_HOPELESS = 0.2  # correlation before alignment, below which none is tried
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

    Memory grows with the number of photos, time with its square: 5,000 take a minute or two.

    Args:
        prints: One for each photo.

    Yields:
        Each pair once, in the order of its first photo.
    """
    if not prints:
        return
    hashes = np.stack([[_hash(turned) for turned in _turns(p.small)] for p in prints])
    upright = np.ascontiguousarray(hashes[:, 0])
    blocks = range(0, len(prints), _BLOCK)
    for start in tqdm(blocks, desc="confirming copies", unit="block", delay=2, disable=None):
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
    """Correlation of the detail of two small pictures, as they are or laid over each other."""
    soft = [cv2.GaussianBlur(side.astype(np.float32), (0, 0), 1) for side in (a, b)]
    # Of detail only: that both are pale with something dark amid it makes no copy.
    detail = [side - cv2.GaussianBlur(side, (0, 0), 5) for side in soft]
    inner = [_without_bars(side) for side in (a, b)]
    best = _correlation(detail[0], detail[1], inner[0] & inner[1])
    if best > _ALIKE or best < _HOPELESS:
        return best
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        start = np.eye(2, 3, dtype=np.float32)
        _, warp = cv2.findTransformECC(soft[0], soft[1], start, cv2.MOTION_AFFINE, stop)
    except cv2.error:  # it does not converge on photos that have nothing in common
        return best
    # Any two photos are alike once one is squeezed enough: a copy is cropped a little at most.
    if np.abs(warp[:, :2] - np.eye(2)).max() > 0.12 or np.abs(warp[:, 2]).max() > 0.12 * _SIDE:
        return best
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(detail[1], warp, (_SIDE, _SIDE), flags=how)
    covered = cv2.warpAffine(inner[1].astype(np.float32), warp, (_SIDE, _SIDE), flags=how) > 0.999
    return max(best, _correlation(detail[0], moved, inner[0] & covered))


def _without_bars(small: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a picture shows something: bars beside it make any two photos alike."""
    bars = ((small < 3) | (small > 252)).astype(np.uint8)
    inner: NDArray[np.bool_] = cv2.dilate(bars, np.ones((5, 5), np.uint8)) == 0
    return inner if inner.mean() > 0.05 else np.ones_like(inner)


def _correlation(a: NDArray[Any], b: NDArray[Any], where: NDArray[np.bool_]) -> float:
    x, y = a[where], b[where]
    if x.size < 100 or min(x.std(), y.std()) < 1:
        return 0.0  # photos of nothing are alike without being copies
    return float(np.corrcoef(x, y)[0, 1])
