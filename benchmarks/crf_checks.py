"""Two figures on the native CRF: mirrored photos, and classes that are left out.

python benchmarks/crf_checks.py mirror --photos FOLDER_OR_PHOTO [FOLDER_OR_PHOTO ...]
python benchmarks/crf_checks.py left_out --answers RUN/crf/val/cache [FOLDER ...]

`mirror`: which share of the labels differs between a photo and its mirror image, left to right and
upside down, of ten photos of each folder at three sizes, with smooth noise of 4 and 11 classes for
probabilities: least, median and largest over photos and axes.

`left_out`: `leave_out_below` against all classes on ten photos of each folder of answers that
`tune_crf` kept: share of equal labels, and time, the two alternating. Without --answers: drawn
photos of 512x512 pixels and smooth noise of 61 classes of which 4, 10 or 30 are there.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from crf import SHARPNESS, crf, drawn, probabilities

from segment.crf import DenseCRF
from segment.data.photos import read_photo
from segment.tuning.cache import read_example

SIZES = ((90, 120), (240, 320), (512, 512))  # height, width
CLASSES = (4, 11)
PHOTOS, ROUNDS = 10, 3
BELOW = 0.01
MANY, PRESENT = 61, (4, 10, 30)  # classes without --answers, and those of them that are there


def some(given: list[Path], endings: tuple[str, ...]) -> list[Path]:
    """Files as they are, and of each folder PHOTOS files spread over it."""
    found = []
    for path in given:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in endings)
        if path.is_dir() and not inside:
            raise SystemExit(f"{path}: no {' or '.join(endings)} in it.")
        step = max(1, len(inside) // PHOTOS)
        found += inside[::step][:PHOTOS] if path.is_dir() else [path]
    return found


def moved(photo: np.ndarray, p: np.ndarray, axis: int) -> float:
    """Share of the labels that mirroring a photo (H, W, 3) and its maps along an axis moves."""
    refined = crf("native")
    mirrored = refined(np.flip(photo, axis).copy(), np.flip(p, axis + 1).copy()).numpy()
    back = np.flip(mirrored, axis + 1).argmax(0)
    return float((back != refined(photo, p).numpy().argmax(0)).mean())


def mirror(given: list[Path]) -> None:
    """Print what moves, size by size."""
    photos = [read_photo(path) for path in some(given, (".jpg", ".jpeg", ".png"))]
    everything: list[float] = []
    for height, width in SIZES:
        sized = [cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in photos]
        for classes in CLASSES:
            for kind in SHARPNESS:
                shares = []
                for number, photo in enumerate(sized):
                    p = probabilities(number, classes, height, width, kind)
                    shares += [moved(photo, p, axis) for axis in (0, 1)]
                everything += shares
                print(f"{width}x{height}, {classes} classes, {kind}: {told(shares)}", flush=True)
    print(f"{len(photos)} photos, all of these: {told(everything)}")


def told(shares: list[float]) -> str:
    """Least, median and largest."""
    least, median, most = min(shares), statistics.median(shares), max(shares)
    return f"{least:.2%} to {most:.2%} of the labels move, median {median:.2%}"


Case = tuple[np.ndarray, torch.Tensor]  # a photo and its probabilities


def kept(folder: Path) -> Iterator[Case]:
    """Answers that `tune_crf` kept."""
    for path in some([folder], (".npz",)):
        example = read_example(path)
        yield example.photo, torch.from_numpy(example.probabilities)


def few_of_many(present: int) -> Iterator[Case]:
    """Smooth noise of some classes of MANY; the others have 1 in 100,000 each."""
    for seed in range(PHOTOS):
        p = np.full((MANY, *SIZES[-1]), 1e-5, np.float32)
        p[:present] = probabilities(seed, present, *SIZES[-1], "soft")
        yield drawn(seed, *SIZES[-1]), torch.from_numpy(p / p.sum(0))


def left_out(sets: dict[str, Iterator[Case]]) -> None:
    """Print what leaving out costs and gains, set by set."""
    refined, few = crf("native"), replace(crf("native"), leave_out_below=BELOW)
    for name, cases in sets.items():
        equal, ratios, absent = [], [], []
        for photo, p in cases:
            absent.append(int((p.amax((1, 2)) < BELOW).sum()))
            same = refined(photo, p).argmax(0) == few(photo, p).argmax(0)
            equal.append(float(same.double().mean()))
            for _ in range(ROUNDS):
                took = [seconds(one, photo, p) for one in (refined, few)]
                ratios.append(took[1] / took[0])
        print(
            f"{name}: {len(equal)} photos, {len(p)} classes, {statistics.mean(absent):.1f} of "
            f"them below {BELOW}: {statistics.mean(equal):.6%} of the labels equal, of a photo "
            f"{min(equal):.6%} at least; time {statistics.median(ratios):.2f} of before",
            flush=True,
        )


def seconds(refined: DenseCRF, photo: np.ndarray, p: torch.Tensor) -> float:
    """Of one call."""
    start = time.perf_counter()
    refined(photo, p)
    return time.perf_counter() - start


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="what", required=True)
    verbs.add_parser("mirror").add_argument("--photos", type=Path, nargs="+", required=True)
    verbs.add_parser("left_out").add_argument("--answers", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    if options.what == "mirror":
        mirror(options.photos)
        return
    sets = {str(folder): kept(folder) for folder in options.answers}
    left_out(sets or {f"{n} of {MANY} classes": few_of_many(n) for n in PRESENT})


if __name__ == "__main__":
    main()
