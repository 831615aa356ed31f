"""Checkpoint -> ONNX file that takes the photo itself, checked against torch.

    python -m segment.export --run RUN --out model.onnx
    python -m segment.export --run RUN --out model.onnx --size 480 640

The graph maps `image`, uint8 RGB (1, 3, H, W), to `logits`, float32 (1, C, H, W). Normalization,
and padding to a size that the network takes, are inside; H and W are fixed, because that size is
worked out when the graph is written. Windows, scales and flips that a recipe evaluates with, and
the CRF, are not in it, not even one that was trained with the network (CRFRNNModule): metadata have
that. PatchCNN's modes `naive` and `shift_and_stitch` become one copy of the
network per window or shift, which takes minutes from 20 pixels on; `dense` gives the same scores.

Metadata of the model, all text:

    classes          class names in the order of the channels, a JSON list
    colors           their RGB, 0 to 255, a JSON list of lists
    short_side       shorter side in pixels to which evaluation scaled photos; null: it did not
    architecture, experiment, segment_version
    crf              of CRFRNNModule alone: what it learnt, settings of `DenseCRF`, a JSON object
"""

import json
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from torch import Tensor, nn

from segment import __version__
from segment.arguments import add_run
from segment.cli_errors import SegmentParser, user_errors
from segment.files import write_atomically
from segment.modules import CRFRNNModule, SegmentationModule
from segment.modules.loading import load_checkpoint
from segment.runs import checkpoint_of, read_config

TOLERANCE = 1e-4  # of logits, times the largest where that is above 1: float32 has 7 digits
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def _arguments() -> jsonargparse.ArgumentParser:
    parser = SegmentParser(prog="python -m segment.export", description=__doc__)
    add_run(parser)
    parser.add_argument("--out", type=str, required=True, help="File to write, model.onnx say.")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="Height and width of photos; default: a square of the run's short_side or crop_size.",
    )
    return parser


def export(args: Sequence[str]) -> None:
    """Run the verb with its command line."""
    config = _arguments().parse_args(list(args))
    run, out = Path(config.run), Path(config.out)
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"export needs {', '.join(missing)}; install with `pip install -e '.[export]'`."
        )
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; give --out a file such as {out / 'model.onnx'}.")
    settings = read_config(run)
    module = load_checkpoint(checkpoint_of(run, config.checkpoint))
    if module.taxonomy is None:
        raise ValueError(f"{run}: the checkpoint names no classes; train with `fit`.")
    side = module.short_side or settings["data"]["crop_size"]
    height, width = config.size or (side, side)
    if min(height, width) < 1:
        raise ValueError(f"--size is {height} {width}; give height and width in pixels.")
    metadata = {
        "classes": json.dumps(module.taxonomy.classes),
        "colors": json.dumps(module.taxonomy.colors),
        "short_side": json.dumps(module.short_side),
        "architecture": type(module.network).__name__,
        "experiment": str(settings.get("experiment")),
        "segment_version": __version__,
    }
    if isinstance(module, CRFRNNModule):
        metadata["crf"] = json.dumps(asdict(module.dense_crf()))
    model, differences = to_onnx(module, height, width, metadata)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, model)
    print(
        f"{out}: {len(model) / 1e6:.1f} MB, takes photos of {height}x{width} pixels; on a random "
        f"one onnxruntime's logits differ from torch's by {differences.median():.1e} in the median "
        f"and {differences.max():.1e} at most."
    )
    if isinstance(module, CRFRNNModule):
        print(
            "The CRF that was trained with the network is not in the graph: its settings are in "
            "the metadata `crf`, for segment.crf.DenseCRF on the softmax of the logits."
        )


def to_onnx(
    module: SegmentationModule, height: int, width: int, metadata: Mapping[str, str]
) -> tuple[bytes, Tensor]:
    """Export, and compare with torch on one random photo.

    Returns:
        The file's content, and by how much onnxruntime's logits differ from torch's, (1, C, H, W).

    Raises:
        ValueError: An operator has no counterpart in ONNX, or logits differ by more than TOLERANCE.
    """
    photo = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    logging.disable(logging.WARNING)  # the exporter's notes to its own developers
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            expected = module(photo)
            model = _traced(module, photo, metadata)
            found = _run(model, photo)
    except Exception as error:  # whatever the exporter and onnxruntime happen to raise
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise ValueError(
            f"{type(module.network).__name__} cannot be exported ({reason}); "
            f"if no network can, torch {torch.__version__} and onnxscript {version('onnxscript')} "
            f"do not go together: take those of one time."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    differences = (found - expected).abs()
    # Where two pixels of a pool tie within rounding, max unpooling may take either. On a large
    # photo some do, in torch's own float32 against float64 as well.
    ties = any(getattr(layer, "return_indices", False) for layer in module.modules())
    difference = (differences.median() if ties else differences.max()).item()
    allowed = TOLERANCE * max(1.0, expected.abs().max().item())
    if not difference <= allowed:  # NaN, too
        raise ValueError(
            f"onnxruntime's logits of {type(module.network).__name__} differ from torch's by "
            f"{difference:.1e}, where {allowed:.1e} is allowed; nothing was written."
        )
    return model, differences


def _traced(module: SegmentationModule, photo: Tensor, metadata: Mapping[str, str]) -> bytes:
    # Inside another module: torch 2.6 confuses the buffer `mean` with an operator's result `mean`.
    outer = nn.Sequential(module)
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"]}
    program: Any = torch.onnx.export(outer, (photo,), dynamo=True, verbose=False, **names)
    for node in program.model.graph:
        node.metadata_props.clear()  # source lines, with the paths of this machine
    program.model.metadata_props.update(metadata)
    return program.model_proto.SerializeToString()


def _run(model: bytes, photo: Tensor) -> Tensor:
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about speed
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"image": photo.numpy()})[0])


if __name__ == "__main__":
    user_errors(lambda: export(sys.argv[1:]))
