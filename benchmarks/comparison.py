"""One recipe, many networks: what does an architecture change, everything else being equal?

python benchmarks/comparison.py --data path/to/camvid --out docs/comparison.md

Each row is trained by `python -m segment.fit` in a process of its own, into RUNS/<row>/<time>. Rows
that are finished are not trained again, one that was interrupted goes on where it was, so the
script can be stopped and started; `--rows` trains some alone, for instance on two machines. Without
a GPU the rows are those that two cores can train; `--all` takes every network.
"""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from segment.data.coco import CocoFile
from segment.data.stats import count
from segment.data.taxonomy import Taxonomy
from segment.files import write_atomically

LITE0 = {"backbone": "tf_efficientnet_lite0", "pretrained": True}
# The recipe. What a paper does otherwise (rates by layer, frozen norms) is set to the same.
TRAINING = {
    "optimizer": "adamw",
    "lr": 0.001,
    "weight_decay": 0.01,
    "schedule": "poly",
    "warmup_steps": 30,
    "head_lr_factor": 1.0,
    "bias_lr_factor": 1.0,
}
DATA = {
    "taxonomy": "camvid11",
    "crop_size": 224,
    "scale": [0.75, 1.5],
    "colour_jitter": 0.2,
    "batch_size": 8,
    "workers": 1,
}
FORMS = (
    "nearest",
    "bed_of_nails",
    "max_unpooling",
    "transposed_convolution",
    "bilinear",
    "bicubic",
    "dilation",
)


class Row(NamedTuple):
    """A network of the comparison: the module, its arguments, and where its weights start."""

    module: str
    arguments: dict[str, Any]
    weights: str


PRETRAINED, SCRATCH = "ImageNet", "random"
ROWS = {
    "plain_fcn": Row("PlainFCN", {"width": 24}, SCRATCH),
    "fcn32s": Row("FCN", {**LITE0, "stride": 32, "padding": "same"}, PRETRAINED),
    "fcn16s": Row("FCN", {**LITE0, "stride": 16, "padding": "same"}, PRETRAINED),
    "fcn8s": Row("FCN", {**LITE0, "stride": 8, "padding": "same"}, PRETRAINED),
    **{
        f"upsampling_{form}": Row("UpsamplingNet", {"upsampling": form, "width": 16}, SCRATCH)
        for form in FORMS
    },
    "unet": Row(
        "UNet", {"padded": True, "batch_norm": True, "width": 16, "border_weight": 0.0}, SCRATCH
    ),
    "deeplab_v2": Row(
        "DeepLabV2",
        {**LITE0, "output_stride": 16, "aspp": "large", "freeze_batch_norm": False},
        PRETRAINED,
    ),
    "deeplab_v3": Row("DeepLabV3", {**LITE0, "multi_grid": None, "bn_momentum": 0.1}, PRETRAINED),
    "deeplab_v3plus": Row("DeepLabV3Plus", {**LITE0, "bn_momentum": 0.1}, PRETRAINED),
    "semantic_fpn": Row(
        "SemanticFPN", {**LITE0, "width": 128, "freeze_batch_norm": False}, PRETRAINED
    ),
}
# Too slow for a CPU; their VGG-16 and ResNet weights need a download, so they start at random.
LARGE = {
    "deeplab_v1": Row("DeepLabV1", {"pretrained": False}, SCRATCH),
    "segnet": Row("SegNet", {"pretrained": False}, SCRATCH),
    "segnet_basic": Row("SegNetBasic", {}, SCRATCH),
    "deconvnet": Row("DeconvNet", {"pretrained": False, "inference": "whole"}, SCRATCH),
    "frrn_a": Row("FRRN", {"variant": "A", "checkpointing": True}, SCRATCH),
    "frrn_b": Row("FRRN", {"variant": "B", "checkpointing": True}, SCRATCH),
    "contextual": Row("DeepContextualNetwork", {"pretrained": False}, SCRATCH),
    "torchvision_fcn": Row("TorchvisionFCN", {"pretrained": False}, SCRATCH),
    "torchvision_deeplab_v3": Row("TorchvisionDeepLabV3", {"pretrained": False}, SCRATCH),
    "unet_wide": Row("UNet", {"padded": True, "batch_norm": True, "border_weight": 0.0}, SCRATCH),
}


