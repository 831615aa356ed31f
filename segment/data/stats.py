"""What a COCO data set holds of each class, and the loss weights that follow."""

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segment.data.coco import CocoFile
from segment.data.outlines import run_lengths
from segment.data.taxonomy import IGNORE, Taxonomy


@dataclass(frozen=True)
class Stats:
    """Counts over a data set; C classes, background included where the taxonomy has one.

    Attributes:
        taxonomy: The classes.
        photos: Number of photos.
        pixels: Labelled pixels of each class, as painted, int64 (C,).
        seen: Labelled pixels of all photos that show the class, int64 (C,).
        together: Photos that show both classes, int64 (C, C); its diagonal: that show the class.
        sizes: For each class the square root of each object's area, pixels. Crowds are not counted.
    """

    taxonomy: Taxonomy
    photos: int
    pixels: NDArray[np.int64]
    seen: NDArray[np.int64]
    together: NDArray[np.int64]
    sizes: list[NDArray[np.float64]]

    @property
    def objects(self) -> list[int]:
        """Number of annotated objects of each class."""
        return [len(sizes) for sizes in self.sizes]

    def quartiles(self) -> NDArray[np.float64]:
        """First quartile, median and third of the object sizes, pixels (C, 3); NaN without any."""
        none = np.full(3, np.nan)
        return np.stack([np.percentile(s, [25, 50, 75]) if len(s) else none for s in self.sizes])

    def inverse_weights(self) -> NDArray[np.float64]:
        """Weights by which every class that occurs counts as much in sum, (C,).

        The mean over all pixels is 1. A class without a pixel has 0.
        """
        there = self.pixels > 0
        share = self.pixels.sum() / max(1, int(there.sum()))
        return np.divide(share, self.pixels, out=np.zeros(len(self.pixels)), where=there)

    def median_frequency_weights(self) -> NDArray[np.float64]:
        """Median frequency balancing, (C,). A class without a pixel has 0.

        Eigen and Fergus, https://arxiv.org/abs/1411.4734, section 6.3.2, and SegNet: the median of
        all frequencies over the frequency of the class, which is its pixels over those of the
        photos it is in.
        """
        there = self.pixels > 0
        weights = np.zeros(len(self.pixels))
        if there.any():
            frequency = self.pixels[there] / self.seen[there]
            weights[there] = np.median(frequency) / frequency
        return weights


def count(coco: CocoFile) -> Stats:
    """Paint every photo and count.

    Args:
        coco: The data. Photos themselves are not read.
    """
    classes = coco.taxonomy.num_classes
    pixels, seen = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    together = np.zeros((classes, classes), np.int64)
    sizes: list[list[float]] = [[] for _ in range(classes)]
    train_ids = {category["id"]: coco.taxonomy.train_id(category) for category in coco.categories}
    for photo in tqdm(coco.photos, desc="counting", unit="photo", delay=2, disable=None):
        here = np.bincount(coco.paint(photo).ravel(), minlength=IGNORE + 1)[:classes]
        shown = here > 0
        pixels += here
        seen[shown] += here.sum()
        together += np.outer(shown, shown)
        for annotation in coco.annotations.get(photo.id, []):
            train_id = train_ids[annotation["category_id"]]
            if train_id is None or train_id == IGNORE or annotation.get("iscrowd", 0):
                continue
            lengths = run_lengths(annotation["segmentation"], photo.height, photo.width)
            sizes[train_id].append(float(lengths[1::2].sum()) ** 0.5)
    arrays = [np.array(each) for each in sizes]
    return Stats(coco.taxonomy, len(coco.photos), pixels, seen, together, arrays)


def positions(coco: CocoFile, cells: int = 24) -> NDArray[np.float64]:
    """Where in its photos each class lies.

    Args:
        coco: The data. Photos themselves are not read.
        cells: Photos of any size are laid over each other as a square of cells x cells.

    Returns:
        Share of a place that the class covers, 0 to 1, as the mean over the photos that show it,
        (C, cells, cells); NaN for a class that no photo shows.
    """
    classes = coco.taxonomy.num_classes
    covered, shown = np.zeros((classes, cells, cells)), np.zeros(classes)
    for photo in tqdm(coco.photos, desc="placing", unit="photo", delay=2, disable=None):
        painted = coco.paint(photo)
        for train_id in np.setdiff1d(painted, [IGNORE]).tolist():
            own = (painted == train_id).astype(np.float32)
            covered[train_id] += cv2.resize(own, (cells, cells), interpolation=cv2.INTER_AREA)
            shown[train_id] += 1
    with np.errstate(invalid="ignore"):
        return covered / shown[:, None, None]


_COLUMNS = (
    "class",
    "pixels",
    "pixel_percent",
    "objects",
    "photos",
    "size_quartile_1",
    "size_median",
    "size_quartile_3",
    "inverse_weight",
    "median_frequency_weight",
)


def rows(stats: Stats) -> list[dict[str, str]]:
    """One row of text for each class, by the columns of `classes.csv`."""
    percent = 100 * stats.pixels / max(1, int(stats.pixels.sum()))
    quartiles, objects = stats.quartiles(), stats.objects
    inverse, median = stats.inverse_weights(), stats.median_frequency_weights()
    return [
        dict(
            zip(
                _COLUMNS,
                [
                    name,
                    str(stats.pixels[c]),
                    f"{percent[c]:.3f}",
                    str(objects[c]),
                    str(stats.together[c, c]),
                    *("" if np.isnan(size) else f"{size:.1f}" for size in quartiles[c]),
                    f"{inverse[c]:.4g}",
                    f"{median[c]:.4g}",
                ],
                strict=True,
            )
        )
        for c, name in enumerate(stats.taxonomy.classes)
    ]


def table(stats: Stats) -> str:
    """Set the counts out for reading, with weights ready for an experiment's YAML."""
    heads = ["class", "pixels", "%", "objects", "photos", "size: 1/4", "1/2", "3/4"]
    cells = [(*heads, "inverse", "median freq."), *(tuple(r.values()) for r in rows(stats))]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    names = [n for n, p in zip(stats.taxonomy.classes, stats.pixels, strict=True) if not p]
    if names:
        lines.append(f"warning: no pixel of {', '.join(names)}; the weight there is 0.")
    for how, weights in (
        ("inverse frequency", stats.inverse_weights()),
        ("median frequency", stats.median_frequency_weights()),
    ):
        listed = ", ".join(f"{float(f'{weight:.4g}'):g}" for weight in weights)
        lines.append(f"class_weights: [{listed}]  # {how}")
    return "\n".join(lines)


def write_csv(stats: Stats, folder: Path) -> None:
    """Write `classes.csv` and `cooccurrence.csv`.

    Args:
        stats: The counts.
        folder: An existing folder.
    """
    with (folder / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows(stats))
    with (folder / "cooccurrence.csv").open("w", newline="", encoding="utf-8") as file:
        plain = csv.writer(file)
        plain.writerow(["class", *stats.taxonomy.classes])
        for name, line in zip(stats.taxonomy.classes, stats.together.tolist(), strict=True):
            plain.writerow([name, *line])
