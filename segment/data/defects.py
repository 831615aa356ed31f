"""Everything wrong with a COCO json and its photos, found before training starts."""

import hashlib
import json
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from segment.data.outlines import annotation_fault, reaches_outside, short
from segment.data.photos import MAX_PIXELS, check_ending, name_fault, size_fault
from segment.data.records import Defect, Photo
from segment.data.taxonomy import Taxonomy

_MAX_ID = 2**63 - 1  # image ids travel in int64 tensors, where -1 marks padding


class Survey:
    """A COCO json read and looked over: what it holds, and all its defects.

    Args:
        path: The json.
        root: Folder that file names start from.
        taxonomy: Classes to use; None takes the json's categories as they are.
        check_photos: Whether photos must exist, whole and at the json's size; their headers and
            ends alone are read.
        images_only: Whether to read `images` alone, whatever else the json holds.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        taxonomy: Taxonomy | None,
        check_photos: bool,
        images_only: bool = False,
    ) -> None:
        self.path, self.root, self.check_photos = path, root, check_photos
        self.taxonomy = taxonomy
        self.defects: list[Defect] = []
        self.photos: list[Photo] = []
        self.categories: list[dict[str, Any]] = []
        self.annotations: dict[int, list[dict[str, Any]]] = {}
        self.annotated = False
        self.sha256 = ""
        self._image_ids: set[int] = set()  # also of photos with defects
        content = self._read()
        if content is None:
            return
        if images_only:
            content = {"images": content["images"]}
        images, annotations, categories = (
            self._list(content, key) for key in ("images", "annotations", "categories")
        )
        if not images and not self.defects:
            self._found("json", "lists no photos in `images`; add some")
        self.annotated = "annotations" in content
        self._read_images(images)
        self._read_categories(categories)
        self._read_annotations(annotations)

    def _found(self, kind: str, what: str, fatal: bool = True) -> None:
        self.defects.append(Defect(kind, fatal, f"{self.path}: {what}."))

    def _read(self) -> dict[str, Any] | None:
        try:
            raw = self.path.read_bytes()
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or error
            self._found("json", f"cannot be read ({detail}); give the path of a COCO json")
            return None
        self.sha256 = hashlib.sha256(raw).hexdigest()
        try:
            content = json.loads(raw)
        except RecursionError:
            self._found("json", "is nested too deeply to be COCO; export it anew")
            return None
        except ValueError as error:
            self._found("json", f"is not whole, valid JSON ({error}); copy or export it anew")
            return None
        if not isinstance(content, dict) or "images" not in content:
            holds = "has no `images`" if isinstance(content, dict) else "is not a JSON object"
            self._found(
                "json",
                f"{holds}, so it is not COCO, which has the lists `images`, `annotations` and "
                f"`categories`; export it as COCO instances",
            )
            return None
        return content

    def _list(self, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
        listed = content.get(key, [])
        if not isinstance(listed, list):
            self._found("json", f"`{key}` is not a list; export it as COCO instances")
            return []
        sound = [entry for entry in listed if isinstance(entry, dict)]
        if len(sound) < len(listed):
            self._found(
                "json",
                f"`{key}` has {len(listed) - len(sound)} entries that are not objects; export it "
                f"as COCO instances",
            )
        return sound

    def _id(self, entry: dict[str, Any], key: str, who: str) -> int | None:
        value = entry.get(key)
        if type(value) is int and 0 <= value <= _MAX_ID:
            return value
        told = f"is {short(value)}" if key in entry else "is missing"
        self._found("id", f"{who}: `{key}` {told}; make it a whole number from 0 to 2^63 - 1")
        return None

    def _read_images(self, images: list[dict[str, Any]]) -> None:
        names: set[PurePosixPath] = set()
        if self.check_photos and not self.root.is_dir():
            self._found("json", f"its photos should be in {self.root}, which is no folder; name it")
            self.check_photos = False
        shown = tqdm(images, "checking photos", unit="photo", delay=2, disable=None)
        for place, entry in enumerate(shown if self.check_photos else images):
            name = entry.get("file_name")
            who = f"photo {short(name)}" if isinstance(name, str) else f"entry {place} of `images`"
            image_id = self._id(entry, "id", who)
            if image_id is not None and image_id in self._image_ids:
                self._found("duplicate", f"{who}: image id {image_id} is taken; give it its own")
                image_id = None
            if image_id is not None:
                self._image_ids.add(image_id)
            sized = self._has_size(entry, who)
            named = self._has_name(entry, who, names)
            if image_id is None or not sized or not named:
                continue
            names.add(PurePosixPath(entry["file_name"]))
            photo = Photo(image_id, entry["file_name"], entry["width"], entry["height"])
            self.photos.append(photo)
            if self.check_photos:
                self._check_photo(photo)

    def _has_size(self, entry: dict[str, Any], who: str) -> bool:
        height, width = entry.get("height"), entry.get("width")
        if type(height) is not int or type(width) is not int or min(height, width) < 1:
            self._found(
                "image",
                f"{who}: `height` and `width` are {short(height)} and {short(width)}; make them "
                f"whole numbers of pixels",
            )
            return False
        if height * width > MAX_PIXELS:
            self._found(
                "image",
                f"{who}: {short(height)}x{short(width)} is more than {MAX_PIXELS:,} pixels; make "
                f"the photo smaller",
            )
            return False
        return True

    def _has_name(self, entry: dict[str, Any], who: str, taken: set[PurePosixPath]) -> bool:
        name = entry.get("file_name")
        if not isinstance(name, str):
            self._found("file-name", f"{who}: `file_name` is {short(name)}; name the photo")
            return False
        if fault := name_fault(name):
            self._found("file-name", f"{who}: {fault}")
            return False
        if PurePosixPath(name) in taken:
            self._found("duplicate", f"{who} stands in `images` twice; remove one entry")
            return False
        return True

    def _check_photo(self, photo: Photo) -> None:
        try:
            path = self.root / photo.file_name
            fault = size_fault(path, photo.height, photo.width)
            check_ending(path)
        except ValueError as error:
            self._found("photo", str(error).rstrip("."))
            return
        if fault:
            self._found("photo-size", fault)

    def _read_categories(self, categories: list[dict[str, Any]]) -> None:
        ids: set[int] = set()
        before = len(self.defects)
        for place, category in enumerate(categories):
            name = category.get("name")
            if not isinstance(name, str) or not name.strip():
                self._found(
                    "category",
                    f"entry {place} of `categories`: `name` is {short(name)}; name the category",
                )
                continue
            if not name.isprintable():
                self._found(
                    "category",
                    f"category {short(name)} has a line break or another character that cannot be "
                    f"printed; rename it",
                )
                continue
            category_id = self._id(category, "id", f"category {short(name)}")
            if category_id is None:
                continue
            if category_id in ids:
                self._found(
                    "duplicate",
                    f"category {short(name)}: category id {category_id} is taken; give it its own",
                )
                continue
            ids.add(category_id)
            self.categories.append(category)
        if self.taxonomy is None and len(self.defects) == before:
            try:
                self.taxonomy = Taxonomy.from_categories(self.categories)
            except ValueError as error:
                self._found("taxonomy", str(error).rstrip("."))

    def _read_annotations(self, annotations: list[dict[str, Any]]) -> None:
        photos = {photo.id: photo for photo in self.photos}
        category_ids = {category["id"] for category in self.categories}
        used: Counter[int] = Counter()
        ids: Counter[int] = Counter()
        clipped: list[str] = []
        shown = tqdm(annotations, "checking annotations", unit="annotation", delay=2, disable=None)
        for place, annotation in enumerate(shown):
            before = len(self.defects)
            who = f"entry {place} of `annotations`"
            own_id = self._id(annotation, "id", who)
            if own_id is not None:
                ids[own_id] += 1
                who = f"annotation {own_id}"
            image_id = self._id(annotation, "image_id", who)
            category_id = self._id(annotation, "category_id", who)
            if image_id is not None and image_id not in self._image_ids:
                self._found(
                    "annotation",
                    f"{who} is on image id {image_id}, which `images` does not list; add the photo "
                    f"or delete the annotation",
                )
            if category_id is not None and category_id not in category_ids:
                self._found(
                    "annotation",
                    f"{who} is of category id {category_id}, which `categories` does not list; add "
                    f"it there",
                )
            if annotation.get("iscrowd", 0) not in (0, 1):
                crowd = short(annotation["iscrowd"])
                self._found("annotation", f"{who}: `iscrowd` is {crowd}; make it 0 or 1")
            if category_id is not None:
                used[category_id] += 1
            # Without a size, which a photo with a defect of its own lacks, outlines mean nothing.
            photo = None if image_id is None else photos.get(image_id)
            if photo is None:
                continue
            if fault := annotation_fault(annotation, photo.height, photo.width):
                self._found("outline", f"{who} on {photo.file_name!r} {fault}")
            if len(self.defects) > before:
                continue
            if reaches_outside(annotation["segmentation"], photo.height, photo.width):
                clipped.append(f"annotation {own_id} on {photo.file_name!r}")
            self.annotations.setdefault(photo.id, []).append(annotation)
        self._check_mapping(used)
        self._sum_up(clipped, [own_id for own_id, count in ids.items() if count > 1])

    def _check_mapping(self, used: Counter[int]) -> None:
        if self.taxonomy is None:
            return
        for category in self.categories:
            if self.taxonomy.train_id(category) is not None:
                continue
            name, count = category["name"], used[category["id"]]
            near = self.taxonomy.closest(name)
            self._found(
                "taxonomy",
                f"category {short(name)} ({count} annotations) is not mapped by the taxonomy "
                f"{self.taxonomy.name!r}{f', which has {near!r}' if near else ''}; put it into a "
                f"class's `from` there, or into `ignore`",
                fatal=count > 0,  # exports often carry an empty category for the whole project
            )

    def _sum_up(self, clipped: list[str], repeated: list[int]) -> None:
        if clipped:
            self._found(
                "clipped",
                f"{len(clipped)} annotations reach outside their photo and are clipped to it; "
                f"look at {clipped[0]}, the first",
                fatal=False,
            )
        if repeated:
            self._found(  # TACO's own file has two; nothing is looked up by annotation id
                "duplicate",
                f"{len(repeated)} annotation ids stand on several annotations, all of which are "
                f"used; give each its own, beginning with {repeated[0]}",
                fatal=False,
            )
