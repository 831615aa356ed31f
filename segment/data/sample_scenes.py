"""The ground the sample's trash lies on, and what lies there without being trash.

Pictures here are float32 RGB, (height, width, 3), 0 to 255, at the size the sample is drawn at.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def fractal_noise(
    rng: np.random.Generator,
    height: int,
    width: int,
    cell: float | tuple[float, float],
    octaves: int = 3,
) -> Array:
    """Smooth noise, each octave half as coarse and half as strong as the one before.

    Args:
        rng: Source of randomness.
        height: Rows, pixels.
        width: Columns, pixels.
        cell: Size of the coarsest blobs, pixels; or (vertical, horizontal) for streaks.
        octaves: How many.

    Returns:
        float32 (height, width), mean near 0, standard deviation near 1.
    """
    down, across = cell if isinstance(cell, tuple) else (cell, cell)
    total = np.zeros((height, width), np.float32)
    power = 0.0
    for octave in range(octaves):
        rows = max(2, round(height * 2**octave / down) + 1)
        columns = max(2, round(width * 2**octave / across) + 1)
        grid = rng.standard_normal((min(rows, height), min(columns, width)), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) * 0.5**octave
        power += 0.25**octave
    # Interpolation between independent values takes about a third off their spread.
    return total * np.float32(1.5 / power**0.5)


def random_colour(rng: np.random.Generator) -> Array:
    """Any colour a manufactured thing may have: whitish, dark or coloured. RGB, float32 (3,)."""
    kind = rng.random()
    if kind < 0.3:  # white, cream, pale grey
        saturation, value = rng.uniform(0, 0.15), rng.uniform(0.75, 0.97)
    elif kind < 0.42:  # near black
        saturation, value = rng.uniform(0, 0.5), rng.uniform(0.1, 0.28)
    else:
        saturation, value = rng.uniform(0.2, 0.75), rng.uniform(0.35, 0.92)
    return hsv(rng.uniform(0, 360), saturation, value)


def hsv(hue: float, saturation: float, value: float) -> Array:
    """RGB, float32 (3,) in 0 to 255, of a hue in degrees and two shares of one."""
    pixel = np.array([[[hue % 360, saturation, value]]], np.float32)
    rgb: Array = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * np.float32(255)
    return rgb


def _turned(rng: np.random.Generator, size: int, texture: Callable[[int], Array]) -> Array:
    """A texture of straight lines, seen at an angle."""
    wide = round(size * 1.45)  # the diagonal, so that no corner stays empty
    angle = rng.uniform(-40, 40) + 90 * int(rng.integers(2))
    matrix = cv2.getRotationMatrix2D((wide / 2, wide / 2), angle, 1.0)
    turned = cv2.warpAffine(texture(wide), matrix, (wide, wide), borderMode=cv2.BORDER_REFLECT)
    start = (wide - size) // 2
    return np.ascontiguousarray(turned[start : start + size, start : start + size])


def grass(rng: np.random.Generator, size: int) -> Array:
    """Blades of many lengths over dark ground."""
    hue = rng.uniform(55, 115)
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = hsv(hue - 10, 0.5, 0.3)
    unit = size / 512
    blades = 2200
    starts = rng.uniform(-0.02, 1.02, (blades, 2)) * size
    ways = rng.normal(0, 9, (blades, 2)) * unit + np.array([0, -9 * unit])
    tints = np.stack(
        [hue + rng.normal(0, 9, blades), np.full(blades, 0.5), rng.uniform(0.28, 0.72, blades)], 1
    )
    colours = cv2.cvtColor(tints[None].astype(np.float32), cv2.COLOR_HSV2RGB)[0] * 255
    ends = np.stack([starts, starts + ways], 1) * 16
    for (a, b), colour in zip(ends.astype(int).tolist(), colours.tolist(), strict=True):
        cv2.line(picture, a, b, colour, max(1, round(2 * unit)), shift=4)
    return picture * (1 + 0.1 * fractal_noise(rng, size, size, size / 3, 3))[..., None]


def asphalt(rng: np.random.Generator, size: int) -> Array:
    """Grey grit with stains and a crack or two."""
    base = hsv(rng.uniform(0, 360), rng.uniform(0, 0.12), rng.uniform(0.25, 0.6))
    grit = fractal_noise(rng, size, size, size / 100, 3)
    stains = fractal_noise(rng, size, size, size / 4, 3)
    picture = base * (1 + 0.13 * grit + 0.08 * stains)[..., None]
    for _ in range(int(rng.integers(0, 3))):
        walk = np.cumsum(rng.normal(0, 0.025, (60, 2)) + rng.normal(0, 0.015, 2), axis=0)
        points = _fixed((walk + rng.random(2)) * size)
        cv2.polylines(picture, [points], False, (base * 0.45).tolist(), 2, shift=4)
    return picture


def wood(rng: np.random.Generator, size: int) -> Array:
    """Planks with grain along them and dark gaps between."""

    def planks(wide: int) -> Array:
        base = hsv(rng.uniform(18, 38), rng.uniform(0.25, 0.6), rng.uniform(0.4, 0.8))
        width = rng.uniform(0.1, 0.22) * size
        row = np.arange(wide, dtype=np.float32)[:, None] / width
        shade = rng.normal(1, 0.09, int(wide / width) + 2).astype(np.float32)[row.astype(int)]
        grain = fractal_noise(rng, wide, wide, (width / 5, width * 4), 3)
        gap = np.minimum(row % 1, 1 - row % 1) * width < size / 200
        return base * (shade * (1 + 0.09 * grain) * np.where(gap, 0.45, 1))[..., None]

    return _turned(rng, size, planks)


def tiles(rng: np.random.Generator, size: int) -> Array:
    """Square or oblong tiles, or bricks, with joints."""

    def joints(wide: int) -> Array:
        base = hsv(rng.uniform(0, 360), rng.uniform(0, 0.3), rng.uniform(0.45, 0.88))
        height = rng.uniform(0.12, 0.3) * size
        width = height * rng.choice([1.0, 1.0, 2.0])
        y = np.arange(wide, dtype=np.float32)[:, None] / np.float32(height)
        x = np.arange(wide, dtype=np.float32)[None] / np.float32(width)
        x = x + (np.floor(y) % 2) * np.float32(rng.choice([0.0, 0.5]))
        table = rng.normal(1, 0.07, (64, 64)).astype(np.float32)
        shade = table[y.astype(np.int32), x.astype(np.int32)]
        edge = np.minimum(
            np.minimum(y % 1, 1 - y % 1) * height, np.minimum(x % 1, 1 - x % 1) * width
        )
        joint = edge < size / 110
        speckle = fractal_noise(rng, wide, wide, size / 12, 4)
        return base * (shade * (1 + 0.06 * speckle) * np.where(joint, 0.62, 1))[..., None]

    return _turned(rng, size, joints)


def sand(rng: np.random.Generator, size: int) -> Array:
    """Grains, dunes and ripples."""
    base = hsv(rng.uniform(25, 48), rng.uniform(0.15, 0.45), rng.uniform(0.5, 0.85))
    grains = fractal_noise(rng, size, size, size / 120, 2)
    dunes = fractal_noise(rng, size, size, size / 3, 3)
    y, x = np.mgrid[:size, :size].astype(np.float32) / np.float32(size)
    turn = rng.uniform(0, np.pi)
    along = np.float32(np.cos(turn)) * x + np.float32(np.sin(turn)) * y
    ripples = np.sin(along * np.float32(rng.uniform(40, 110)) + 1.5 * dunes)
    strength = np.float32(rng.choice([0.0, 0.05]))
    light = 1 + 0.1 * grains + 0.07 * dunes + strength * ripples
    return (base * light[..., None]).astype(np.float32)


GROUNDS = (grass, asphalt, wood, tiles, sand)


def _blob(rng: np.random.Generator, points: int, rough: float) -> NDArray[np.float64]:
    """A closed outline round the origin, radius near 1, float64 (points, 2)."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radius = 1 + rng.normal(0, rough, points)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]


