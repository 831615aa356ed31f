"""The photos worth looking at, and their pictures beside the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from segment.comparison.runs import Run
from segment.comparison.truth import label_path, read_labels
from segment.data.coco import CocoFile
from segment.data.photos import read_photo
from segment.data.taxonomy import IGNORE
from segment.prediction import overlay

EACH = 3  # photos for each reason and run
THUMB = 150  # width of each of a thumbnail's three parts, pixels
LONGEST_SIDE = 4096  # larger photos are written smaller: browsers do not draw them
REASONS = ("worst", "best", "most changed", "most improved", "most damaged", "runs disagree")


def choose(run: Run, each: int = EACH) -> dict[int, list[str]]:
    """Places of a run's photos that show something, and why.

    By mean IoU over the classes that a photo's truth shows: refined labels, where there are some;
    `most changed` by the share of pixels, improved and damaged by the gain of refining.
    """
    last = run.photo_scores(run.kinds[-1])
    orders = {"worst": last, "best": -last}
    if len(run.kinds) == 2:
        gain = last - run.photo_scores("raw")
        orders["most changed"] = np.where(run.changed > 0, -run.changed, np.nan)
        orders["most improved"] = np.where(gain > 0, -gain, np.nan)
        orders["most damaged"] = np.where(gain < 0, gain, np.nan)
    chosen: dict[int, list[str]] = {}
    for reason, order in orders.items():
        for place in np.argsort(order, kind="stable")[:each]:
            if not np.isnan(order[place]):
                chosen.setdefault(int(place), []).append(reason)
    return chosen


def disputed(runs: Sequence[Run], each: int = EACH) -> list[int]:
    """Places of the photos on which runs of the same photos differ most in mean IoU."""
    if len(runs) < 2:
        return []
    scores = np.stack([run.photo_scores(run.kinds[-1]) for run in runs])
    spread = scores.std(0)
    order = np.argsort(-spread, kind="stable")[:each]
    return [int(place) for place in order if spread[place] > 0]


def write_photos(
    out: Path, coco: CocoFile, runs: Sequence[Run], first: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Write chosen photos' pictures to `out/photos`.

    Args:
        out: The report's folder.
        coco: The annotations of all the runs.
        runs: The runs, scored on the same photos.
        first: Number of the first photo, where others have been written before.

    Returns:
        For the page: the photos, a card for each photo of a run, and sentences on what is missing.
    """
    reasons = [choose(run) for run in runs]
    for place in disputed(runs):
        for one in reasons:
            one.setdefault(place, []).append("runs disagree")
    scores = [{kind: run.photo_scores(kind) for kind in run.kinds} for run in runs]
    folder = out / "photos"
    folder.mkdir(exist_ok=True)
    photos: list[dict[str, Any]] = []
    cards: list[dict[str, Any]] = []
    missing = _missing(coco, runs)
    colors = np.array(coco.taxonomy.colors, np.uint8)
    wanted = sorted({place for one in reasons for place in one})
    for place in tqdm(wanted, desc="writing photos", unit="photo", delay=2, disable=None):
        photo = coco.photos[place]
        try:
            image = read_photo(coco.photo_path(photo))
        except ValueError as error:
            image = np.full((photo.height, photo.width, 3), 128, np.uint8)  # gone: labels alone
            if coco.photo_path(photo).is_file():
                missing.append(f"{error} It is shown grey.")
        truth = coco.paint(photo)
        number = first + len(photos)
        stem = f"photos/{number:05d}"
        _write_photo(out / f"{stem}.jpg", image)
        _write_map(out / f"{stem}_truth.png", truth, colors)
        shown = [int(train_id) for train_id in np.unique(truth) if train_id < len(colors)]
        names = [coco.taxonomy.classes[train_id] for train_id in shown]
        photos.append({"file": photo.file_name, "stem": stem, "classes": names})
        for index, run in enumerate(runs):
            if place not in reasons[index]:
                continue
            labels = {kind: read_labels(run, kind, photo.file_name) for kind in run.kinds}
            maps = {kind: each for kind, each in labels.items() if each is not None}
            if len(maps) < len(labels) or any(m.shape != truth.shape for m in maps.values()):
                continue
            for kind, each in maps.items():
                _write_map(out / f"{stem}_{run_number(run, runs)}_{kind}.png", each, colors)
            _write_thumb(
                out / f"{stem}_{run_number(run, runs)}.jpg", image, [truth, *maps.values()], colors
            )
            card: dict[str, Any] = {"photo": number, "run": run.name, "kinds": list(maps)}
            card["part"] = f"{stem}_{run_number(run, runs)}"
            card["why"] = reasons[index][place]
            for kind in maps:
                value = scores[index][kind][place]
                card[kind] = None if np.isnan(value) else round(float(value), 3)
            if len(maps) == 2:
                card["changed"] = round(float((maps["raw"] != maps["refined"]).mean()), 4)
            cards.append(card)
    return photos, cards, missing


