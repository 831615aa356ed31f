"""The annotated photos behind runs: truth, objects, and how refining treats objects by size."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from segment.comparison.runs import KINDS, Run
from segment.data.coco import CocoFile
from segment.data.taxonomy import IGNORE, Taxonomy

# Edges of the bins of an object's size: the root of its visible pixels, in pixels.
SIZE_EDGES = (0, 8, 16, 32, 64, 128, 256, np.inf)
MOST_PHOTOS = 300  # that objects are measured on: label maps of every run are read for each


def annotations_of(run: Run, root: Path | None = None) -> CocoFile:
    """The annotation file that a run was scored on.

    Args:
        run: The run.
        root: Folder of the photos; None: the one in its config.yaml.

    Raises:
        ValueError: The file is gone or has changed since, or gives other classes.
    """
    data, told = run.config["data"], run.evaluation["annotations"]
    root = Path(str(data.get("root", "."))) if root is None else root
    path = Path(told["path"])
    if not path.is_file():
        path = root / path.name
    source = data.get("taxonomy")
    taxonomy = Taxonomy.load(source) if source else None
    if taxonomy is None and (root / str(data.get("train"))).is_file():
        train = root / str(data.get("train"))
        taxonomy = CocoFile(train, root, check_photos=False).taxonomy
    coco = CocoFile(path, root, taxonomy=taxonomy, check_photos=False)
    if coco.sha256 != told["sha256"]:
        raise ValueError(f"{path}: has changed since {run.name} was scored on it.")
    if list(coco.taxonomy.classes) != run.classes:
        raise ValueError(f"{path}: gives other classes than {run.name} was scored with.")
    if tuple(photo.file_name for photo in coco.photos) != run.files:
        raise ValueError(f"{path}: has other photos than {run.name} was scored on.")
    return coco


def objects_by_class(coco: CocoFile) -> list[int]:
    """Number of annotated objects of each class, crowds and ignored ones left out."""
    counts = np.zeros(IGNORE + 1, np.int64)
    ids = {c["id"]: coco.taxonomy.train_id(c) for c in coco.categories}
    for annotations in coco.annotations.values():
        for annotation in annotations:
            train_id = ids[annotation["category_id"]]
            if train_id is not None and not annotation.get("iscrowd", 0):
                counts[train_id] += 1
    return counts[: coco.taxonomy.num_classes].tolist()


def label_path(run: Run, kind: str, file: str) -> Path:
    """Where a run keeps a photo's label map."""
    return run.folder / "labels" / kind / f"{file}.png"


def read_labels(run: Run, kind: str, file: str) -> NDArray[np.uint8] | None:
    """A photo's label map, train ids (H, W); None where the run has none any more."""
    try:
        data = np.fromfile(label_path(run, kind, file), np.uint8)
    except OSError:
        return None
    if not data.size:
        return None
    labels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    return None if labels is None else np.asarray(labels, np.uint8)


def object_recalls(coco: CocoFile, runs: Sequence[Run]) -> pd.DataFrame:
    """Recall of objects by size, raw and refined.

    An object's recall is the share of the pixels it owns in the painted truth that are given its
    class; every object counts the same. Its size is the root of those pixels. On at most 300 photos
    at even steps through the file.

    Args:
        coco: The annotations.
        runs: Runs with both kinds of labels, scored on them.

    Returns:
        By `run` and `size_bin` (in `order`): `objects`, `raw`, `refined`, `gain`.
    """
    number = min(MOST_PHOTOS, len(coco.photos))
    places = np.unique(np.linspace(0, len(coco.photos) - 1, number).round().astype(int))
    bins = len(SIZE_EDGES) - 1
    objects = np.zeros(bins, np.int64)
    recalls = np.zeros((len(runs), 2, bins))
    whole = np.ones(len(runs), bool)  # runs of which no label map is missing
    for place in tqdm(places, desc="measuring objects", unit="photo", delay=2, disable=None):
        photo = coco.photos[place]
        truth, owners = coco.paint(photo), coco.paint_instances(photo)
        owned = (owners > 0) & (truth != IGNORE)
        numbers, pixels = np.unique(owners[owned], return_counts=True)
        if not len(numbers):
            continue
        of_object = np.searchsorted(numbers, owners[owned])
        size = np.digitize(np.sqrt(pixels), SIZE_EDGES) - 1
        objects += np.bincount(size, minlength=bins)
        for index, run in enumerate(runs):
            for row, kind in enumerate(KINDS):
                labels = read_labels(run, kind, photo.file_name)
                if labels is None or labels.shape != truth.shape:
                    whole[index] = False
                    continue
                right = np.bincount(of_object, labels[owned] == truth[owned], len(numbers))
                recalls[index, row] += np.bincount(size, right / pixels, bins)
    rows: list[dict[str, object]] = []
    for index in np.flatnonzero(whole).tolist():
        for order in [place for place in range(bins) if objects[place]]:
            raw, refined = recalls[index, :, order] / objects[order]
            low, high = SIZE_EDGES[order], SIZE_EDGES[order + 1]
            label = f"{low} to {high}" if np.isfinite(high) else f"{low} and more"
            found = {"run": runs[index].name, "size_bin": label, "order": order}
            counts = {"objects": int(objects[order]), "raw": raw, "refined": refined}
            rows.append(found | counts | {"gain": refined - raw})
    columns = ["run", "size_bin", "order", "objects", "raw", "refined", "gain"]
    return pd.DataFrame(rows, columns=columns)
