"""The trash the sample draws, each an outline and a surface: here the sheets, scraps and cloths.

An outline is in the object's own coordinates: radius about 1, x to the right, y down. A surface is
painted pixel by pixel from those coordinates. Colours come from one distribution for all kinds, so
that shape and texture tell them apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segment.data.sample_scenes import Array, fractal_noise, random_colour

Outline = NDArray[np.float64]


@dataclass(frozen=True)
class Patch:
    """The pixels an object may cover.

    Attributes:
        rng: Source of randomness.
        u: Across the object, own coordinates, float32 (height, width).
        v: Down the object, likewise.
        behind: What is seen where the object is not, float32 RGB (height, width, 3).
        colour: The object's main colour, float32 (3,).
        light: Unit vector in own coordinates along which shadows fall.
        radius: Pixels to one unit of the own coordinates.
    """

    rng: np.random.Generator
    u: Array
    v: Array
    behind: Array
    colour: Array
    light: tuple[float, float]
    radius: float

    def noise(self, cell: float | tuple[float, float], octaves: int = 3) -> Array:
        """Fractal noise whose coarsest blobs are `cell` own units wide, float32 (height, width)."""
        down, across = cell if isinstance(cell, tuple) else (cell, cell)
        pixels = (max(1.5, down * self.radius), max(1.5, across * self.radius))
        height, width = self.u.shape
        return fractal_noise(self.rng, height, width, pixels, octaves)

    def accent(self) -> Array:
        """A second colour, well apart from the main one."""
        for _ in range(8):
            colour = random_colour(self.rng)
            if np.abs(colour - self.colour).max() > 90:
                break
        return colour

    def slope(self) -> Array:
        """Brightness from the side of the light to the side away from it, about -1 to 1."""
        return -(self.u * np.float32(self.light[0]) + self.v * np.float32(self.light[1]))


Paint = Callable[[Patch], Array]


class Thing(NamedTuple):
    """One object: its outer outline and holes (even-odd), and how its surface looks."""

    outline: list[Outline]
    paint: Paint


def shaded(colour: Array, brightness: Array) -> Array:
    """One colour, (3,), or a picture, lit by a (height, width) brightness."""
    return colour * np.clip(brightness, 0.05, 2.2)[..., None]


def mixed(where: NDArray[np.bool_] | Array, yes: Array, no: Array) -> Array:
    """`yes` where `where`, (height, width), is true or as far as it is 1; `no` elsewhere."""
    share = where.astype(np.float32)[..., None]
    return yes * share + no * (1 - share)


def densified(corners: Outline, steps: int) -> Outline:
    """The polygon with `steps` points on each side."""
    ahead = np.roll(corners, -1, axis=0)
    t = np.arange(steps)[:, None] / steps
    return np.concatenate([a + (b - a) * t for a, b in zip(corners, ahead, strict=True)])


def _smoothed(outline: Outline, rounds: int = 2) -> Outline:
    """Chaikin's corner cutting."""
    for _ in range(rounds):
        ahead = np.roll(outline, -1, axis=0)
        pairs = np.stack([0.75 * outline + 0.25 * ahead, 0.25 * outline + 0.75 * ahead], 1)
        outline = pairs.reshape(-1, 2)
    return outline


def _folds(patch: Patch, count: int, strength: float) -> Array:
    """Brightness of creased sheet: flat facets that meet in straight folds."""
    brightness = np.zeros_like(patch.u)
    for _ in range(count):
        turn, offset = patch.rng.uniform(0, np.pi), patch.rng.uniform(-0.6, 0.6)
        side = np.float32(np.cos(turn)) * patch.u + np.float32(np.sin(turn)) * patch.v
        away = side - np.float32(offset)
        step = np.float32(patch.rng.normal(0, strength))
        brightness += step * np.sign(away) * np.exp(-np.abs(away) * np.float32(1.2))
    return brightness


def general_trash(rng: np.random.Generator) -> Thing:
    """A spiky heap of scraps in several colours."""
    points = int(rng.integers(16, 30))
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False) + rng.normal(0, 0.07, points)
    radius = 0.72 + rng.uniform(-0.3, 0.36, points)
    squeeze = np.array([1, rng.uniform(0.6, 1)])
    outline = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] * squeeze

    def paint(patch: Patch) -> Array:
        seeds = patch.rng.uniform(-1, 1, (14, 2)).astype(np.float32)
        bend = patch.noise(0.5, 2) * np.float32(0.09)
        far = [(patch.u + bend - x) ** 2 + (patch.v - bend - y) ** 2 for x, y in seeds]
        scraps = np.argmin(far, axis=0)
        palette = np.stack([patch.colour, patch.accent(), random_colour(patch.rng)])
        each = palette[patch.rng.integers(0, 3, 14)] * patch.rng.uniform(0.55, 1.15, (14, 1))
        dirt = 1 + 0.12 * patch.noise(0.15) - 0.25 * (patch.noise(0.5) > 0.9)
        return each.astype(np.float32)[scraps] * dirt[..., None]

    return Thing([outline], paint)


