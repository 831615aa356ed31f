"""Does training through the CRF help? FCN-8s trained on by itself and through the mean field.

python benchmarks/crf_rnn.py --fcn RUN --data path/to/camvid --out docs/crf_rnn.md

RUN is a finished run of FCNModule with stride 8 on the same photos. Both arms start from its
checkpoint and take the same steps at the same rates, by `python -m segment.fit`; what is scored is
their last checkpoint, so no photo chose it. All refine with the kernels where CRF-RNN starts, and
the one that was trained so with what it learnt. What is finished is not done again.
"""

import argparse
import gzip
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segment.bootstrap import measures, paired_bootstrap, stacked, summed
from segment.crf import DenseCRF
from segment.files import write_atomically
from segment.metrics import PhotoCounts, Totals
from segment.modules import CRFRNNModule
from segment.modules.loading import load_checkpoint
from segment.runs import checkpoint_of, read_config
from segment.tuning.verdict import NAMES, interval

# CRF-RNN's release; the same in both arms.
CRF = {
    "iterations": 10,
    "position_width_px": 3.0,
    "position_weight": 3.0,
    "bilateral_width_px": 160.0,
    "bilateral_width_levels": 3.0,
    "bilateral_weight": 5.0,
}
NETWORK = ("num_classes", "backbone", "padding", "learn_upsampling", "width")
TRAINING = {
    "pretrained": False,
    "optimizer": "adamw",
    "lr": 1e-4,
    "weight_decay": 0.01,
    "schedule": "poly",
    "bias_lr_factor": 1.0,
}
LEARNT = {"kernel_lr_factor": 300.0, "compatibility_lr_factor": 100.0}
BATCH = 4


def verb(*words: object) -> None:
    """One verb in a process of its own."""
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True)


def trained(runs: Path, name: str, experiment: dict[str, Any]) -> Path:
    """The folder of an arm's finished run."""
    for known in sorted((runs / name).glob("*/evaluation.json")):
        return known.parent
    runs.mkdir(parents=True, exist_ok=True)
    path = runs / f"{name}.yaml"
    path.write_text(yaml.safe_dump(experiment, sort_keys=False))
    verb("segment.fit", "--config", path)
    (done,) = (runs / name).glob("*/evaluation.json")
    return done.parent