def experiment(row: Row, data: Path, classes: int, epochs: int) -> dict[str, Any]:
    """The YAML of a row."""
    return {
        "seed_everything": 0,
        "model": {
            "class_path": f"segment.modules.{row.module}Module",
            "init_args": {"num_classes": classes, **TRAINING, **row.arguments},
        },
        "data": {"root": str(data.resolve()), **DATA},
        "crf": {"iterations": 5},
        "trainer": {
            "max_epochs": epochs,
            "check_val_every_n_epoch": epochs,  # the last weights count: no row may choose its best
            "logger": False,
        },
    }


def finished(runs: Path, name: str) -> Path | None:
    """The evaluation of a row's run, if it has one."""
    return next(iter(sorted((runs / name).glob("*/evaluation.json"))), None)


def train(runs: Path, name: str, config: dict[str, Any]) -> None:
    """Train one row, or go on with it; stops the script where the row fails."""
    path = runs / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    begun = sorted((runs / name).glob("*/checkpoints/last.ckpt"))
    words = ["--resume", str(begun[-1].parents[1])] if begun else ["--config", str(path)]
    print(f"== {name}", flush=True)
    root = ["--trainer.default_root_dir", str(runs)]
    subprocess.run([sys.executable, "-m", "segment.fit", *words, *root], check=True)


def most_frequent(data: Path, taxonomy: Taxonomy, confusion: np.ndarray) -> tuple[str, float]:
    """The class with most training pixels, and the mIoU on `confusion`'s truth of saying it."""
    pixels = count(CocoFile(data / "train.json", data, taxonomy=taxonomy)).pixels
    best = int(np.argmax(pixels))
    truth = confusion.sum(axis=1)
    return taxonomy.classes[best], float(truth[best] / truth.sum() / (truth > 0).sum())


def percent(value: float | None) -> str:
    """A score as it stands in the table."""
    return "-" if value is None else f"{100 * value:.1f}"


def table(runs: Path, rows: dict[str, Row], data: Path, taxonomy: Taxonomy, epochs: int) -> str:
    """The finished rows as Markdown."""
    done = {name: found for name in rows if (found := finished(runs, name)) is not None}
    loaded = {name: json.loads(path.read_text()) for name, path in done.items()}
    if not loaded:
        raise SystemExit(f"{runs}: no finished run to tell of.")
    confusion = np.array(next(iter(loaded.values()))["raw"]["confusion"])
    word, floor = most_frequent(data, taxonomy, confusion)
    lines = [
        "| network | weights | parameters | mIoU raw | refined | boundary F1 raw | refined "
        "| s per step | s per photo |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
        f"| always {word} | none | 0 | {percent(floor)} | - | 0.0 | - | - | - |",
    ]
    for name, told in loaded.items():
        raw, refined, cost = told["raw"], told["refined"], told["cost"]
        beaten = raw["miou"] > floor
        lines.append(
            f"| {name}{'' if beaten else ' (does not beat the first row)'} | {rows[name].weights} "
            f"| {cost['parameters']:,} | {percent(raw['miou'])} | {percent(refined['miou'])} "
            f"| {percent(raw['boundary_f1'])} | {percent(refined['boundary_f1'])} "
            f"| {cost['seconds_per_training_step']:.2f} | {cost['seconds_per_photo_forward']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="CamVid as COCO: train, val.json")
    parser.add_argument("--runs", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--out", type=Path, help="Markdown file to write; else it is printed")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", nargs="*", help="train these alone; the table has all finished")
    parser.add_argument("--all", action="store_true", default=torch.cuda.is_available())
    options = parser.parse_args()
    rows = {**ROWS, **LARGE} if options.all else ROWS
    wanted = list(rows) if options.rows is None else options.rows
    if unknown := set(wanted) - set(rows):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(rows)}")
    taxonomy = Taxonomy.load(DATA["taxonomy"])
    options.runs.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        if finished(options.runs, name) is None:
            config = experiment(rows[name], options.data, taxonomy.num_classes, options.epochs)
            train(options.runs, name, config)
    text = table(options.runs, rows, options.data, taxonomy, options.epochs)
    if options.out is None:
        print(text)
        return
    head = (
        "# One recipe, many networks\n\nWritten by `benchmarks/comparison.py`: "
        f"{options.epochs} epochs of CamVid (367 photos) at 224x224 crops, 8 a step, AdamW at "
        f"{TRAINING['lr']}, seed 0; scores in per cent on the 101 validation photos at their own "
        f"size. {platform.processor() or platform.machine()}, torch {torch.__version__}.\n\n"
    )
    write_atomically(options.out, (head + text + "\n").encode())


if __name__ == "__main__":
    main()