def paper(rng: np.random.Generator) -> Thing:
    """A torn, creased sheet with printed lines."""
    tall = rng.uniform(0.6, 0.95)
    sides = np.array([[-0.75, -tall], [0.75, -tall], [0.75, tall], [-0.75, tall]])
    corners = sides + rng.normal(0, 0.12, (4, 2))
    outline = densified(corners, 14)
    outline += rng.normal(0, rng.choice([0.008, 0.03]), outline.shape)
    if rng.random() < 0.35:  # a corner folded in
        outline = np.delete(outline, np.arange(14 - 4, 14 + 4), axis=0)

    def paint(patch: Patch) -> Array:
        light = 1 + _folds(patch, 7, 0.1) + 0.03 * patch.noise(0.3) + 0.06 * patch.slope()
        sheet = shaded(patch.colour, light)
        pitch = np.float32(patch.rng.uniform(0.13, 0.2))
        line = (patch.v / pitch) % 1 < 0.42
        word = np.sin(patch.u * 31 + np.floor(patch.v / pitch) * 17) > -0.75
        column = (np.abs(patch.u) < 0.58) & (np.abs(patch.v) < tall - 0.17)
        ink = patch.colour * (0.35 if patch.colour.mean() > 90 else 2.6)
        picture = (np.abs(patch.u - 0.25) < 0.25) & (np.abs(patch.v + 0.3) < 0.22)
        if patch.rng.random() < 0.4:
            line = line & ~picture
            sheet = mixed(picture & column, shaded(patch.accent(), light), sheet)
        # Some sheets are blank, and then only creases and edges tell.
        strength = np.float32(patch.rng.choice([0.75, 0.5, 0.0], p=[0.5, 0.3, 0.2]))
        return mixed((line & word & column) * strength, shaded(ink, light), sheet)

    return Thing([outline], paint)


def styrofoam(rng: np.random.Generator) -> Thing:
    """A tray, or a chunk broken out of one, packed from beads."""
    tray = rng.random() < 0.5
    if tray:
        tall = rng.uniform(0.55, 0.8)
        corners = np.array([[-0.95, -tall], [0.95, -tall], [0.95, tall], [-0.95, tall]])
        outline = _smoothed(densified(corners, 4), 2)
        if rng.random() < 0.4:  # a piece is broken off
            bite = (outline[:, 0] > 0.3) & (outline[:, 1] < 0)
            outline[bite] *= rng.uniform(0.5, 0.85, (int(bite.sum()), 1))
    else:
        angle = np.linspace(0, 2 * np.pi, 44, endpoint=False)
        lobes = 0.78 + 0.13 * np.sin(angle * int(rng.integers(2, 5)) + rng.uniform(0, 6))
        outline = np.stack([np.cos(angle), np.sin(angle) * rng.uniform(0.55, 0.9)], 1)
        outline *= (lobes + rng.uniform(-0.05, 0.05, 44))[:, None]

    def paint(patch: Patch) -> Array:
        # Beads of one size in pixels, for foam beads are of one size whatever is made of them.
        pitch = np.float32(max(4.5 / patch.radius, 0.075))
        x, y = patch.u / pitch + 200, patch.v / pitch + 200
        x = x + 0.5 * (y.astype(int) % 2)
        jitter = patch.rng.uniform(-0.17, 0.17, (2, 64, 64)).astype(np.float32)
        row, column = y.astype(int) % 64, x.astype(int) % 64
        dx, dy = x % 1 - 0.5 + jitter[0, row, column], y % 1 - 0.5 + jitter[1, row, column]
        beads = 0.2 - 0.95 * (dx**2 + dy**2)
        light = 1 + beads + 0.06 * patch.noise(0.6, 2) + 0.1 * patch.slope()
        if tray:
            rim = np.maximum(np.abs(patch.u) / 0.95, np.abs(patch.v) / tall)
            light = light - 0.3 * ((rim > 0.68) & (rim < 0.78) & (patch.slope() < 0))
            light = light + 0.2 * ((rim > 0.68) & (rim < 0.78) & (patch.slope() >= 0))
        return shaded(patch.colour, light)

    return Thing([outline], paint)