def scored(run: Path, out: Path, data: Path, crf: dict[str, Any], *words: object) -> Path:
    """A folder with the scores of a run's checkpoint, raw and refined."""
    if not (out / "evaluation.json").exists():
        path = out.with_suffix(".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(crf))
        settings = ["--data.root", data, "--crf", path]
        verb("segment.evaluate", "--run", run, "--out", out, *settings, *words)
    return out


def totals_of(folder: Path, kind: str) -> Totals:
    """Stacked totals of an evaluation's photos."""
    with gzip.open(folder / "per_photo.jsonl.gz", "rt") as file:
        return stacked(PhotoCounts.from_json(json.loads(line)[kind]) for line in file)


def main() -> None:
    """Train both arms, score them, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fcn", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/crf_rnn"))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--block_size", type=int, default=10, help="Frames that belong together.")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    own = read_config(options.fcn)
    given = {key: own["model"]["init_args"][key] for key in NETWORK}
    weights = str(checkpoint_of(options.fcn))
    keys = ("train", "val", "taxonomy", "short_side", "crop_size", "scale", "flip", "colour_jitter")
    data = {key: own["data"][key] for key in keys}
    data |= {"root": str(options.data), "batch_size": BATCH, "workers": 1}
    trainer = {
        "max_epochs": options.epochs,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "logger": False,
        "default_root_dir": str(options.runs),
    }
    refinement = {**CRF, "normalization": "after"}

    def experiment(kind: str, arguments: dict[str, Any], crf: dict[str, Any] | None) -> Any:
        init_args = {**given, **TRAINING, "weights": weights, **arguments}
        model = {"class_path": f"segment.modules.{kind}", "init_args": init_args}
        return {"seed_everything": 0, "model": model, "data": data, "crf": crf, "trainer": trainer}

    start = scored(options.fcn, options.runs / "start", options.data, refinement)
    alone = trained(options.runs, "alone", experiment("FCNModule", {"stride": 8}, refinement))
    arguments = {**CRF, **LEARNT}
    through = trained(options.runs, "through", experiment("CRFRNNModule", arguments, None))
    module = load_checkpoint(checkpoint_of(through, "last"))
    assert isinstance(module, CRFRNNModule)
    learnt = module.dense_crf()

    def again(run: Path, name: str, crf: dict[str, Any], *words: str) -> Path:
        out = options.runs / name
        return scored(run, out, options.data, crf, "--checkpoint", "last", *words)

    # 0 steps leave the network's own probabilities.
    network = again(through, "network", refinement, "--init_args", "{iterations: 0}")
    other = again(alone, "other", asdict(learnt))

    base = "... with the CRF that both start from"
    rows = [
        ("FCN-8s as it was", totals_of(start, "raw")),
        (base, totals_of(start, "refined")),
        ("trained on by itself", totals_of(alone, "raw")),
        (base, totals_of(alone, "refined")),
        ("... with the CRF that the other learnt", totals_of(other, "refined")),
        ("trained on through the CRF: its network alone", totals_of(network, "raw")),
        (base, totals_of(network, "refined")),
        ("... with the CRF that it learnt", totals_of(through, "raw")),
    ]
    background = json.loads((start / "evaluation.json").read_text())["background"]
    last = rows[-1][1]
    photos = len(last.confusion)
    blocks = np.arange(photos) // options.block_size
    steps = {
        name: json.loads((run / "cost.json").read_text())["seconds_per_training_step"]
        for name, run in (("alone", alone), ("through", through))
    }
    lines = ["| | " + " | ".join(NAMES.values()) + " |", "|---|" + "--:|" * len(NAMES)]
    for label, totals in rows:
        found = measures(summed(totals), background)
        lines.append(f"| {label} | " + " | ".join(f"{found[m]:.3f}" for m in NAMES) + " |")
    compared = ["| minus | " + " | ".join(NAMES.values()) + " |", "|---|" + "---|" * len(NAMES)]
    for place, label in (
        (2, "trained on by itself, not refined"),
        (3, "trained on by itself, refined by the CRF that both start from"),
        (4, "trained on by itself, refined by the CRF that the other learnt"),
    ):
        differences = paired_bootstrap(rows[place][1], last, background, blocks)
        values = " | ".join(interval(differences[m]) for m in NAMES)
        compared.append(f"| {label} | {values} |")
    text = PAGE.format(
        command=f"python benchmarks/crf_rnn.py --fcn RUN --data camvid --epochs {options.epochs}",
        photos=photos,
        blocks=int(blocks.max()) + 1,
        epochs=f"{options.epochs} epoch" + "s" * (options.epochs != 1),
        batch=BATCH,
        crop=data["crop_size"],
        table="\n".join(lines),
        compared="\n".join(compared),
        learnt=described(learnt),
        alone=steps["alone"],
        through=steps["through"],
    )
    write_atomically(options.out, text.encode())
    print(text)


def described(crf: DenseCRF) -> str:
    """What was learnt, in numbers."""
    matrix = np.array(crf.compatibility)
    own, others = matrix.diagonal(), matrix[~np.eye(len(matrix), dtype=bool)]
    weights = ", ".join(
        f"{name} weight from {CRF[f'{name}_weight']:g} to {getattr(crf, f'{name}_weight'):.2f}"
        for name in ("position", "bilateral")
    )
    return (
        f"{weights};\ncompatibility off the diagonal from 1 to {others.min():.2f} ... "
        f"{others.max():.2f}, on it from 0 to {own.min():.2f} ... {own.max():.2f}"
    )


PAGE = """# Training through the CRF

Written by `{command} --out docs/crf_rnn.md`:
FCN-8s on EfficientNet-Lite0, trained on CamVid, is trained on for {epochs}, {batch} crops of
{crop} px a step, by itself and through five mean-field steps of a CRF (`CRFRNNModule`): from the
same checkpoint, in the same steps at the same rates. Scores are of the last checkpoints, which no
photo chose, on {photos} validation photos; the CRF makes 10 steps. One seed.

{table}

Trained on through the CRF, with the CRF that it learnt (95 % intervals by a paired bootstrap over
{blocks} blocks of frames that follow each other; they speak of these networks, not of other seeds):

{compared}

The CRF learnt:
{learnt}.
A training step took {alone:.2f} s by itself and {through:.2f} s through the CRF.
"""


if __name__ == "__main__":
    main()
