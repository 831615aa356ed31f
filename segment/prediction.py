"""One photo's probabilities -> the files that `segment.predict` writes."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle

from segment.crf import DenseCRF
from segment.data.coco import CocoFile
from segment.data.taxonomy import Taxonomy
from segment.files import write_json
from segment.labels import labels_of, with_kept
from segment.scoring import refine, write_labels

# Endings of photos inside a folder; a photo named by itself may have any.
ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
# Endings of photos that are not read: of phones, of newer formats, and raw ones of cameras.
UNREAD = {".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw"}


@dataclass(frozen=True)
class Source:
    """A photo to predict.

    Args:
        path: The file.
        name: Unique in the output: the path below its folder.
        image_id: Its id in a COCO json, else a number that no photo of a json has.
    """

    path: Path
    name: str
    image_id: int


@dataclass(frozen=True)
class Job:
    """A photo with the network's answer, and what to make of it."""

    image: np.ndarray
    probabilities: np.ndarray  # at most as large as the CRF works, or the photo
    source: Source
    out: Path
    crf: DenseCRF | None
    taxonomy: Taxonomy
    heat_maps: bool
    save_probabilities: bool


@dataclass(frozen=True)
class Predicted:
    """What the lists of all photos need of one."""

    source: Source
    size: tuple[int, int]
    areas: dict[int, int]  # pixels by train id
    rles: dict[int, str]
    scores: dict[int, float]


