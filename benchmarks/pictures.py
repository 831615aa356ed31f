"""Photo, truth, raw and refined labels side by side, from a finished run.

python benchmarks/pictures.py RUN --out docs/sample.jpg [--photos 4] [--side 256]

Takes photos at even steps through the split, in its order: not the best ones.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from segment.data.coco import CocoFile
from segment.data.photos import read_photo
from segment.modules.loading import load_checkpoint
from segment.prediction import overlay
from segment.runs import checkpoint_of, read_config


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--side", type=int, default=256)
    options = parser.parse_args()
    config = read_config(options.run)
    evaluation = json.loads((options.run / "evaluation.json").read_text())
    taxonomy = load_checkpoint(checkpoint_of(options.run)).taxonomy
    assert taxonomy is not None
    path = Path(evaluation["annotations"]["path"])
    coco = CocoFile(path, Path(config["data"]["root"]), taxonomy=taxonomy)
    colors = np.array(taxonomy.colors, np.uint8)
    rows = []
    for index in np.linspace(0, len(coco.photos) - 1, options.photos).round().astype(int):
        photo = coco.photos[index]
        image = read_photo(coco.photo_path(photo))
        labels = [coco.paint(photo)]
        for kind in ("raw", "refined"):
            png = options.run / "labels" / kind / f"{photo.file_name}.png"
            labels.append(cv2.imread(str(png), cv2.IMREAD_UNCHANGED))
        shown = [image, *(overlay(image, ids, colors) for ids in labels)]
        size = (options.side, round(options.side * photo.height / photo.width))
        rows.append(
            np.hstack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in shown])
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(options.out), np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
