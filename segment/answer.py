"""The network's answer on one photo, and what a CRF makes of it, as often as one likes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from segment.crf import DenseCRF
from segment.data.taxonomy import Taxonomy
from segment.labels import labels_of, with_kept
from segment.modules.base import SegmentationModule
from segment.scoring import at_most, refine


class Slider(NamedTuple):
    """A field of `DenseCRF` that is tried by hand, its words, its usual range and its step."""

    field: str
    label: str
    low: float
    high: float
    step: float


SLIDERS = (
    Slider("bilateral_weight", "Colour kernel: weight", 0, 30, 0.1),
    Slider("bilateral_width_px", "Colour kernel: width in the photo, px", 1, 200, 1),
    Slider("bilateral_width_levels", "Colour kernel: width in colour, levels", 1, 60, 0.5),
    Slider("position_weight", "Smoothness kernel: weight", 0, 20, 0.1),
    Slider("position_width_px", "Smoothness kernel: width, px", 0.5, 20, 0.5),
    Slider("iterations", "Iterations", 0, 20, 1),
)


@dataclass(frozen=True, eq=False)
class Answer:
    """A photo that a network has seen once.

    Attributes:
        image: uint8 RGB (H, W, 3).
        maps: Its probabilities, float32 (C, h, w), at most as large as the CRF works.
        raw: Train ids before refining, uint8 (H, W).
    """

    image: NDArray[np.uint8]
    maps: NDArray[np.float32]
    raw: NDArray[np.uint8]

    def refined(self, crf: DenseCRF) -> NDArray[np.uint8]:
        """Train ids after refining, uint8 (H, W): those that `segment.predict` writes."""
        maps, _ = refine(self.image, self.maps, crf)
        own, found = (labels_of(torch.from_numpy(one), self.size) for one in (self.maps, maps))
        return with_kept(own, found, crf.keep_classes).ids.numpy()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photo in pixels."""
        return self.image.shape[0], self.image.shape[1]


def to_device(module: SegmentationModule, name: str | None) -> None:
    """Move a network to a device, None: the fastest.

    Raises:
        ValueError: There is no such device.
    """
    try:
        device = torch.device(name or _fastest())
        torch.zeros(1, device=device).cpu()  # `meta` can be had, but computes nothing
        module.to(device)
    except (RuntimeError, AssertionError, ImportError) as error:
        known = " or ".join(dict.fromkeys([_fastest(), "cpu"]))
        raise ValueError(f"--device {name}: not to be had here; take {known}.") from error


def _fastest() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def classes_of(module: SegmentationModule, checkpoint: Path) -> Taxonomy:
    """The classes that a checkpoint was trained with.

    Raises:
        ValueError: It names none.
    """
    if module.taxonomy is None:
        raise ValueError(f"{checkpoint}: the checkpoint names no classes; train with `fit`.")
    return module.taxonomy


def probabilities_of(module: SegmentationModule, image: NDArray[np.uint8]) -> torch.Tensor:
    """A photo's probabilities, float32 (C, h, w), on the module's device.

    Args:
        module: In evaluation mode.
        image: uint8 RGB (H, W, 3).
    """
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].to(module.device)
    with torch.inference_mode():
        return module.probabilities(tensor)[0]


def ask(module: SegmentationModule, image: NDArray[np.uint8], crf: DenseCRF) -> Answer:
    """Let a network see a photo.

    Args:
        module: In evaluation mode.
        image: uint8 RGB (H, W, 3).
        crf: Whose `max_side` is that of every CRF that will refine the answer.
    """
    maps = probabilities_of(module, image)
    size = image.shape[0], image.shape[1]
    raw = labels_of(maps, size).ids.cpu().numpy()
    return Answer(image, at_most(maps, crf.working_size(*size)).cpu().numpy(), raw)


def range_of(slider: Slider, crf: DenseCRF) -> tuple[float, float, float]:
    """Where a slider starts and ends, with room for the CRF's own value, and that value."""
    value = getattr(crf, slider.field)
    return min(slider.low, value), max(slider.high, value), value


def moved(crf: DenseCRF, values: dict[str, float]) -> DenseCRF:
    """A CRF with the sliders' values.

    Raises:
        ValueError: A value is out of its range.
    """
    changes: dict[str, Any] = dict(values)
    if "iterations" in changes and changes["iterations"] == int(changes["iterations"]):
        changes["iterations"] = int(changes["iterations"])  # a page's numbers are all floats
    return replace(crf, **changes)


def areas_table(
    taxonomy: Taxonomy, raw: NDArray[np.uint8], refined: NDArray[np.uint8]
) -> pd.DataFrame:
    """Classes that a photo shows, the largest first: shares of its pixels raw and refined, %."""
    counts = [np.bincount(ids.ravel(), minlength=256) for ids in (raw, refined)]
    shares = [100 * each[: taxonomy.num_classes] / max(1, raw.size) for each in counts]
    table = pd.DataFrame({"class": taxonomy.classes, "raw %": shares[0], "refined %": shares[1]})
    table["pixels"] = counts[1][: taxonomy.num_classes]
    shown = table[table[["raw %", "refined %"]].sum(axis=1) > 0]
    return shown.sort_values(["refined %", "raw %"], ascending=False, kind="stable")
