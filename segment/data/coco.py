"""COCO jsons as label masks.

A json is read and checked once, before training; a photo's mask is painted when it is asked for.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from segment.data.defects import Survey
from segment.data.outlines import paint_runs, run_lengths
from segment.data.records import Photo
from segment.data.taxonomy import IGNORE, Taxonomy

_SHOWN = 5


class CocoFile:
    """A COCO json and its photos, checked: what it names exists and can be painted.

    Args:
        path: The json. It needs `images` alone; without `annotations` every pixel is unlabelled.
        root: Folder that the `file_name`s start from. A link in it is followed anywhere.
        taxonomy: Classes to use. None takes the json's categories as they are, which in a json
            without any is the background alone: enough to predict.
        check_photos: Whether photos must exist, whole and at the json's size. Their headers and
            ends alone are read.
        on_bad_photo: Whether a photo that cannot be read is refused (`stop`), now or when it is
            loaded, or stays with a warning and is loaded black and unlabelled (`skip`), unless
            no photo can be read.
        images_only: Whether to read `images` alone, as if the json held nothing else.

    Attributes:
        path: The json.
        root: Folder of the photos.
        on_bad_photo: As given.
        taxonomy: The taxonomy given, or the one made from the categories.
        photos: The photos in the json's order.
        categories: The json's categories.
        annotations: The json's annotations by image id; a photo without any has no entry.
        sha256: Of the json's bytes, in hexadecimal.
        warnings: What is odd but usable, one sentence each.

    Raises:
        ValueError: The data cannot be used; a line for each of the first defects, and their number.
            Or `on_bad_photo` is neither word.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        *,
        taxonomy: Taxonomy | None = None,
        check_photos: bool = True,
        on_bad_photo: Literal["stop", "skip"] = "stop",
        images_only: bool = False,
    ) -> None:
        if on_bad_photo not in ("stop", "skip"):
            raise ValueError(f"on_bad_photo is {on_bad_photo!r}; write 'stop' or 'skip'.")
        self.path, self.root, self.on_bad_photo = Path(path), Path(root), on_bad_photo
        survey = Survey(self.path, self.root, taxonomy, check_photos, images_only)
        usable = "photo" if on_bad_photo == "skip" else None  # the kind of defect that may stay
        bad = [defect for defect in survey.defects if defect.kind == "photo"]
        if usable and bad and len(bad) == len(survey.photos):
            first = bad[0].message.removeprefix(f"{self.path}: ")
            raise ValueError(
                f"{self.path}: not one of its {len(bad)} photos can be read, beginning with {first}"
            )
        fatal = [d.message for d in survey.defects if d.fatal and d.kind != usable]
        if fatal:
            more = len(fatal) - _SHOWN
            tail = [f"... and {more} more; run python -m segment.prepare check"] if more > 0 else []
            raise ValueError("\n".join(fatal[:_SHOWN] + tail))
        assert survey.taxonomy is not None  # where there is none, there is a fatal defect
        self.taxonomy = survey.taxonomy
        self.photos = survey.photos
        self.categories = survey.categories
        self.annotations = survey.annotations
        self.sha256 = survey.sha256
        self.warnings = [defect.message for defect in survey.defects]
        self._annotated = survey.annotated
        self._train_ids = {c["id"]: self.taxonomy.train_id(c) for c in self.categories}

    def photo_path(self, photo: Photo) -> Path:
        """Return where a photo's file is."""
        return self.root / photo.file_name

    def paint(self, photo: Photo) -> np.ndarray:
        """Paint a photo's annotations over each other.

        COCO does not say which of two overlapping ones owns a pixel. Here crowds (`iscrowd`, 255)
        lie at the bottom, so that objects singled out inside a crowd stay labelled; then objects
        from the largest to the smallest, so that a cap on a bottle stays visible. Size is the
        number of pixels of the outline itself: the json's `area` is often wrong or of another photo
        size. An ignored object takes its place in that order. Of equally large ones the higher
        annotation id is on top.

        Args:
            photo: One of `photos`.

        Returns:
            uint8 (H, W) train ids, contiguous; 255 where a pixel is unlabelled or ignored. A pixel
            without annotation is background, or 255 if the taxonomy has no background.
        """
        height, width = photo.height, photo.width
        background = self.taxonomy.background if self._annotated else None
        flat = np.full(height * width, IGNORE if background is None else background, np.uint8)
        for train_id, lengths in self._layers(photo):
            paint_runs(flat, lengths, train_id)
        return np.ascontiguousarray(flat.reshape(width, height).T)

    def paint_instances(self, photo: Photo) -> np.ndarray:
        """Paint which annotation owns a pixel, where `paint` says of which class that is.

        Args:
            photo: One of `photos`.

        Returns:
            int32 (H, W), contiguous; 0 without annotation, else a number of that annotation alone.
        """
        flat = np.zeros(photo.height * photo.width, np.int32)
        for number, (_, lengths) in enumerate(self._layers(photo), start=1):
            paint_runs(flat, lengths, number)
        return np.ascontiguousarray(flat.reshape(photo.width, photo.height).T)

    def shown_classes(self) -> set[int]:
        """Train ids that own at least one pixel of a photo as painted, background included.

        A photo is painted only where it may show a class that none before it has shown.
        """
        shown: set[int] = set()
        for photo in self.photos:
            possible = {
                self._train_ids[a["category_id"]] for a in self.annotations.get(photo.id, [])
            }
            if self._annotated and self.taxonomy.background is not None:
                possible.add(self.taxonomy.background)
            if possible - shown - {IGNORE}:
                shown |= set(np.unique(self.paint(photo)).tolist()) - {IGNORE}
        return shown

    def absent_classes(self) -> list[str]:
        """Names of the classes that no photo shows."""
        shown = self.shown_classes()
        return [name for index, name in enumerate(self.taxonomy.classes) if index not in shown]

    def _layers(self, photo: Photo) -> list[tuple[int, np.ndarray]]:
        """Train ids and run lengths of a photo's annotations, in the order of painting."""
        crowds, objects = [], []
        for annotation in self.annotations.get(photo.id, []):
            lengths = run_lengths(annotation["segmentation"], photo.height, photo.width)
            if annotation.get("iscrowd", 0):
                crowds.append((IGNORE, lengths))
            else:
                objects.append((self._rank(annotation, lengths), lengths))
        objects.sort(key=lambda entry: entry[0])
        return crowds + [(train_id, lengths) for (*_, train_id, _), lengths in objects]

    def _rank(self, annotation: dict[str, Any], lengths: np.ndarray) -> tuple[int, int, int, bytes]:
        """Sort key: large ones first. The rest settles ties without the order in the file."""
        train_id = self._train_ids[annotation["category_id"]]
        assert train_id is not None  # an unmapped category in use is a fatal defect
        return -int(lengths[1::2].sum()), annotation["id"], train_id, lengths.tobytes()
