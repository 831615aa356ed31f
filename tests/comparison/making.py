"""Run folders as `segment.evaluate` leaves them, made of labels with a known share of errors."""

import gzip
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segment.data.coco import CocoFile
from segment.data.taxonomy import Taxonomy
from segment.evaluation import CHOSE
from segment.metrics import PhotoCounts, count_photo, scores_from_counts

HEIGHT, WIDTH = 40, 56
NAMES = ("Glass", "Paper", "Metal")


def make_set(
    root: Path, photos: int = 8, names: tuple[str, ...] = NAMES, files: tuple[str, ...] = ()
) -> CocoFile:
    """Photos with a large object of one class and a small one of the next; returns `val.json`."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(photos):
        name = files[i] if i < len(files) else f"drive{i // 2}_{i}.png"
        photo = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        (root / name).write_bytes(cv2.imencode(".png", photo)[1].tobytes())
        images.append({"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for side, place in ((20, 0), (8, 1)):
            x, y = 2 + 26 * place, 3 + (i % 5)
            outline = [x, y, x + side, y, x + side, y + side, x, y + side]
            category = 1 + (i + place) % len(names)
            annotations.append(
                {"id": len(annotations), "image_id": i, "category_id": category}
                | {"segmentation": [outline], "bbox": [x, y, side, side], "area": side**2}
                | {"iscrowd": 0}
            )
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "val.json").write_text(json.dumps(content))
    (root / "train.json").write_text(json.dumps(content))
    return CocoFile(root / "val.json", root, taxonomy=Taxonomy.from_categories(categories))


def write_run(
    folder: Path,
    coco: CocoFile,
    wrong: float,
    refined: float | None = None,
    experiment: str = "net",
    seed: int = 0,
    **changes: Any,
) -> Path:
    """A finished run whose raw and refined labels are wrong in a share of the pixels."""
    taxonomy = coco.taxonomy
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, *experiment.encode()])
    shares = {"raw": wrong} | ({} if refined is None else {"refined": refined})
    counts: dict[str, list[PhotoCounts]] = {kind: [] for kind in shares}
    lines = []
    for photo in coco.photos:
        truth = coco.paint(photo)
        line: dict[str, Any] = {"image_id": photo.id, "file_name": photo.file_name}
        chance, other = rng.random(truth.shape), rng.integers(0, taxonomy.num_classes, truth.shape)
        share = rng.uniform(0.5, 1.5)
        for kind, each in shares.items():
            ids = np.where(chance < each * share, other, truth).astype(np.uint8)
            path = folder / "labels" / kind / f"{photo.file_name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", ids)[1].tobytes())
            one = count_photo(truth, ids, np.full(ids.shape, 0.9, np.float32), taxonomy.num_classes)
            counts[kind].append(one)
            line[kind] = one.to_json()
        lines.append(json.dumps(line))
    with gzip.open(folder / "per_photo.jsonl.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    shape = taxonomy.num_classes, taxonomy.background
    found = {kind: scores_from_counts(some, *shape) for kind, some in counts.items()}
    evaluation = {
        "schema": 1,
        "experiment": experiment,
        "checkpoint": str(folder / "checkpoints" / "best.ckpt"),
        "init_args": None,
        "split": "val",
        "notes": [f"the same photos {CHOSE}, so new ones may score lower"],
        "annotations": {
            "path": str(coco.path),
            "sha256": coco.sha256,
            "photos": len(coco.photos),
        },
        "classes": list(taxonomy.classes),
        "colors": [list(color) for color in taxonomy.colors],
        "background": taxonomy.background,
        "raw": found["raw"],
        "refined": found.get("refined"),
        "crf": refined and {"parameters": {"iterations": 5}, "seconds_per_photo": 0.3},
        "cost": {"parameters": 1234, "multiply_adds_512": 5_600_000, "peak_memory_mb": 900.0},
        "seed": seed,
    } | changes
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "config.yaml").write_text(f"""
seed_everything: {seed}
model: {{class_path: segment.modules.FCNModule, init_args: {{pretrained: true, note: {wrong}}}}}
data: {{root: {json.dumps(str(coco.root))}, train: train.json, val: val.json}}
trainer: {{max_epochs: 1, default_root_dir: {folder.name}}}
experiment: {json.dumps(experiment)}
""")
    return folder
