"""One photo of the sample: ground, clutter, trash in its shadows, and the camera."""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.data import sample_containers as containers
from segment.data import sample_objects as objects
from segment.data.sample_objects import Patch, Thing
from segment.data.sample_scenes import GROUNDS, Array, fractal_noise, random_colour, scatter

DRAWN = 2  # drawn this many times as large as written, then averaged down
_SMALLEST = 30  # pixels at 256x256: less of an object is not annotated


class Kind(NamedTuple):
    """One category of the set."""

    name: str
    supercategory: str
    share: float  # of all objects, %
    scale: float  # size beside the others
    draw: Callable[[np.random.Generator], Thing]


# Shares follow what hand-sorted household litter shows: paper and bags lead, batteries are rare.
KINDS = (
    Kind("General trash", "other", 16.0, 0.9, objects.general_trash),
    Kind("Paper", "paper", 27.7, 0.95, objects.paper),
    Kind("Paper pack", "paper", 7.0, 0.95, containers.paper_pack),
    Kind("Metal", "metal", 4.0, 0.85, containers.metal),
    Kind("Glass", "glass", 4.0, 1.15, containers.glass),
    Kind("Plastic", "plastic", 11.6, 0.95, containers.plastic),
    Kind("Styrofoam", "plastic", 5.0, 1.0, objects.styrofoam),
    Kind("Plastic bag", "plastic", 22.1, 1.2, objects.plastic_bag),
    Kind("Battery", "hazardous", 0.7, 0.65, containers.battery),
    Kind("Clothing", "textile", 1.9, 1.35, objects.clothing),
)

# However small the set, every category is in it, and the two rarest more than once.
_FIRST = (*range(1, 11), 9, 10, 9, 10)


def draw_photo(
    rng: np.random.Generator, size: int, place: int
) -> tuple[NDArray[np.uint8], list[tuple[int, NDArray[np.bool_]]]]:
    """Draw one photo.

    Args:
        rng: Source of randomness.
        size: Height and width, pixels.
        place: The photo's number; each of the first holds a given category, that none be missing.

    Returns:
        uint8 RGB (size, size, 3), and for every object its category id and what is seen of it, as
        drawn: bool, twice as high and wide.
    """
    wide = size * DRAWN
    turn = rng.uniform(0, 2 * np.pi)
    light = (math.cos(turn), math.sin(turn))
    picture = GROUNDS[int(rng.integers(len(GROUNDS)))](rng, wide)
    scatter(rng, picture, light)
    shares = np.array([kind.share for kind in KINDS])
    count = int(rng.choice(6, p=[0.14, 0.23, 0.25, 0.19, 0.12, 0.07])) + 1
    categories = (rng.choice(len(KINDS), count, p=shares / shares.sum()) + 1).tolist()
    if place < len(_FIRST):
        categories[0] = _FIRST[place]
    owner = np.zeros((wide, wide), np.uint8)
    crowd = 1.12 - 0.07 * count
    for number, category in enumerate(categories, 1):
        _place(rng, picture, owner, number, KINDS[category - 1], crowd, light)
    seen = [(category, owner == number) for number, category in enumerate(categories, 1)]
    least = _SMALLEST * (size / 256) ** 2 * DRAWN**2
    return _photographed(rng, picture, size), [(c, v) for c, v in seen if v.sum() >= least]


def _place(
    rng: np.random.Generator,
    picture: Array,
    owner: NDArray[np.uint8],
    number: int,
    kind: Kind,
    crowd: float,
    light: tuple[float, float],
) -> None:
    """Draw one object where it hides no earlier one by more than half, if there is such a place."""
    wide = len(picture)
    before = np.bincount(owner.ravel(), minlength=number + 1)
    margin = wide // 16
    thing: Thing = kind.draw(rng)
    for _ in range(8):
        radius = kind.scale * crowd * wide * math.exp(rng.uniform(math.log(0.13), math.log(0.3)))
        centre = rng.uniform(0.08, 0.92, 2) * wide
        turn = rng.uniform(0, 2 * np.pi)
        spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        placed = [line @ spin * radius + centre for line in thing.outline]
        ends = np.concatenate(placed)
        left, top = np.clip(ends.min(0).astype(int) - margin, 0, wide).tolist()
        right, bottom = np.clip(ends.max(0).astype(int) + margin, 0, wide).tolist()
        window = np.s_[top:bottom, left:right]
        shape = np.zeros((bottom - top, right - left), np.uint8)
        fixed = [np.round((line - [left, top]) * 16).astype(np.int32) for line in placed]
        cv2.fillPoly(shape, fixed, 1, shift=4)
        inside = shape > 0
        hidden = np.bincount(owner[window][inside], minlength=number + 1)
        in_sight = inside.sum() > 0.25 * radius**2
        if in_sight and (hidden[1:number] <= 0.5 * before[1:number]).all():
            break
    else:
        return
    behind, on = picture[window], shape.astype(np.float32)

    # Two shadows: a long soft one, and a dark line where the object touches the ground.
    fall = rng.uniform(0.015, 0.04) * wide
    shift = np.array([[1, 0, light[0] * fall], [0, 1, light[1] * fall]], np.float32)
    shadow = cv2.warpAffine(on, shift, (on.shape[1], on.shape[0]))
    shadow = np.maximum(
        0.45 * cv2.GaussianBlur(shadow, (0, 0), wide / 110),
        0.3 * cv2.GaussianBlur(on, (0, 0), wide / 170),
    )
    behind *= (1 - shadow)[..., None]

    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    own = np.stack([x - np.float32(centre[0]), y - np.float32(centre[1])], -1) / np.float32(radius)
    u, v = np.moveaxis(own @ spin.T.astype(np.float32), -1, 0)
    lit = np.array(light) @ spin.T
    colour = _standing_out(rng, behind[inside].mean(0))
    patch = Patch(rng, u, v, behind.copy(), colour, (float(lit[0]), float(lit[1])), radius)
    painted = np.clip(thing.paint(patch), 4, 250)
    behind[inside] = painted[inside]
    owner[window][inside] = number


def _standing_out(rng: np.random.Generator, ground: Array) -> Array:
    """A colour that differs from the ground's: an outline nobody can see cannot be learnt."""
    for _ in range(8):
        colour = random_colour(rng)
        if np.linalg.norm(colour - ground) > 75:
            break
    return colour


def _photographed(rng: np.random.Generator, picture: Array, size: int) -> NDArray[np.uint8]:
    """What a camera makes of the scene: uneven light, a little blur, colour cast and noise."""
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:size, :size].astype(np.float32) / np.float32(size) - np.float32(0.5)
    a, b = rng.normal(0, 0.22, 2).astype(np.float32)
    level = rng.uniform(0.82, 1.1) * (1 + a * x + b * y - 0.25 * (x**2 + y**2))
    cast = rng.normal(1, 0.03, 3)
    small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.3, 0.75)))
    grain = rng.standard_normal(small.shape, np.float32) * np.float32(rng.uniform(1.5, 5))
    smeared = fractal_noise(rng, size, size, 3, 1)[..., None]  # what a camera's own filter leaves
    lit = small * (level[..., None] * cast).astype(np.float32)
    return np.clip(lit + grain + smeared, 0, 255).astype(np.uint8)