def _missing(coco: CocoFile, runs: Sequence[Run]) -> list[str]:
    """What of the photos and label maps is gone, and what to do."""
    said = []
    gone = [photo.file_name for photo in coco.photos if not coco.photo_path(photo).is_file()]
    if gone:
        said.append(
            f"{_share(gone, coco)} are not in {coco.root}, so they are shown grey; if they were "
            f"moved, --root FOLDER says where they are."
        )
    for run in runs:
        lost = [
            photo.file_name
            for photo in coco.photos
            if not all(label_path(run, kind, photo.file_name).is_file() for kind in run.kinds)
        ]
        if lost:
            said.append(
                f"{run.name}: {run.folder / 'labels'} lacks the labels of {_share(lost, coco)}, so "
                f"this run's are not shown, nor its recall by object size; copy the folder from "
                f"where the run was made, or score the run again."
            )
    return said


def _share(names: Sequence[str], coco: CocoFile) -> str:
    number = len(coco.photos)
    if len(names) == number:
        return f"all {number} photos"
    return f"{len(names)} of {number} photos (such as {names[0]})"


def run_number(run: Run, runs: Sequence[Run]) -> int:
    """A run's place, for names of files: its own name may hold anything."""
    return next(place for place, one in enumerate(runs) if one is run)


def _write_photo(path: Path, image: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(image)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    picture.save(path, quality=88)


def _write_map(path: Path, labels: NDArray[np.uint8], colors: NDArray[np.uint8]) -> None:
    """Labels in their colours, clear where unlabelled or black, to lie over the photo."""
    picture = Image.fromarray(labels)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.NEAREST)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = colors
    picture.putpalette(palette.tobytes())
    picture.save(path, transparency=bytes(255 if color.any() else 0 for color in palette))


def _write_thumb(
    path: Path,
    image: NDArray[np.uint8],
    maps: Sequence[NDArray[np.uint8]],
    colors: NDArray[np.uint8],
) -> None:
    """Truth, raw and refined over the photo, side by side."""
    Image.fromarray(np.hstack(_overlays(image, maps, colors, THUMB))).save(path, quality=82)


def _overlays(
    image: NDArray[np.uint8],
    maps: Sequence[NDArray[np.uint8]],
    colors: NDArray[np.uint8],
    width: int,
) -> list[NDArray[np.uint8]]:
    """Labels over the photo, each `width` wide and at most twice as high."""
    height = min(2 * width, max(1, round(width * image.shape[0] / image.shape[1])))
    size = width, height
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    shrunk = [cv2.resize(each, size, interpolation=cv2.INTER_NEAREST) for each in maps]
    return [overlay(small, np.asarray(each, np.uint8), colors) for each in shrunk]


def side_by_side(run: Run, coco: CocoFile, place: int, width: int = 320) -> Image.Image:
    """A photo as it is, and under its truth, raw and refined labels, for a notebook.

    Args:
        run: The run.
        coco: Its annotations; see `annotations_of`.
        place: Of the photo, as `choose` returns it.
        width: Of each of the pictures, pixels.

    Returns:
        RGB, from left to right; labels that the run has no more are left out.

    Raises:
        ValueError: The photo cannot be read.
    """
    photo = coco.photos[place]
    image = read_photo(coco.photo_path(photo))
    found = [read_labels(run, kind, photo.file_name) for kind in run.kinds]
    clear = np.full(image.shape[:2], IGNORE, np.uint8)
    maps = [clear, coco.paint(photo), *(each for each in found if each is not None)]
    colors = np.array(coco.taxonomy.colors, np.uint8)
    return Image.fromarray(np.hstack(_overlays(image, maps, colors, width)))