def plastic_bag(rng: np.random.Generator) -> Thing:
    """A thin wrinkled bag, two handles torn or whole; a little of the ground shows through."""
    top = [(-0.2, -0.36), (0.2, -0.36), (0.62, -0.2)]
    base = [(0.85, 0.25), (0.8, 0.7), (0.45, 0.9), (0, 0.8), (-0.45, 0.9), (-0.8, 0.7)]
    body = np.array([*top, *base, (-0.85, 0.25), (-0.62, -0.2)])
    body += rng.normal(0, 0.07, body.shape)
    # Handles are loops on top; a hole in each, where the bag lies spread.
    left = np.array([[-0.62, -0.7], [-0.5, -1.0], [-0.25, -1.02], [-0.16, -0.75], [-0.22, -0.4]])
    right = (left * [-1, 1])[::-1]
    left, right = left + rng.uniform(-0.1, 0.1, 2), right + rng.uniform(-0.1, 0.1, 2)
    outer = np.concatenate([left, body[:2], right, body[2:]])
    outline = _smoothed(outer, 3)
    outline += 0.012 * np.sin(np.arange(len(outline)) * rng.uniform(0.8, 1.6))[:, None]
    holes = [
        _smoothed((loop - loop.mean(0)) * [0.45, 0.5] + loop.mean(0) + [0, -0.06], 2)
        for loop in (left, right)
        if rng.random() < 0.75
    ]

    def paint(patch: Patch) -> Array:
        # Wrinkles run together at the knot, so noise is stretched along rays from there.
        turn = np.arctan2(patch.u, patch.v + 0.9)
        away = np.hypot(patch.u, patch.v + 0.9)
        phase = patch.rng.uniform(0, 6, 3).astype(np.float32)
        bend = 0.5 * patch.noise(0.5, 2)
        wrinkle = np.abs(np.sin(turn * 7 + bend + phase[0])) + 0.6 * np.abs(
            np.sin(turn * 13 - bend * 2 + away * 3 + phase[1])
        )
        light = 0.72 + 0.35 * wrinkle + 0.15 * patch.slope()
        glint = np.clip(patch.noise((0.25, 0.25), 3) - 1.1, 0, 1) * (wrinkle > 0.9)
        dense = np.clip(np.float32(patch.rng.uniform(0.72, 0.95)) - 0.1 * wrinkle, 0, 1)
        film = shaded(patch.colour, light) + (glint * np.float32(220))[..., None]
        return film * dense[..., None] + patch.behind * (1 - dense[..., None])

    return Thing([outline, *holes], paint)


def clothing(rng: np.random.Generator) -> Thing:
    """A shirt or trousers thrown down: woven cloth, soft folds."""
    if rng.random() < 0.6:
        half = [(0.16, -0.72), (0.4, -0.8), (0.98, -0.35), (0.8, -0.02), (0.5, -0.25), (0.48, 0.9)]
    else:
        half = [(0.5, -0.9), (0.56, -0.5), (0.62, 0.95), (0.18, 0.95), (0.06, -0.1)]
    right = np.array(half) + rng.normal(0, 0.07, (len(half), 2))
    left = (np.array(half) * [-1, 1])[::-1] + rng.normal(0, 0.07, (len(half), 2))
    outline = _smoothed(densified(np.concatenate([right, left]), 3), 2)
    outline += 0.02 * np.sin(np.arange(len(outline)) * 0.55)[:, None]

    def paint(patch: Patch) -> Array:
        thread = np.float32(2 * np.pi * patch.radius / 6.5)  # one thread in 6.5 drawn pixels
        weave = 0.13 * np.sin(patch.u * thread) * np.sin(patch.v * thread)
        folds = 0.16 * patch.noise((0.9, 0.5), 2)
        light = 0.95 + weave + folds
        bend = 0.05 * patch.noise(0.5, 2)
        pitch = np.float32(patch.rng.uniform(14, 24))
        stripe = np.sin((patch.v + bend) * pitch) > 0.2
        kind = patch.rng.choice(["plain", "stripes", "plaid"], p=[0.25, 0.4, 0.35])
        cloth = shaded(patch.colour, light)
        if kind == "plain":
            return cloth
        share = stripe.astype(np.float32) * 0.6
        if kind == "plaid":
            share = share * 0.7 + 0.4 * (np.sin((patch.u + bend) * pitch) > 0.2)
        return mixed(share, shaded(patch.accent(), light), cloth)

    return Thing([outline], paint)
