"""Everything wrong with one or several COCO files at once, and photos they hold twice."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tqdm import tqdm

from segment.data.coco import CocoFile
from segment.data.defects import Survey
from segment.data.duplicates import Print, find_twins, take_print
from segment.data.outlines import run_lengths
from segment.data.photos import read_photo
from segment.data.records import Defect
from segment.data.taxonomy import Taxonomy

_SHOWN = 10  # of each kind; the JSON has all


def check(
    annotations: Sequence[Path],
    root: Path,
    taxonomy: Taxonomy | None = None,
    *,
    decode: bool = True,
) -> list[Defect]:
    """Find all defects of COCO files, and photos that stand in them twice.

    Args:
        annotations: The files, for example one for each split.
        root: Folder that their `file_name`s start from.
        taxonomy: Classes to use; None takes the first file's categories for all files, as
            training takes those of its training json.
        decode: Whether to decode the photos. Only then are copies found, and damage before a
            photo's end.

    Returns:
        Fatal defects first, each kind together. Annotations and classes without a pixel are of kind
        `no-pixel`. Copies are of kind `same-photo` (equal pixels) and
        `similar-photo`; within one file or across two, they are not fatal.
    """
    defects: list[Defect] = []
    entries: list[tuple[Path, str]] = []
    for path in annotations:
        survey = Survey(path, root, taxonomy, True)
        taxonomy = survey.taxonomy if taxonomy is None else taxonomy
        defects += survey.defects
        defects += _unseen(path, root, taxonomy, survey)
        entries += [(path, photo.file_name) for photo in survey.photos if decode]
    told = [defect.message for defect in defects if defect.kind.startswith("photo")]
    # A photo that is missing is told by its header already.
    defects += [d for d in _copies(root, entries) if d.kind != "photo" or d.message not in told]
    return sorted(defects, key=lambda defect: (not defect.fatal, defect.kind))


def report(annotations: Sequence[Path], defects: Sequence[Defect]) -> str:
    """Set defects out for reading, grouped by kind.

    Args:
        annotations: The files that were checked.
        defects: As `check` returns them.

    Returns:
        Several lines, without a line break at the end.
    """
    lines = []
    for (fatal, kind), group in groupby(defects, key=lambda defect: (defect.fatal, defect.kind)):
        messages = [defect.message for defect in group]
        lines.append(f"{kind}: {len(messages)} ({'fatal' if fatal else 'to look at'})")
        lines += [f"  {message}" for message in messages[:_SHOWN]]
        if len(messages) > _SHOWN:
            lines.append(f"  ... and {len(messages) - _SHOWN} more; --json writes all of them")
    fatal = sum(defect.fatal for defect in defects)
    names = ", ".join(map(str, annotations))
    summary = f"{fatal} fatal defects, {len(defects) - fatal} to look at" if defects else "clean"
    return "\n".join([*lines, f"{names}: {summary}."])


def _unseen(path: Path, root: Path, taxonomy: Taxonomy | None, survey: Survey) -> list[Defect]:
    """Annotations too small to own a pixel, and classes that no photo shows."""
    empty = [
        annotation["id"]
        for photo in tqdm(survey.photos, "painting", unit="photo", delay=2, disable=None)
        for annotation in survey.annotations.get(photo.id, [])
        if not run_lengths(annotation["segmentation"], photo.height, photo.width)[1::2].any()
    ]
    found = []
    if empty:
        message = (
            f"{path}: {len(empty)} annotations are too small to own a pixel and change nothing; "
            f"remove them, beginning with annotation {empty[0]}."
        )
        found.append(Defect("no-pixel", False, message))
    if survey.annotated and not any(defect.fatal for defect in survey.defects):
        coco = CocoFile(path, root, taxonomy=taxonomy, check_photos=False)
        if absent := coco.absent_classes():
            message = (
                f"{path}: no photo shows a pixel of {', '.join(absent)}; a network cannot learn "
                f"them from these photos; annotate some, or leave them out of the taxonomy."
            )
            found.append(Defect("no-pixel", False, message))
    return found


def _copies(root: Path, entries: Sequence[tuple[Path, str]]) -> list[Defect]:
    """Damaged photos and pairs of copies among photos given as (annotation file, file name)."""
    defects: list[Defect] = []
    prints: list[Print] = []
    whole: list[tuple[Path, str]] = []
    for path, name in tqdm(entries, desc="reading photos", unit="photo", delay=2, disable=None):
        try:
            prints.append(take_print(read_photo(root / name)))
        except ValueError as error:
            what = str(error).rstrip(".")
            defects.append(Defect("photo", True, f"{path}: {what}."))
        else:
            whole.append((path, name))
    for twins in find_twins(prints):
        (path, name), (other_path, other_name) = whole[twins.first], whole[twins.second]
        across = f" of {other_path.name}: it stands in two splits" if path != other_path else ""
        if twins.exact:
            likeness = "is the same photo as"
        else:
            turned = ", turned or mirrored," if twins.turned else ""
            likeness = f"nearly equals (correlation {twins.likeness:.3f}{turned})"
        message = f"{path}: photo {name!r} {likeness} {other_name!r}{across}; remove one."
        kind = "same-photo" if twins.exact else "similar-photo"
        defects.append(Defect(kind, False, message))
    return defects