def _paste(
    picture: Array, outline: NDArray[np.float64], colour: Array, shadow: tuple[float, float]
) -> None:
    """Fill an outline (pixels) with one colour over a hard little shadow."""
    fallen = outline + np.array(shadow)
    left, top = np.maximum(fallen.min(0).astype(int), 0).tolist()
    right, bottom = np.maximum(fallen.max(0).astype(int) + 2, 0).tolist()
    window = picture[top:bottom, left:right]
    shade = np.zeros(window.shape[:2], np.uint8)
    cv2.fillPoly(shade, [_fixed(fallen - [left, top])], 1, shift=4)
    window *= (1 - np.float32(0.4) * shade)[..., None]
    cv2.fillPoly(picture, [_fixed(outline)], colour.tolist(), shift=4)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Pixels in sixteenths, as cv2 draws them with `shift=4`."""
    return np.round(points * 16).astype(np.int32)


def scatter(rng: np.random.Generator, picture: Array, light: tuple[float, float]) -> None:
    """Leave leaves, stones, twigs, painted lines, stains on the ground: all of it background.

    Args:
        rng: Source of randomness.
        picture: Drawn on in place.
        light: Unit vector (x, y) along which shadows fall.
    """
    size = len(picture)
    fall = (light[0] * size / 120, light[1] * size / 120)
    if rng.random() < 0.25:  # a painted stripe
        a, b = rng.random((2, 2)) * size
        stripe = np.zeros((size, size), np.uint8)
        a, b = a + (a - b) * 5, b + (b - a) * 5
        cv2.line(stripe, a.astype(int).tolist(), b.astype(int).tolist(), 255, size // 24)
        worn = (stripe > 0) & (fractal_noise(rng, size, size, size / 20, 3) > -1.0)
        picture[worn] = picture[worn] * np.float32(0.3) + hsv(rng.uniform(40, 60), 0.2, 0.9) * 0.7
    if rng.random() < 0.5:  # the shadow of something outside the picture, or a damp stain
        shade = (fractal_noise(rng, size, size, size / 1.5, 2) > 0.7).astype(np.float32)
        soft: Array = cv2.GaussianBlur(shade, (0, 0), size / 100).astype(np.float32)
        picture *= (1 - np.float32(rng.uniform(0.2, 0.45)) * soft)[..., None]
    for _ in range(int(rng.integers(0, 9))):
        centre, turn = rng.random(2) * size, rng.uniform(0, 2 * np.pi)
        spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        kind = rng.choice(["leaf", "stone", "twig"], p=[0.45, 0.4, 0.15])
        if kind == "leaf":
            length = rng.uniform(0.02, 0.05) * size
            t = np.linspace(-1, 1, 12)
            half = (1 - np.abs(t) ** 1.7) * rng.uniform(0.3, 0.55)
            outline = np.concatenate([np.stack([t, half], 1), np.stack([t, -half], 1)[::-1]])
            colour = hsv(rng.uniform(15, 110), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.75))
            _paste(picture, outline * length @ spin.T + centre, colour, fall)
            ends = (np.array([[-1.4, 0], [0.9, 0]]) * length @ spin.T + centre).astype(int)
            cv2.line(picture, ends[0].tolist(), ends[1].tolist(), (colour * 0.6).tolist(), 2)
        elif kind == "stone":
            radius = rng.uniform(0.012, 0.035) * size
            outline = _blob(rng, 11, 0.1) * [1, rng.uniform(0.6, 1)] * radius @ spin.T + centre
            colour = hsv(rng.uniform(0, 60), rng.uniform(0, 0.2), rng.uniform(0.3, 0.75))
            _paste(picture, outline, colour, fall)
            lit = (outline - centre) * 0.55 + centre - np.array(fall) * 0.5
            cv2.fillPoly(picture, [_fixed(lit)], (colour * 1.15).tolist(), shift=4)
        else:
            walk = np.cumsum(rng.normal(0, 0.35, (9, 2)) + np.array([1.0, 0]), axis=0)
            points = (walk * size / 60) @ spin.T + centre
            colour = hsv(rng.uniform(15, 40), 0.45, rng.uniform(0.2, 0.5))
            thick = size // 170 + 1
            cv2.polylines(picture, [_fixed(points)], False, colour.tolist(), thick, shift=4)
