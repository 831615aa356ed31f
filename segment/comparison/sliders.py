"""The CRF's parameters as sliders in a notebook, on one photo of a run."""

from pathlib import Path

import cv2
import ipywidgets as widgets
import numpy as np
from numpy.typing import NDArray

from segment.answer import SLIDERS, areas_table, ask, classes_of, moved, range_of
from segment.comparison.runs import Run
from segment.crf import DenseCRF
from segment.data.photos import read_photo
from segment.modules.loading import load_checkpoint
from segment.prediction import overlay
from segment.runs import checkpoint_of


def crf_sliders(run: Run, photo: Path, width: int = 420) -> widgets.VBox:
    """Raw labels beside refined ones, redrawn whenever a slider is let go.

    The network sees the photo once. Sliders start at the CRF that the run was scored with, or at
    that of `DenseCRF` where it had none.

    Args:
        run: A run whose best checkpoint is still there.
        photo: Any photo.
        width: Of each of both pictures on the screen, pixels.

    Returns:
        Two pictures, the shares of the classes, and a slider for each of `SLIDERS`.

    Raises:
        ValueError: The checkpoint or the photo cannot be read.
    """
    checkpoint = Path(run.evaluation["checkpoint"])
    if not checkpoint.is_file():  # the run was moved
        checkpoint = checkpoint_of(run.folder)
    module = load_checkpoint(checkpoint, run.evaluation.get("init_args"))
    taxonomy = classes_of(module, checkpoint)
    colors = np.array(taxonomy.colors, np.uint8)
    start = DenseCRF(**(run.evaluation["crf"] or {"parameters": {}})["parameters"])
    answer = ask(module, read_photo(photo), start)

    raw = widgets.Image(value=_png(overlay(answer.image, answer.raw, colors)), width=width)
    refined = widgets.Image(width=width)
    shares, said = widgets.HTML(), widgets.Label()
    wide = {"style": {"description_width": "260px"}, "layout": {"width": "620px"}}
    moving = {}
    for slider in SLIDERS:
        low, high, value = range_of(slider, start)
        kind = widgets.IntSlider if slider.field == "iterations" else widgets.FloatSlider
        moving[slider.field] = kind(
            value=value,
            min=low,
            max=high,
            step=slider.step,
            description=slider.label,
            continuous_update=False,
            **wide,
        )

    def redraw(_: object = None) -> None:
        try:
            ids = answer.refined(moved(start, {name: one.value for name, one in moving.items()}))
        except ValueError as error:
            said.value = str(error)
            return
        said.value = f"The CRF changed {(ids != answer.raw).mean():.1%} of the labels."
        refined.value = _png(overlay(answer.image, ids, colors))
        table = areas_table(taxonomy, answer.raw, ids)
        shares.value = table.to_html(index=False, escape=True, float_format="{:.1f}".format)

    for one in moving.values():
        one.observe(redraw, "value")
    redraw()
    titles = [widgets.Label("raw"), widgets.Label("refined")]
    pictures = [widgets.VBox(pair) for pair in zip(titles, (raw, refined), strict=True)]
    return widgets.VBox([widgets.HBox(pictures), said, *moving.values(), shares])


def _png(image: NDArray[np.uint8]) -> bytes:
    """An RGB picture as the bytes of a PNG."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    assert done
    return data.tobytes()
