"""The embedded default data: generated photos of trash in real COCO files.

Nothing to download, nothing to license, and every outline is exactly the one drawn. Two annotation
files with ten classes as unequal as in litter data sets; rubbish overlaps, throws shadows and lies
among leaves and stones that are not rubbish.
"""

import json
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from segment.data.sample_drawing import DRAWN, KINDS, draw_photo

_STALE = 86_400  # seconds after which what a killed run left is deleted by the next
_VERSION = 1  # raise it whenever the same seed gives other pictures


def make_sample(
    root: Path, *, train: int = 200, val: int = 50, size: int = 256, seed: int = 0
) -> None:
    """Write `root/train.json`, `root/val.json` and their photos, or nothing at all.

    The set is written beside `root` and renamed when whole. A set with the same numbers that is
    already there is kept. A photo depends on the seed, its split and its place in it alone.

    Args:
        root: Folder to make. It must not exist, or be empty, or hold this very set.
        train: Photos to train on.
        val: Photos to validate on.
        size: Height and width of a photo, pixels.
        seed: The same seed gives the same bytes.

    Raises:
        ValueError: A number makes no sense, or `root` holds something else.
    """
    if train < 1 or val < 1 or seed < 0:
        raise ValueError(
            f"train and val must be 1 or more, seed 0 or more; got {train}, {val}, {seed}"
        )
    if not 64 <= size <= 2048:
        raise ValueError(f"size must be 64 to 2048 pixels, got {size}")
    counts = {"train": train, "val": val}
    if _is_there(root, counts, size, seed):
        print(f"{root} already holds this sample set; kept as it is.")
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    for stale in root.parent.glob(f".{root.name}.partial-*"):
        if time.time() - stale.stat().st_mtime > _STALE:
            shutil.rmtree(stale, ignore_errors=True)
    partial = root.parent / f".{root.name}.partial-{secrets.token_hex(4)}"
    partial.mkdir()
    try:
        with tqdm(
            total=train + val, desc=f"drawing {root}", unit="photo", delay=2, disable=None
        ) as bar:
            for split, photos in counts.items():
                _write_split(partial, split, photos, size, seed, bar)
        try:
            partial.rename(root)
        except OSError:
            # Another process may have been quicker with the same set: then all is well.
            if not _is_there(root, counts, size, seed):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{root}: {train} photos to train on, {val} to validate on, {size}x{size}, seed {seed}.")


def _origin(split: str, photos: int, size: int, seed: int) -> dict[str, Any]:
    return {"version": _VERSION, "split": split, "photos": photos, "size": size, "seed": seed}


def _is_there(root: Path, counts: dict[str, int], size: int, seed: int) -> bool:
    """Whether `root` holds this whole set; ValueError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    for split, photos in counts.items():
        path = root / f"{split}.json"
        try:
            content = json.loads(path.read_bytes())
            found = content["info"]["sample"]
            names = [image["file_name"] for image in content["images"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(
                f"{root} is not empty, and {path.name} in it is not one of a sample set; "
                f"choose another folder, or delete this one"
            ) from None
        if found != _origin(split, photos, size, seed):
            raise ValueError(
                f"{root} holds another sample set ({found}); "
                f"choose another folder, or delete this one"
            )
        if lost := [name for name in names if not (root / name).is_file()]:
            raise ValueError(
                f"{root} has lost {len(lost)} photos, {lost[0]} first; delete it and run again"
            )
    return True


def _write_split(
    root: Path, split: str, photos: int, size: int, seed: int, bar: "tqdm[Any]"
) -> None:
    (root / split).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(photos):
        rng = np.random.default_rng([seed, ["train", "val"].index(split), i])
        picture, objects = draw_photo(rng, size, i)
        name = f"{split}/{i + 1:06}.jpg"
        Image.fromarray(picture).save(root / name, quality=92)
        images.append({"id": i + 1, "file_name": name, "width": size, "height": size, "license": 1})
        for category, visible in objects:
            annotation = _annotation(visible, as_rle=rng.random() < 0.15)
            ids = {"id": len(annotations) + 1, "image_id": i + 1, "category_id": category}
            annotations.append(ids | annotation)
        bar.update()
    coco = {
        "info": {
            "description": "Generated photos of trash",
            "version": f"{_VERSION}.0",
            "year": 2026,
            "sample": _origin(split, photos, size, seed),
        },
        "licenses": [
            {
                "id": 1,
                "name": "CC0 1.0",
                "url": "https://creativecommons.org/publicdomain/zero/1.0/",
            }
        ],
        "images": images,
        "categories": [
            {"id": number, "name": kind.name, "supercategory": kind.supercategory}
            for number, kind in enumerate(KINDS, 1)
        ],
        "annotations": annotations,
    }
    (root / f"{split}.json").write_text(json.dumps(coco), encoding="utf-8")


def _annotation(visible: NDArray[np.bool_], *, as_rle: bool) -> dict[str, Any]:
    """Segmentation, area and box of an object from what is seen of it, drawn size."""
    height, width = (side // DRAWN for side in visible.shape)
    share = cv2.resize(visible.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    rle = coco_mask.encode(np.asfortranarray(share > 0.5, np.uint8))
    polygons, holes = _polygons(visible)
    # A COCO polygon has no holes: what has one can only be written as runs.
    segmentation: Any = polygons
    if as_rle or holes or not polygons:
        segmentation = {"size": [height, width], "counts": rle["counts"].decode()}
    return {
        "segmentation": segmentation,
        "area": float(coco_mask.area(rle)),
        "bbox": [float(side) for side in coco_mask.toBbox(rle)],
        "iscrowd": 0,
    }


def _polygons(visible: NDArray[np.bool_]) -> tuple[list[list[float]], bool]:
    """Outer outlines, written size, and whether there is a hole in one."""
    fine = 2  # traced finer still: cv2 follows the centres of the border's pixels, not their edges
    drawn = np.pad(visible.astype(np.uint8), 1)
    large = cv2.resize(drawn, None, fx=fine, fy=fine, interpolation=cv2.INTER_NEAREST)
    traced, tree = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons, holes, limit = [], False, visible.shape[0] / DRAWN
    for line, links in zip(traced, tree[0] if tree is not None else [], strict=True):
        worth = cv2.contourArea(line) / (fine * DRAWN) ** 2 >= 4
        if links[3] >= 0:
            holes = holes or worth
            continue
        simple = cv2.approxPolyDP(line, 0.3 * fine * DRAWN, True)[:, 0]
        if worth and len(simple) >= 3:
            points = ((simple + 0.5) / fine - 1) / DRAWN
            polygons.append(np.clip(points, 0, limit).round(2).ravel().tolist())
    return polygons, holes
