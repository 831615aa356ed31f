"""The trash of the sample that is round or square: cartons, cans, bottles, cups, batteries."""

import cv2
import numpy as np

from segment.data.sample_objects import Outline, Patch, Thing, densified, mixed, shaded
from segment.data.sample_scenes import Array


def _lathe(profile: list[tuple[float, float]]) -> Outline:
    """The outline of a turned thing from (y, half width) pairs, top to bottom."""
    side = np.array([(half, y) for y, half in profile])
    return np.concatenate([side, (side * [-1, 1])[::-1]])


def _cylinder(patch: Patch, half: float, contrast: float) -> Array:
    """Brightness of an upright cylinder: dark at both edges, lit off centre."""
    across = np.clip(patch.u / np.float32(half), -1, 1)
    lit = np.float32(-0.45 if patch.light[0] > 0 else 0.45)
    return 1.12 - np.float32(contrast) * (across - lit) ** 2


def paper_pack(rng: np.random.Generator) -> Thing:
    """A carton seen from a corner: three faces, each in its own light, a label on one."""
    turn = np.array([0.0, 2.1, 4.2]) + rng.normal(0, 0.18, 3) + np.pi / 6
    edges = np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(0.6, 1.05, (3, 1))
    a, b, c = edges
    hexagon = np.stack([a, a + b, b, b + c, c, c + a])
    middle = hexagon.mean(0)
    outline = densified(hexagon - middle, 6)
    outline += rng.normal(0, 0.008, outline.shape)

    def paint(patch: Patch) -> Array:
        u, v = patch.u + np.float32(middle[0]), patch.v + np.float32(middle[1])
        box = shaded(patch.colour, np.ones_like(u))
        shades = patch.rng.permutation([1.12, 0.82, 0.55])
        label = patch.accent()
        for face, (p, q) in enumerate([(a, b), (b, c), (c, a)]):
            s, t = np.linalg.solve(np.stack([p, q], 1), np.stack([u.ravel(), v.ravel()]))
            s, t = s.reshape(u.shape).astype(np.float32), t.reshape(u.shape).astype(np.float32)
            on = (s > -0.02) & (t > -0.02)
            skin = shaded(patch.colour, np.full_like(u, shades[face]))
            if face != 1:
                sticker = (s > 0.16) & (s < 0.84) & (t > 0.3) & (t < 0.75)
                skin = mixed(sticker, label * np.float32(shades[face]), skin)
                skin[sticker & (np.abs(t - 0.52) < 0.06) & (s > 0.28) & (s < 0.72)] *= 0.5
            skin[(np.minimum(s, t) < 0.025)] *= np.float32(0.7)  # the edges of the carton
            box = mixed(on, skin, box)
        return box * (1 + 0.03 * patch.noise(0.25))[..., None]

    return Thing([outline], paint)


def metal(rng: np.random.Generator) -> Thing:
    """A drinks can, perhaps dented: bands of glare, a lid with a ring pull."""
    half = rng.uniform(0.48, 0.6)
    t = np.linspace(0, np.pi, 13)
    dent = rng.uniform(0, 0.2, 2) * (rng.random() < 0.5)
    y = np.linspace(-0.78, 0.8, 24)
    sink = np.exp(-(((y - rng.uniform(-0.3, 0.3)) / 0.22) ** 2))
    taper = 1 - 0.1 * (np.abs(y - 0.01) > 0.7)
    right = np.stack([half * taper - dent[0] * sink, y], 1)
    left = np.stack([-half * taper + dent[1] * sink, y], 1)[::-1]
    bottom = np.stack([half * 0.9 * np.cos(t), 0.8 + 0.16 * np.sin(t)], 1)
    top = np.stack([-half * 0.9 * np.cos(t), -0.78 - 0.2 * np.sin(t)], 1)
    outline = np.concatenate([right, bottom, left, top])

    def paint(patch: Patch) -> Array:
        across = patch.u / np.float32(half)
        light = _cylinder(patch, half, 0.45)
        for _ in range(4):
            at, wide = patch.rng.uniform(-0.9, 0.9), patch.rng.uniform(0.03, 0.1)
            glare = np.exp(-(((across - np.float32(at)) / np.float32(wide)) ** 2))
            light += np.float32(patch.rng.choice([0.9, 0.6, -0.45])) * glare
        light = light + 0.08 * patch.noise((1.5, 0.06), 2)
        steel = shaded(np.array([176, 180, 186], np.float32), light)
        print_ = shaded(patch.colour, light)
        band = shaded(patch.accent(), light)
        can = mixed(np.abs(patch.v - 0.01) < 0.66, print_, steel)
        wave = 0.18 * np.sin(across * 3 + np.float32(patch.rng.uniform(0, 6)))
        can = mixed(np.abs(patch.v - wave) < 0.2, band, can)
        lid = np.sqrt((across / 0.9) ** 2 + ((patch.v + 0.78) / 0.2) ** 2)
        rings = np.float32(0.85) + np.float32(0.25) * np.sin(lid * 16)
        can = mixed(lid < 1, shaded(np.array([190, 193, 198], np.float32), rings), can)
        return mixed((lid < 0.45) & (np.abs(across) < 0.2), steel * np.float32(0.45), can)

    return Thing([outline], paint)


