"""A finished run: its scores, what every photo adds to them, its cost, and what made it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment import modules
from segment.bootstrap import Sums
from segment.evaluation import CHOSE, TRAINED, TUNED
from segment.runs import validations

KINDS = ("raw", "refined")


@dataclass(frozen=True, eq=False)
class Run:
    """A finished, scored run.

    Attributes:
        folder: Of its evaluation.json.
        name: What the report calls it, unlike any other run's.
        evaluation: Its evaluation.json.
        config: Its config.yaml.
        files: Names of the photos, in the order of the annotation file.
        sums: What each photo adds to the scores, raw and, with a CRF, refined, int32 (P, ...).
        changed: Share of each photo's labelled pixels that refining gave another class, at the
            least: what the two confusion matrices need, (P,); 0 without a CRF.
    """

    folder: Path
    name: str
    evaluation: dict[str, Any]
    config: dict[str, Any]
    files: tuple[str, ...]
    sums: dict[str, Sums]
    changed: NDArray[np.float64]

    @property
    def classes(self) -> list[str]:
        """Names by train id."""
        return self.evaluation["classes"]

    @property
    def background(self) -> int | None:
        """Train id of the background."""
        return self.evaluation["background"]

    @property
    def seed(self) -> int:
        """`seed_everything`."""
        return self.evaluation["seed"]

    @property
    def kinds(self) -> list[str]:
        """`raw` and, where it was refined, `refined`."""
        return [kind for kind in KINDS if kind in self.sums]

    @cached_property
    def photo_set(self) -> tuple[object, ...]:
        """What two runs must have in common to be compared: photos, their truth, and classes."""
        digest = hashlib.sha256()
        for field in self._truth():
            digest.update(np.ascontiguousarray(field).tobytes())
        return self.files, tuple(self.classes), self.background, digest.hexdigest()

    def _truth(self) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """True pixels of each photo by class, (P, C): of all of it, and near true edges."""
        sums = self.sums["raw"]
        return sums.pixels[:, 1].astype(np.int64), sums.trimap[:, 1].astype(np.int64)

    @property
    def weights(self) -> str:
        """Where the weights came from before training."""
        if self._checkpoints:
            return ", ".join(map(short_path, self._checkpoints))
        pretrained = (self.config["model"].get("init_args") or {}).get("pretrained")
        if pretrained is True:
            return self.evaluation.get("pretrained_on", self._usual.pretrained_on)
        return Path(str(pretrained)).name if pretrained else "random"

    @property
    def _checkpoints(self) -> list[str]:
        """What training started from, other than pretrained weights."""
        given = self.config["model"].get("init_args") or {}
        names = self.evaluation.get("starts_from", self._usual.starts_from)
        return [str(given[name]) for name in names if given.get(name)]

    @property
    def _usual(self) -> type[modules.SegmentationModule]:
        """The module's class, for runs from before evaluations told; one not ours is not taken."""
        name = str(self.config["model"].get("class_path")).rpartition(".")[2]
        found: type[modules.SegmentationModule] = getattr(
            modules, name if name in modules.__all__ else "SegmentationModule"
        )
        return found

    def roles(self, kind: str) -> list[str]:
        """What the photos that are scored had decided before, as words; empty: nothing."""
        words = (TRAINED, CHOSE, *([TUNED] if kind == "refined" else []))
        found = [word for word in words if any(word in note for note in self.evaluation["notes"])]
        # A choice among one checkpoint is none, but evaluations noted it once; what the run started
        # from may have been chosen.
        own = Path(self.evaluation["checkpoint"]).parent.parent.name in self.folder.resolve().parts
        alone = own and validations(self.config.get("trainer")) == 1 and not self._checkpoints
        return [word for word in found if not (alone and word == CHOSE)]

    def photo_scores(self, kind: str) -> NDArray[np.float64]:
        """Mean IoU of each photo over the classes that its truth shows, (P,); NaN: none."""
        both, truth, predicted = np.moveaxis(self.sums[kind].pixels.astype(np.float64), 1, 0)
        shown = truth > 0
        iou = np.divide(both, truth + predicted - both, out=np.zeros_like(both), where=shown)
        number = shown.sum(1)
        return np.divide(iou.sum(1), number, out=np.full(len(number), np.nan), where=number > 0)


