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
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from tqdm import tqdm

from segment import modules
from segment.data.coco import CocoFile
from segment.data.stats import count
from segment.data.taxonomy import Taxonomy
from segment.files import write_atomically

LITE0 = {"backbone": "tf_efficientnet_lite0", "pretrained": True}
# The recipe. What a paper does otherwise (rates by layer, frozen norms, its own loss) is set to the
# same; LEFT tells what no setting changes.
TRAINING = {
    "optimizer": "adamw",
    "lr": 0.001,
    "weight_decay": 0.01,
    "schedule": "poly",
    "warmup_steps": 30,
    "head_lr_factor": 1.0,
    "bias_lr_factor": 1.0,
}
DATA: dict[str, Any] = {
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


# The crops have 14 cells, on which the outer taps of the paper's rates 12 and 18 hardly ever lie:
# untrained, they would be noise on whole photos. 230 steps need the faster statistics.
ON_CROPS = {"rates": [3, 6, 9], "bn_momentum": 0.1}


LEFT = """PatchCNN draws as many windows of every class, FRRN's mean is over unlabelled pixels too,
DeepLab v1 and v2 train biases at twice the rate and without decay, v3+ decays no
depthwise convolution, and the Deep Contextual Network keeps the auxiliary losses it is about."""


class Row(NamedTuple):
    """A network of the comparison: the module, its arguments, and where its weights start."""

    module: str
    arguments: dict[str, Any]
    weights: str


DEVICE = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
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
        {**LITE0, "output_stride": 16, "loss_size": "full", "freeze_batch_norm": False},
        PRETRAINED,
    ),
    "deeplab_v3": Row("DeepLabV3", {**LITE0, **ON_CROPS, "multi_grid": None}, PRETRAINED),
    "deeplab_v3plus": Row("DeepLabV3Plus", {**LITE0, **ON_CROPS}, PRETRAINED),
    "semantic_fpn": Row(
        "SemanticFPN", {**LITE0, "width": 128, "freeze_batch_norm": False}, PRETRAINED
    ),
}
# Too slow for a CPU; their VGG-16 and ResNet weights need a download, so they start at random.
# EDeconvNet is missing: it trains nothing, but joins two runs of others.
RANDOM: dict[str, Any] = {"pretrained": False}
TORCHVISION = {**RANDOM, "auxiliary_weight": 0.0}
FRRN = {"checkpointing": True, "hardest": DATA["crop_size"] ** 2}
LARGE = {
    "patch_cnn": Row("PatchCNN", {}, SCRATCH),
    "fcn8s_vgg16": Row("FCN", {**RANDOM, "stride": 8, "padding": "original"}, SCRATCH),
    "deeplab_v1": Row("DeepLabV1", {**RANDOM, "loss_size": "full"}, SCRATCH),
    "deeplab_v2_vgg16": Row(
        "DeepLabV2", {**RANDOM, "loss_size": "full", "freeze_batch_norm": False}, SCRATCH
    ),
    "deeplab_v3_resnet101": Row("DeepLabV3", {**RANDOM, **ON_CROPS}, SCRATCH),
    "deeplab_v3plus_xception65": Row("DeepLabV3Plus", {**RANDOM, **ON_CROPS}, SCRATCH),
    "semantic_fpn_resnet50": Row(
        "SemanticFPN", {**RANDOM, "backbone": "resnet50", "freeze_batch_norm": False}, SCRATCH
    ),
    "segnet": Row("SegNet", {**RANDOM, "recompute_batch_norm": False}, SCRATCH),
    "segnet_basic": Row("SegNetBasic", {"recompute_batch_norm": False}, SCRATCH),
    "deconvnet": Row(
        "DeconvNet", {**RANDOM, "inference": "whole", "recompute_batch_norm": False}, SCRATCH
    ),
    "frrn_a": Row("FRRN", {**FRRN, "variant": "A"}, SCRATCH),
    "frrn_b": Row("FRRN", {**FRRN, "variant": "B"}, SCRATCH),
    "contextual": Row("DeepContextualNetwork", RANDOM, SCRATCH),
    "torchvision_fcn": Row("TorchvisionFCN", TORCHVISION, SCRATCH),
    "torchvision_deeplab_v3": Row("TorchvisionDeepLabV3", TORCHVISION, SCRATCH),
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


def differing(wanted: dict[str, Any], had: dict[str, Any], where: str = "") -> str | None:
    """The first setting of `wanted` that a run was not given."""
    for key, value in wanted.items():
        found = had.get(key)
        if isinstance(value, dict) and isinstance(found, dict):
            deeper = differing(value, found, f"{where}{key}.")
            if deeper is not None:
                return deeper
        elif json.dumps(value) != json.dumps(found):
            return f"{where}{key}"
    return None


def train(runs: Path, name: str, config: dict[str, Any]) -> None:
    """Train one row, or go on with it; stops the script where the row fails.

    Raises:
        SystemExit: The row was begun with another recipe.
    """
    begun = sorted((runs / name).glob("*/config.yaml"))
    for path in begun:
        key = differing(config, yaml.safe_load(path.read_text()))
        if key is not None:
            raise SystemExit(f"{path}: {key} is of another recipe; move it away, or give --runs.")
    if finished(runs, name) is not None:
        return
    path = runs / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    can_go_on = begun and (begun[-1].parent / "checkpoints" / "last.ckpt").exists()
    words = ["--resume", str(begun[-1].parent)] if can_go_on else ["--config", str(path)]
    print(f"== {name}", flush=True)
    root = ["--trainer.default_root_dir", str(runs)]
    subprocess.run([sys.executable, "-m", "segment.fit", *words, *root], check=True)


def most_frequent(data: Path, taxonomy: Taxonomy, confusion: np.ndarray) -> tuple[str, float]:
    """The class with most training pixels, and the mIoU on `confusion`'s truth of saying it."""
    pixels = count(CocoFile(data / "train.json", data, taxonomy=taxonomy)).pixels
    best = int(np.argmax(pixels))
    truth = confusion.sum(axis=1)
    return taxonomy.classes[best], float(truth[best] / truth.sum() / (truth > 0).sum())


def seconds(rows: dict[str, Row], classes: int, rounds: int = 5) -> dict[str, tuple[float, float]]:
    """Median seconds of a training step and of a photo's forward pass, one row after the other.

    Measured here, side by side, because rows may have been trained at other times and on a busy
    machine.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = DATA["crop_size"]
    crops = torch.randint(0, 256, (DATA["batch_size"], 3, side, side), dtype=torch.uint8)
    masks = torch.randint(0, classes, (DATA["batch_size"], side, side))
    photo = torch.randint(0, 256, (1, 3, 360, 480), dtype=torch.uint8)
    crops, masks, photo = (one.to(device) for one in (crops, masks, photo))
    networks = {}
    for name, row in rows.items():
        module = getattr(modules, f"{row.module}Module")
        networks[name] = module(num_classes=classes, **TRAINING, **row.arguments).to(device)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for _ in tqdm(range(rounds + 1), "timing", disable=None):
        for name, network in networks.items():
            start = now(device)
            network.train().zero_grad()
            network.loss(crops, masks).backward()
            middle = now(device)
            with torch.inference_mode():
                network.eval()(photo)
            taken[name].append((middle - start, now(device) - middle))
    medians = {}
    for name, times in taken.items():
        steps, forwards = zip(*times[1:], strict=True)  # the first round warms up
        medians[name] = statistics.median(steps), statistics.median(forwards)
    return medians


def now(device: torch.device) -> float:
    """The clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def percent(value: float | None) -> str:
    """A score as it stands in the table."""
    return "-" if value is None else f"{100 * value:.1f}"


def table(runs: Path, rows: dict[str, Row], data: Path, taxonomy: Taxonomy) -> str:
    """The finished rows as Markdown."""
    done = {name: found for name in rows if (found := finished(runs, name)) is not None}
    loaded = {name: json.loads(path.read_text()) for name, path in done.items()}
    if not loaded:
        raise SystemExit(f"{runs}: no finished run to tell of.")
    confusion = np.array(next(iter(loaded.values()))["raw"]["confusion"])
    word, floor = most_frequent(data, taxonomy, confusion)
    lines = [
        "| network | weights | parameters | mIoU raw | refined | boundary F1 raw | refined "
        "| s per step | s per photo | arguments |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|---|",
        f"| always {word} | none | 0 | {percent(floor)} | - | - | - | - | - | |",
    ]
    took = seconds({name: rows[name] for name in loaded}, taxonomy.num_classes)
    for name, told in loaded.items():
        raw, refined = told["raw"], told["refined"]
        step, forward = took[name]
        cells = [name, rows[name].weights, f"{told['cost']['parameters']:,}"]
        if raw["miou"] <= floor:
            cells[0] += " (does not beat the first row)"
        cells += [
            percent(scores[key]) for key in ("miou", "boundary_f1") for scores in (raw, refined)
        ]
        arguments = ", ".join(f"{key} {value}" for key, value in rows[name].arguments.items())
        lines.append(f"| {' | '.join(cells)} | {step:.2f} | {forward:.2f} | {arguments} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="CamVid as COCO: train, val.json")
    parser.add_argument("--runs", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--out", type=Path, help="Markdown file to write; else it is printed")
    parser.add_argument("--epochs", type=int, default=50 if torch.cuda.is_available() else 5)
    parser.add_argument(
        "--rows", nargs="*", help="train these alone, and write no table without --out"
    )
    parser.add_argument("--all", action="store_true", default=torch.cuda.is_available())
    options = parser.parse_args()
    rows = {**ROWS, **LARGE} if options.all or options.rows else ROWS
    wanted = list(rows) if options.rows is None else options.rows
    if unknown := set(wanted) - set(rows):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(rows)}")
    taxonomy = Taxonomy.load(DATA["taxonomy"])
    options.runs.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        config = experiment(rows[name], options.data, taxonomy.num_classes, options.epochs)
        train(options.runs, name, config)
    if options.rows is not None and options.out is None:
        return
    text = table(options.runs, rows, options.data, taxonomy)
    if options.out is None:
        print(text)
        return
    head = f"""# One recipe, many networks

Written by `python benchmarks/comparison.py --epochs {options.epochs}`: CamVid, 367 photos of
480x360 to train on; {DATA["batch_size"]} crops of {DATA["crop_size"]}x{DATA["crop_size"]} a step at
scales {DATA["scale"][0]} to {DATA["scale"][1]}, AdamW at {TRAINING["lr"]}, poly, seed 0, no class
weights, cross-entropy at full size. Scores in per cent on the 101 validation photos, which chose
nothing: the last weights count. CRF: pydensecrf's own example's parameters, 5 iterations, tuned on
nothing. Seconds of a training step and of a photo's forward pass: medians of 5, in turn,
{torch.get_num_threads()} threads of {DEVICE}, torch {torch.__version__}.
{LEFT}

"""
    write_atomically(options.out, (head + text + "\n").encode())


if __name__ == "__main__":
    main()