def write_prediction(job: Job) -> Predicted:
    """Refine one photo and write its files."""
    height, width = job.image.shape[:2]
    probabilities = job.probabilities
    if job.crf is not None:
        probabilities, _ = refine(job.image, probabilities, job.crf)
    labels = labels_of(torch.from_numpy(probabilities), (height, width))
    if job.crf is not None and job.crf.keep_classes:
        own = labels_of(torch.from_numpy(job.probabilities), (height, width))
        labels = with_kept(own, labels, job.crf.keep_classes)
    ids = labels.ids.numpy()
    write_labels(job.out / "labels" / f"{job.source.name}.png", ids)
    colors = np.array(job.taxonomy.colors, np.uint8)
    write_image(job.out / "overlays" / f"{job.source.name}.jpg", overlay(job.image, ids, colors))
    if job.heat_maps:
        for name, values in zip(job.taxonomy.classes, probabilities, strict=True):
            heat = cv2.applyColorMap((values * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
            heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
            word = re.sub(r"[^\w -]", "_", name)  # a class name is no path
            write_image(job.out / "heat_maps" / f"{job.source.name}.{word}.png", heat[..., ::-1])
    if job.save_probabilities:
        path = job.out / "probabilities" / f"{job.source.name}.npz"
        given = job.probabilities  # before the CRF
        write_probabilities(path, given, job.taxonomy.classes, (height, width))
    return _summary(job, ids, labels.confidence.numpy())


def write_probabilities(
    path: Path, maps: NDArray[np.floating], classes: Sequence[str], size: tuple[int, int]
) -> None:
    """What `segment.refine --probabilities` takes: maps (C, h, w) as float16, in an .npz.

    Args:
        path: File to write; its folder is made.
        maps: Class probabilities.
        classes: Names of the C classes.
        size: Height and width of the photo in pixels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        probabilities=maps.astype(np.float16),
        classes=np.array(classes),
        size=np.array(size),
    )


def _summary(job: Job, ids: np.ndarray, confidence: np.ndarray) -> Predicted:
    counts = np.bincount(ids.ravel(), minlength=job.taxonomy.num_classes)
    present = [int(index) for index in np.flatnonzero(counts)]
    objects = [index for index in present if index != job.taxonomy.background]
    rles, scores = {}, {}
    for index in objects:
        region = ids == index
        rles[index] = rle.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()
        scores[index] = round(float(confidence[region].mean()), 4)
    areas = {index: int(counts[index]) for index in present}
    height, width = ids.shape
    return Predicted(job.source, (height, width), areas, rles, scores)


def overlay(
    image: NDArray[np.uint8],
    ids: NDArray[np.uint8],
    colors: NDArray[np.uint8],
    opacity: float = 0.55,
) -> NDArray[np.uint8]:
    """The photo with the labels' colours over it.

    Args:
        image: uint8 RGB (H, W, 3).
        ids: Train ids (H, W); 255 stays clear.
        colors: uint8 (C, 3). Black, the usual colour of the background, stays clear too.
        opacity: Share of the colour, 0 to 1.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    tint = table[ids]
    mixed = cv2.addWeighted(image, 1 - opacity, tint, opacity, 0)
    return np.where(tint.any(-1, keepdims=True), mixed, image)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """An RGB picture, uint8 (H, W, 3), in the format of the file's ending.

    Raises:
        ValueError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1])):
        raise ValueError(f"{path}: cannot be written; is the disk full or the folder protected?")


def find_photos(sources: Iterable[str], root: str | None, out: Path) -> list[Source]:
    """The photos that were asked for, each once, in order.

    Args:
        sources: Photos, folders (searched through) and COCO json files; of those, `images` alone
            are read.
        root: Folder of the photos in json files; None is the json's own.
        out: Folder of earlier results, which are no photos.

    Raises:
        ValueError: A source does not exist, nothing is found, or two photos share a name.
    """
    found: dict[str, tuple[Path, int | None]] = {}
    for source in map(Path, sources):
        if not source.exists():
            raise ValueError(f"{source}: no such photo or folder.")
        for path, name, image_id in _photos_of(source, root):
            if out.resolve() in path.resolve().parents and source.is_dir():
                continue
            known = found.get(name)
            if known is not None and known != (path, image_id):
                raise ValueError(
                    f"{path} and {known[0]} would be written to the same name {name}; "
                    f"predict them into different folders."
                )
            found[name] = path, image_id
    if not found:
        raise ValueError(f"no photos ({', '.join(sorted(ENDINGS))}) in {', '.join(sources)}.")
    free = count(max((i + 1 for _, i in found.values() if i is not None), default=0))
    return [
        Source(path, name, next(free) if image_id is None else image_id)
        for name, (path, image_id) in found.items()
    ]


def find_unread(sources: Iterable[str]) -> list[Path]:
    """Photos in folders that `find_photos` passes over, since their endings are not read."""
    return sorted(
        path
        for source in map(Path, sources)
        for path in (source.rglob("*") if source.is_dir() else ())
        if path.suffix.lower() in UNREAD and path.is_file()
    )


def _photos_of(source: Path, root: str | None) -> Iterator[tuple[Path, str, int | None]]:
    if source.suffix == ".json":
        folder = source.parent if root is None else Path(root)
        # A photo that cannot be read is told when its turn comes.
        coco = CocoFile(source, folder, on_bad_photo="skip", images_only=True)
        for photo in coco.photos:
            yield coco.photo_path(photo), photo.file_name, photo.id
    elif source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.suffix.lower() in ENDINGS:
                yield path, str(path.relative_to(source)), None
    else:
        yield source, source.name, None


def write_lists(out: Path, done: list[Predicted], taxonomy: Taxonomy) -> None:
    """Write `results.json`, `categories.json` and `areas.csv` of all photos."""
    results = [
        {
            "image_id": photo.source.image_id,
            "file_name": photo.source.name,
            "category_id": index,
            "category": taxonomy.classes[index],
            "segmentation": {"size": list(photo.size), "counts": counts},
            "score": photo.scores[index],
        }
        for photo in done
        for index, counts in photo.rles.items()
    ]
    write_json(out / "results.json", results)
    categories = [{"id": index, "name": name} for index, name in enumerate(taxonomy.classes)]
    write_json(out / "categories.json", categories)
    with (out / "areas.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["photo", "class", "pixels", "share"])
        for photo in done:
            for index, pixels in photo.areas.items():
                share = pixels / (photo.size[0] * photo.size[1])
                table.writerow([photo.source.name, taxonomy.classes[index], pixels, f"{share:.6f}"])
