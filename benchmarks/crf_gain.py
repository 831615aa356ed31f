"""Does the CRF help on the sample set? Three seeds, an interval, and a control.

python benchmarks/crf_gain.py RUN RUN RUN

Each RUN is a finished run of experiments/deeplab_crf.yaml with another --seed_everything. For all
of them together: refined minus raw boundary F1 and mIoU with a 95 % interval, and the same with
the CRF fed another photo, which must lose the gain: what helps is the photo's edges, not the
smoothing. The interval is a paired bootstrap over photos, the same photos drawn for every seed, so
it speaks of these networks.
"""

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from tqdm import tqdm

from segment.bootstrap import measures, stacked, summed
from segment.crf import DenseCRF
from segment.data.coco import CocoFile
from segment.data.photos import read_photo
from segment.labels import labels_of
from segment.metrics import PhotoCounts, Totals, count_photo
from segment.modules.loading import load_checkpoint
from segment.runs import checkpoint_of, config_of
from segment.scoring import refine


def control_counts(run: Path) -> list[PhotoCounts]:
    """Counts where each photo's CRF was guided by the next photo of the set."""
    config = yaml.safe_load(config_of(run).read_text())
    crf = DenseCRF(**config["crf"])
    root = Path(config["data"]["root"])
    module = load_checkpoint(checkpoint_of(run))
    coco = CocoFile(root / config["data"]["val"], root, taxonomy=module.taxonomy)
    photos = [read_photo(coco.photo_path(photo)) for photo in coco.photos]
    counts = []
    for index, photo in enumerate(tqdm(coco.photos, desc=f"{run.name}: wrong photo", disable=None)):
        image = torch.from_numpy(photos[index]).permute(2, 0, 1)[None]
        with torch.inference_mode():
            probabilities = module.probabilities(image)[0].numpy()
        other = photos[(index + 1) % len(photos)]
        refined, _ = refine(other, probabilities, crf)
        ids, confidence = labels_of(torch.from_numpy(refined), (photo.height, photo.width))
        truth = coco.paint(photo)
        counts.append(count_photo(truth, ids.numpy(), confidence.numpy(), len(refined)))
    return counts


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    sets: dict[str, list[Totals]] = {"raw": [], "refined": [], "another photo": []}
    background = 0
    for run in options.runs:
        evaluation = json.loads((run / "evaluation.json").read_text())
        background = evaluation["background"]
        with gzip.open(run / "per_photo.jsonl.gz", "rt") as file:
            lines = [json.loads(line) for line in file]
        for kind in ("raw", "refined"):
            sets[kind].append(stacked(PhotoCounts.from_json(line[kind]) for line in lines))
        sets["another photo"].append(stacked(control_counts(run)))
        for kind, totals in sets.items():
            found = measures(summed(totals[-1]), background)
            print(
                f"{run.name} {kind:14} boundary F1 {found['boundary_f1']:.4f}  "
                f"mIoU {found['miou']:.4f}"
            )
    photos = len(sets["raw"][0].confusion)
    generator = np.random.default_rng(0)
    draws = generator.multinomial(photos, np.full(photos, 1 / photos), size=options.resamples)
    for kind in ("refined", "another photo"):
        for measure in ("boundary_f1", "miou"):

            def gain(drawn: np.ndarray | None, kind: str = kind, name: str = measure) -> float:
                return float(np.mean([
                    measures(summed(ours, drawn), background)[name]
                    - measures(summed(raw, drawn), background)[name]
                    for ours, raw in zip(sets[kind], sets["raw"], strict=True)
                ]))  # fmt: skip

            low, high = np.quantile([gain(drawn) for drawn in draws], [0.025, 0.975])
            print(
                f"{kind} - raw, {measure}: {gain(None):+.4f} (95 % interval {low:+.4f} to "
                f"{high:+.4f})"
            )


if __name__ == "__main__":
    main()