def short_path(path: str) -> str:
    """A checkpoint of a run as experiment/time, and its name unless that is `best`; else a name."""
    parts = Path(path).parts
    if len(parts) < 4 or parts[-2] != "checkpoints":
        return Path(path).name
    stem = Path(path).stem
    return f"{parts[-4]}/{parts[-3]}" + ("" if stem == "best" else f" ({stem})")


@dataclass(frozen=True)
class Unfinished:
    """A run that has no scores to compare yet.

    Attributes:
        folder: Its folder.
        reason: What is missing, and what makes it.
    """

    folder: Path
    reason: str


def by_photo_set(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs that can be compared with each other, together."""
    sets: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        sets.setdefault(run.photo_set, []).append(run)
    return list(sets.values())


def check_side_by_side(runs: Sequence[Run]) -> None:
    """Refuse runs that were scored on other photos, truth or classes than the first one.

    Raises:
        ValueError: Names what differs.
    """

    def facts(run: Run) -> dict[str, Any]:
        annotations = run.evaluation["annotations"]
        return {
            "split": run.evaluation["split"],
            "annotation file": f"{annotations['path']} (sha256 {annotations['sha256'][:8]}...)",
            "classes": ", ".join(run.classes),
            "background": "none" if run.background is None else run.classes[run.background],
        }

    first = facts(runs[0])
    for run in runs[1:]:
        own = facts(run)
        same_file = (
            run.evaluation["annotations"]["sha256"] == runs[0].evaluation["annotations"]["sha256"]
        )
        differs = [
            f"{key}: {first[key]} against {own[key]}"
            for key in own
            if own[key] != first[key] and not (key == "annotation file" and same_file)
        ]
        if run.classes == runs[0].classes:
            differs += _other_photos(runs[0], run)
        if differs:
            raise ValueError(
                f"{runs[0].folder} and {run.folder} do not belong side by side "
                f"({'; '.join(differs)}); leave one out, or give --anyway."
            )


def _other_photos(first: Run, second: Run) -> list[str]:
    """How the photos of two runs of the same classes differ, or their truth; empty: they do not."""
    if first.files != second.files:
        apart = sorted(set(first.files) ^ set(second.files))
        if not apart:
            return ["photos: in another order"]
        some = f", {len(apart)} of them in one alone, such as {apart[0]}"
        return [f"photos: {len(first.files)} against {len(second.files)}{some}"]
    pixels, edges = first._truth()
    others, other_edges = second._truth()
    for run, ours, theirs in ((first, pixels, others), (second, others, pixels)):
        skipped = np.flatnonzero((ours.sum(1) == 0) & (theirs.sum(1) > 0))
        if len(skipped):
            return [
                f"photos: {run.folder.name} was not scored on {len(skipped)} of "
                f"{len(run.files)}, such as {run.files[skipped[0]]}"
            ]
    relabelled = np.flatnonzero((pixels != others).any(1) | (edges != other_edges).any(1))
    if not len(relabelled):
        return []
    photo = relabelled[0]
    words = f"true labels: other ones in {len(relabelled)} of {len(first.files)} photos"
    changed = np.flatnonzero(pixels[photo] != others[photo])
    if not len(changed):
        return [f"{words}, such as {first.files[photo]}"]
    name, numbers = first.classes[changed[0]], (pixels[photo], others[photo])
    shown = " against ".join(str(each[changed[0]]) for each in numbers)
    return [f"{words}, such as {first.files[photo]} ({name}: {shown} px)"]
