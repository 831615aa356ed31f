"""Taxonomies: which class each COCO category is, under which name and in which colour.

A taxonomy is a preset of `segment/data/taxonomies/`, a YAML file of the user's, or the categories
of a COCO json as they are. Train ids run from 0 without gaps; they are not the json's ids.
"""

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from segment.files import UniqueKeys

IGNORE = 255
MAX_CLASSES = 254
PRESETS = Path(__file__).parent / "taxonomies"
_FILE_KEYS = ("name", "background", "classes", "ignore")
_CLASS_KEYS = ("from", "color")
_ALLOWED = f"allowed keys: {', '.join(_FILE_KEYS)}; in a class: {', '.join(_CLASS_KEYS)}"

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Taxonomy:
    """Classes by train id, and the train id of every COCO category.

    Attributes:
        name: What messages and reports call it.
        classes: Class names; a class's place is its train id.
        colors: RGB of each class, 0 to 255, all different.
        background: Train id of the background, 0, or None where the taxonomy has none. A pixel
            that no annotation covers is background, or 255 (unlabelled) without one.
        mapping: Name of a category or supercategory, spelt as in the json, to its train id, or
            255 for pixels that neither train nor score.

    Raises:
        ValueError: The parts contradict each other.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    background: int | None
    mapping: dict[str, int]

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault:
            raise ValueError(f"taxonomy {self.name!r}: {fault}")

    @property
    def num_classes(self) -> int:
        """Number of classes C, background included: the channels a network puts out."""
        return len(self.classes)

    @classmethod
    def load(cls, source: str | Path) -> "Taxonomy":
        """Read a preset by its name, or a YAML file by its path.

        Args:
            source: `trash10`, `trash11`, `taco28`, `taco60`, `garbage6`, `bags`, `camvid11`, or a
                path. A preset's name means the preset even where a file is called the same.

        Returns:
            The checked taxonomy.

        Raises:
            ValueError: No such preset or file, or the file is not a taxonomy.
        """
        presets = {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}
        path = presets.get(str(source), Path(source))
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{source}: no taxonomy can be read there ({error}); give the path of a YAML "
                f"file or a preset: {', '.join(presets)}."
            ) from error
        try:
            content = yaml.load(text, Loader=UniqueKeys)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            detail = " ".join(str(error).split())
            raise ValueError(f"{path}: not valid YAML: {detail}; {_ALLOWED}.") from error
        try:
            return _from_yaml(content, path.stem)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; {_ALLOWED}.") from error

    @classmethod
    def from_categories(cls, categories: list[dict[str, Any]]) -> "Taxonomy":
        """Take a json's categories as they are: Background is 0, then categories by id.

        A category called `background`, in any case, is that background and not a second one.

        Args:
            categories: The json's list, each with `id` and `name`.

        Returns:
            A taxonomy called `categories`.

        Raises:
            ValueError: Two categories share a name, or there are more than 253.
        """
        names = [str(c["name"]) for c in sorted(categories, key=lambda c: c["id"])]
        objects = [name for name in names if name.lower() != "background"]
        repeated = _repeated(objects)
        if repeated:
            raise ValueError(
                f"two categories are called {repeated!r}; rename one, or give a taxonomy, which "
                f"may merge them."
            )
        if len(objects) >= MAX_CLASSES:
            raise ValueError(
                f"{len(objects)} categories and the background are more than {MAX_CLASSES} "
                f"classes; give a taxonomy that merges some."
            )
        classes = ("Background", *objects)
        mapping = {name: 0 for name in names if name.lower() == "background"}
        mapping |= {name: train_id for train_id, name in enumerate(objects, start=1)}
        colors = spread_colors(len(classes))
        return cls("categories", classes, colors, 0, {"Background": 0} | mapping)

    def train_id(self, category: dict[str, Any]) -> int | None:
        """Look a COCO category up: by its `name`, and failing that by its `supercategory`.

        Args:
            category: One entry of the json's `categories`.

        Returns:
            The train id, 255 where the taxonomy ignores the category, None where it does not
            mention it.
        """
        for key in ("name", "supercategory"):
            name = category.get(key)
            if isinstance(name, str) and name in self.mapping:
                return self.mapping[name]
        return None

    def closest(self, name: str) -> str | None:
        """Return the mapped name most like a misspelt one, or None if none is like it."""
        folded = {known.lower(): known for known in self.mapping}
        near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.75)
        return folded[near[0]] if near else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings, which a checkpoint can carry."""
        plain = asdict(self)
        return plain | {"classes": list(self.classes), "colors": [list(c) for c in self.colors]}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Taxonomy":
        """Undo `to_dict`.

        Raises:
            ValueError: A key is missing or unknown, or the parts contradict each other.
        """
        expected = sorted(cls.__dataclass_fields__)
        if not isinstance(plain, dict) or sorted(plain) != expected:
            raise ValueError(f"a stored taxonomy has the keys {', '.join(expected)}; got {plain!r}")
        return cls(
            plain["name"],
            tuple(plain["classes"]),
            tuple(_color(color, "a stored taxonomy") for color in plain["colors"]),
            plain["background"],
            dict(plain["mapping"]),
        )

    def _fault(self) -> str | None:
        """Say what is wrong with the parts, or None."""
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            return (
                f"has {len(self.classes)} classes, background included, and must have 1 to "
                f"{MAX_CLASSES}; name or merge some"
            )
        if len(self.colors) != len(self.classes):
            return f"has {len(self.classes)} classes and {len(self.colors)} colours; give each one"
        if name := _repeated(self.classes):
            return f"two classes are called {name!r}; rename one, or merge them with `from`"
        if color := _repeated(self.colors):
            names = [n for n, c in zip(self.classes, self.colors, strict=True) if c == color]
            return f"{' and '.join(names)} share the `color` {list(color)}; change one"
        if self.background not in (None, 0) or isinstance(self.background, bool):
            return f"the background has train id {self.background!r}, and must have 0 or None"
        known = {*range(len(self.classes)), IGNORE}
        for category, train_id in self.mapping.items():
            if type(train_id) is not int or train_id not in known:
                return f"maps {category!r} to {train_id!r}, which is no class and not {IGNORE}"
        return None


