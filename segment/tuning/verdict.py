"""Whether refining helps on photos that tuned nothing, in words and as a table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.bootstrap import Difference, measures, paired_bootstrap, summed
from segment.data.records import Photo
from segment.metrics import Totals

# What to do with the file of the parameters, by verdict.
ADVICE = {
    1: "use it with --crf {}",
    -1: "this run is better off without: --crf null; what was found is in {}",
    0: "nothing here shows that --crf {} helps, nor that it harms",
}
WORDS = {
    1: "refine",
    -1: "do not refine",
    0: "no difference that these photos could show",
}
FEW = 20  # photos or blocks, below which the verdict says that its interval is too narrow
NAMES = {"miou": "mean IoU", "boundary_f1": "boundary F1", "trimap_miou": "mean IoU within 4 px"}


def falling(raw: Totals, refined: Totals, background: int | None) -> list[int]:
    """Train ids whose IoU the refinement lowers on these photos: those to gate."""
    before, after = (measures(summed(totals), background) for totals in (raw, refined))
    classes = raw.confusion.shape[1]
    return [c for c in range(classes) if after[f"iou/{c}"] < before[f"iou/{c}"]]


@dataclass(frozen=True)
class Held:
    """Scores of the half that tuned nothing.

    Args:
        totals: Stacked totals by name: `raw`, and each refinement.
        classes: Names by train id.
        background: Train id of the background, or None.
        blocks: See `paired_bootstrap`.
    """

    totals: dict[str, Totals]
    classes: tuple[str, ...]
    background: int | None
    blocks: NDArray[np.integer]

    @property
    def drawn(self) -> str:
        """What the bootstrap draws: photos, or blocks of them."""
        return "blocks" if len(np.unique(self.blocks)) < len(self.blocks) else "photos"

    def differences(self, name: str, base: str = "raw") -> dict[str, Difference]:
        """A refinement minus raw, or minus another, by measure."""
        return paired_bootstrap(self.totals[base], self.totals[name], self.background, self.blocks)

    def table(self, seconds: dict[str, float]) -> str:
        """Scores of every kind, and `seconds` a photo of those that have them, as Markdown."""
        heads = [*NAMES.values(), "CRF seconds a photo"]
        lines = ["| | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
        for name, totals in self.totals.items():
            scores = measures(summed(totals), self.background)
            cells = [_score(scores[m]) for m in NAMES]
            cells.append(f"{seconds[name]:.2f}" if name in seconds else "-")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def against(self, name: str, other: str, objective: str) -> str:
        """A refinement against another, as a sentence."""
        told = interval(self.differences(name, other)[objective], self.drawn)
        return f"{name[0].upper()}{name[1:]} against {other}: {NAMES[objective]} {told}."

    def verdict(self, name: str, objective: str, skipped: int) -> str:
        """Whether that refinement helps, and how many photos were `skipped`, as sentences."""
        found = self.differences(name)[objective]
        level = "" if math.isnan(found.low) else ", 95 % interval"
        of = f"{len(self.blocks)} photos"
        if self.drawn == "blocks":
            of += f" in {len(np.unique(self.blocks))} blocks"
        told = (
            f"Verdict: {WORDS[found.verdict]} ({NAMES[objective]} {interval(found, self.drawn)}"
            f"{level}, {of} that tuned nothing)."
        )
        if len(np.unique(self.blocks)) < FEW and level:
            told += (
                f" Of fewer than {FEW} {self.drawn} such an interval is too narrow: in simulations "
                f"it held the truth 86 (6 {self.drawn}) to 92 times of 100."
            )
        lacking = f" {skipped} photos could not be read and are in neither half."
        return told + (lacking if skipped else "")

    def by_class(self, name: str) -> str:
        """A refinement's IoU by class beside raw, with the interval of the difference."""
        differences = self.differences(name)
        before, after = (
            measures(summed(self.totals[kind]), self.background) for kind in ("raw", name)
        )
        lines = ["| IoU | raw | " + name + " | difference |", "|---|--:|--:|---|"]
        for train_id, word in enumerate(self.classes):
            key = f"iou/{train_id}"
            lines.append(
                f"| {word} | {_score(before[key])} | {_score(after[key])} | "
                f"{interval(differences[key], self.drawn)} |"
            )
        return "\n".join(lines)


def interval(difference: Difference, of: str = "photos") -> str:
    """A difference with its interval, for reading; `of` is what was drawn: photos, or blocks."""
    if math.isnan(difference.value):
        return "not seen"
    if math.isnan(difference.low):
        return f"{difference.value:+.3f} (too few {of} for an interval)"
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def chosen(photos: Sequence[Photo], most: int, block_size: int, seed: int) -> list[Photo]:
    """At most so many photos, by whole blocks, in their own order; two blocks at least."""
    blocks = [photos[i : i + block_size] for i in range(0, len(photos), block_size)]
    order = np.random.default_rng(seed).permutation(len(blocks))
    wanted = max(2, most // block_size)
    return [photo for n in sorted(order[:wanted]) for photo in blocks[n]]


def halves(photos: int, block_size: int, seed: int) -> tuple[list[int], list[int]]:
    """Places of the photos that tune and of those that are held out, by whole blocks.

    Raises:
        ValueError: There are not two blocks.
    """
    blocks = np.arange(photos) // block_size
    number = int(blocks.max()) + 1 if photos else 0
    if number < 2:
        raise ValueError(
            f"{photos} photos in blocks of {block_size} make {number} blocks, and tuning takes "
            f"one half and scores on the other; give more photos or a smaller --block_size."
        )
    order = np.random.default_rng(seed).permutation(number)
    tuning = np.isin(blocks, order[: (number + 1) // 2])
    return np.flatnonzero(tuning).tolist(), np.flatnonzero(~tuning).tolist()


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
