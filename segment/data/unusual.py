"""Annotations that nothing forbids, and that are worth a look all the same."""

from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_api
from tqdm import tqdm

from segment.data.coco import CocoFile
from segment.data.outlines import run_lengths
from segment.data.photos import read_photo
from segment.data.records import Photo
from segment.data.taxonomy import IGNORE

FEWEST = 10  # objects of a class, of which one can stand out
FAR = 4.0  # robust standard deviations of the logarithm of the size
SAME = 0.8  # intersection over union of two outlines of one object
_MAD = 1.4826  # from a median absolute deviation to a normal distribution's standard deviation


@dataclass(frozen=True)
class Unusual:
    """An annotation to look at.

    Attributes:
        photo: Its photo.
        annotation: Its id.
        name: Of its class.
        box: x, y, width, height, pixels.
        reason: What is unusual, in words.
        score: The larger, the more so: of sizes in robust standard deviations, at least `FAR`; of
            outlines ten times the intersection over union.
    """

    photo: Photo
    annotation: int
    name: str
    box: tuple[float, float, float, float]
    reason: str
    score: float


def find_unusual(coco: CocoFile) -> list[Unusual]:
    """Objects far larger or smaller than others of their class, and ones outlined as two classes.

    A size is the root of the outline's own pixels; crowds and ignored annotations are left out.

    Returns:
        The most unusual first.
    """
    train_ids = {category["id"]: coco.taxonomy.train_id(category) for category in coco.categories}
    found: list[Unusual] = []
    sized: list[tuple[Photo, int, int, tuple[float, float, float, float], float]] = []
    for photo in tqdm(coco.photos, desc="comparing", unit="photo", delay=2, disable=None):
        objects = []
        for annotation in coco.annotations.get(photo.id, []):
            train_id = train_ids[annotation["category_id"]]
            lengths = run_lengths(annotation["segmentation"], photo.height, photo.width)
            pixels = int(lengths[1::2].sum())
            if train_id in (None, IGNORE) or annotation.get("iscrowd", 0) or not pixels:
                continue
            counts = {"counts": lengths.tolist(), "size": [photo.height, photo.width]}
            rle = mask_api.frPyObjects(counts, photo.height, photo.width)
            x, y, width, height = map(float, mask_api.toBbox(rle))
            one = photo, annotation["id"], int(train_id), (x, y, width, height), pixels**0.5
            objects.append((one, rle))
            sized.append(one)
        found += _outlined_twice(coco, objects)
    found += _of_far_size(coco, sized)
    return sorted(found, key=lambda one: -one.score)


def _outlined_twice(coco: CocoFile, objects: list) -> list[Unusual]:
    """Two outlines of different classes that nearly agree, within one photo."""
    if len(objects) < 2:
        return []
    rles = [rle for _, rle in objects]
    overlaps = mask_api.iou(rles, rles, [0] * len(rles))
    found = []
    for a, b in combinations(range(len(objects)), 2):
        (photo, first, one, box, _), (_, second, other, *_) = objects[a][0], objects[b][0]
        if one != other and overlaps[a, b] >= SAME:
            names = coco.taxonomy.classes[one], coco.taxonomy.classes[other]
            reason = (
                f"covers the same pixels as annotation {second}, {names[1]} "
                f"(intersection over union {overlaps[a, b]:.2f})"
            )
            score = 10 * float(overlaps[a, b])
            found.append(Unusual(photo, first, names[0], box, reason, score))
    return found


def _of_far_size(coco: CocoFile, sized: list) -> list[Unusual]:
    """Objects whose size is far from the median of their class."""
    found = []
    for train_id, name in enumerate(coco.taxonomy.classes):
        ours = [one for one in sized if one[2] == train_id]
        if len(ours) < FEWEST:
            continue
        sizes = np.log([one[-1] for one in ours])
        middle = np.median(sizes)
        spread = max(_MAD * float(np.median(np.abs(sizes - middle))), 1e-6)
        low, high = np.exp(np.percentile(sizes, [25, 75]))
        for (photo, annotation, _, box, size), far in zip(
            ours, np.abs(sizes - middle) / spread, strict=True
        ):
            if far >= FAR:
                much = "small" if np.log(size) < middle else "large"
                reason = f"{much}: {size:.0f} px, half of {name} are {low:.0f} to {high:.0f} px"
                found.append(Unusual(photo, annotation, name, box, reason, float(far)))
    return found


def picture_of(coco: CocoFile, one: Unusual, side: int = 240) -> NDArray[np.uint8]:
    """The photo around an annotation, with its box, uint8 RGB of `side` x `side` pixels.

    Raises:
        ValueError: The photo cannot be read.
    """
    image = read_photo(coco.photo_path(one.photo))
    x, y, width, height = one.box
    half = max(width, height, 32.0)  # twice as much as the object, and no less than 64 pixels
    middle = x + width / 2, y + height / 2
    scale = side / (2 * half)
    corner = middle[0] - half, middle[1] - half
    move = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crop = cv2.warpAffine(image, move, (side, side), flags=how, borderValue=(255, 255, 255))
    start = round(scale * (x - corner[0])), round(scale * (y - corner[1]))
    end = round(start[0] + scale * width), round(start[1] + scale * height)
    for color, thickness in (((0, 0, 0), 4), ((255, 230, 0), 2)):
        cv2.rectangle(crop, start, end, color, thickness)
    return np.asarray(crop, np.uint8)