def _from_yaml(content: Any, stem: str) -> Taxonomy:
    if not isinstance(content, dict):
        raise ValueError("must be a mapping with the key `classes`")
    _refuse_unknown(content, _FILE_KEYS, "the file")
    name = _text(content.get("name", stem), "`name`")
    listed = content.get("classes")
    if not isinstance(listed, dict) or not listed:
        raise ValueError("`classes` must map each class name to its settings, {} for none")
    background = content.get("background")
    if background is not None:
        background = _text(background, "`background`")
        listed = {background: None} | listed  # the class itself may be listed, to give it a colour
    classes = [_text(key, "a class name") for key in listed]
    mapping: dict[str, int] = {}
    colors: list[Color | None] = []
    for train_id, (class_name, settings) in enumerate(listed.items()):
        settings = {} if settings is None else settings
        if not isinstance(settings, dict):
            raise ValueError(f"class {class_name!r} must hold `from` and `color`; got {settings!r}")
        _refuse_unknown(settings, _CLASS_KEYS, f"class {class_name!r}")
        color = settings.get("color")
        colors.append(None if color is None else _color(color, f"class {class_name!r}"))
        for category in _names(settings.get("from", [class_name]), f"class {class_name!r}: `from`"):
            if category in mapping:
                other = classes[mapping[category]]
                raise ValueError(
                    f"category {category!r} stands in the classes {other!r} and {class_name!r}; "
                    f"remove it from one `from`"
                )
            mapping[category] = train_id
    for category in _names(content.get("ignore") or [], "`ignore`"):
        if category in mapping:
            other = classes[mapping[category]]
            raise ValueError(f"{category!r} stands in class {other!r} and in `ignore`; remove one")
        mapping[category] = IGNORE
    return Taxonomy(
        name, tuple(classes), _fill_colors(colors), None if background is None else 0, mapping
    )


def _fill_colors(colors: list[Color | None]) -> tuple[Color, ...]:
    taken = {color for color in colors if color}
    spare = (c for c in map(_spread_color, range(2 * IGNORE)) if c not in taken)
    return tuple(color or next(spare) for color in colors)


def spread_colors(count: int) -> tuple[Color, ...]:
    """Colours of as many classes, the first one black."""
    return tuple(_spread_color(index) for index in range(count))


def _spread_color(index: int) -> Color:
    """Colour of a class by the rule of PASCAL VOC's label pictures: 0 is black, all differ."""
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))
        for channel in range(3)
    )
    return red, green, blue


def _color(value: Any, where: str) -> Color:
    good = isinstance(value, list | tuple) and len(value) == 3
    if not good or any(type(v) is not int or not 0 <= v <= 255 for v in value):
        raise ValueError(f"{where}: `color` must be three numbers from 0 to 255; got {value!r}")
    return value[0], value[1], value[2]


def _names(value: Any, where: str) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list of category names, [A, B]; got {value!r}")
    names = [_text(name, where) for name in value]
    if repeated := _repeated(names):
        raise ValueError(f"{where} names {repeated!r} twice; remove one")
    return names


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where} must be text; got {value!r}, put it in quotes")
    if not value.isprintable():
        raise ValueError(f"{where} must be one line of printable text; got {value!r}")
    return value


def _refuse_unknown(content: dict[Any, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in content:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1)
            remedy = f"write `{near[0]}`" if near else "remove it"
            raise ValueError(f"{where} has the unknown key {key!r}; {remedy}")


def _repeated(values: Iterable[Any]) -> Any:
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