def glass(rng: np.random.Generator) -> Thing:
    """A long-necked bottle one looks through; some are broken off."""
    half, neck = rng.uniform(0.32, 0.42), rng.uniform(0.1, 0.14)
    shoulder = rng.uniform(-0.3, -0.1)
    profile = [(-1.0, neck * 1.25), (-0.92, neck * 1.25), (-0.9, neck), (shoulder - 0.25, neck)]
    rise = np.linspace(0, 1, 8)
    profile += [
        (shoulder - 0.22 + 0.42 * s, neck + (half - neck) * (0.5 - 0.5 * np.cos(np.pi * s)))
        for s in rise.tolist()
    ]
    foot = rng.uniform(0.45, 0.8) if rng.random() < 0.3 else 1.0
    if foot < 1.0:
        outline = _lathe([*profile, (foot, half)])
        at = len(profile) + 1
        x = np.linspace(half, -half, 9)[1:-1]
        teeth = np.stack([x, foot + rng.uniform(-0.2, 0.2, 7)], 1)
        outline = np.insert(outline, at, teeth, axis=0)
    else:
        outline = _lathe([*profile, (0.93, half), (0.98, half * 0.93), (1.0, half * 0.8)])

    def paint(patch: Patch) -> Array:
        width = np.where(patch.v < shoulder - 0.1, neck, half).astype(np.float32)
        across = np.clip(np.abs(patch.u) / width, 0, 1)
        # Light passes the wall slantwise at the sides, so glass is darkest and densest there.
        dense = np.float32(patch.rng.uniform(0.3, 0.5)) + 0.45 * across**4
        glow = np.float32(0.75) + np.float32(0.15) * np.clip(patch.v, -1, 1) ** 2
        glow -= np.float32(0.45) * across**4
        through = cv2.GaussianBlur(patch.behind[:, ::-1], (0, 0), max(1.0, patch.radius / 40))
        glazed = through * (1 - dense[..., None]) + shaded(patch.colour, glow) * dense[..., None]
        side = np.float32(-0.55 if patch.light[0] > 0 else 0.55) * width
        streak = np.exp(-(((patch.u - side) / (0.13 * width)) ** 2))
        rim = 0.5 * np.exp(-(((patch.u + side * 1.3) / (0.07 * width)) ** 2))
        shine = (streak + rim) * (np.abs(patch.v) < 0.9)
        return glazed + (shine * np.float32(170))[..., None]

    return Thing([outline], paint)


def plastic(rng: np.random.Generator) -> Thing:
    """A ribbed bottle with a cap, or a cup with a lid; opaque, with a striped label."""
    cup = rng.random() < 0.4
    half = rng.uniform(0.42, 0.55)
    if cup:
        foot = half * rng.uniform(0.6, 0.75)
        lid = [(-0.85, half * 0.8), (-0.83, half * 1.15), (-0.7, half * 1.15), (-0.69, half)]
        outline = _lathe([*lid, (0.85, foot), (0.9, foot * 0.9)])
    else:
        wave = [
            (y, half * (1 - 0.07 * (np.sin(y * 22) > 0.3) - 0.1 * np.exp(-((y / 0.15) ** 2))))
            for y in np.linspace(-0.4, 0.92, 40).tolist()
        ]
        cap = [(-1.0, 0.17), (-0.84, 0.17), (-0.83, 0.14), (-0.76, 0.15)]
        outline = _lathe([*cap, (-0.6, half * 0.75), *wave, (1.0, half * 0.85)])

    def paint(patch: Patch) -> Array:
        light = _cylinder(patch, half, 0.4)
        glare = np.exp(-(((patch.u + np.sign(patch.light[0]) * 0.2) / 0.05) ** 2))
        light = light + 0.35 * glare
        ribs = np.float32(0.0 if cup else 0.14) * np.sin(patch.v * 44)
        body = shaded(patch.colour, light + ribs)
        label = patch.accent()
        where = (patch.v > -0.15) & (patch.v < 0.4)
        stripe = np.sin(patch.v * np.float32(patch.rng.uniform(25, 40))) > 0
        skin = mixed(stripe, shaded(label, light), shaded(patch.accent(), light))
        body = mixed(where, skin, body)
        end = patch.v < (-0.69 if cup else -0.82)
        closure = shaded(label, light + 0.15 * np.sin(patch.u * 60))
        return mixed(end, closure, body)

    return Thing([outline], paint)


def battery(rng: np.random.Generator) -> Thing:
    """A small cell: two colours along its length, a nub at one end."""
    half = rng.uniform(0.26, 0.38)
    profile = [(-1.0, half * 0.35), (-0.9, half * 0.35), (-0.89, half * 0.9), (-0.84, half)]
    outline = _lathe([*profile, (0.93, half), (0.97, half * 0.9)])

    def paint(patch: Patch) -> Array:
        light = _cylinder(patch, half, 0.75)
        glare = np.exp(-(((patch.u + np.sign(patch.light[0]) * half * 0.4) / 0.05) ** 2))
        light = light + 0.6 * glare
        cell = mixed(patch.v < -0.35, shaded(patch.accent(), light), shaded(patch.colour, light))
        steel = shaded(np.array([185, 186, 190], np.float32), light)
        sign = (np.abs(patch.u) < 0.14) & (np.abs(patch.v - 0.1) < 0.035)
        sign |= (np.abs(patch.u) < 0.04) & (np.abs(patch.v - 0.1) < 0.12)
        cell = mixed(sign, cell * 0.35, cell)
        return mixed((patch.v < -0.84) | (patch.v > 0.9), steel, cell)

    return Thing([outline], paint)
