"""Refining many photos, and keeping a network's answers on large ones.

python benchmarks/crf_many.py refine --photos path/to/photos
python benchmarks/crf_many.py cache

`refine`: `DenseCRF.map` over 512x512 photos with 11 classes, one by one with one thread, and with a
thread for each of 2 workers, alternating: photos a second, share of the two cores that was busy,
and how much memory the last photos added over the first ones.

`cache`: what `tune_crf` keeps of a photo of 12 megapixels and 61 classes: the process's peak, and
the file. The network is untrained.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from crf import crf, drawn, peak, photos, probabilities

from segment.crf import DenseCRF
from segment.data.coco import CocoFile
from segment.data.dataset import CocoSegmentation
from segment.data.taxonomy import Taxonomy
from segment.modules import DeepLabV2Module
from segment.scoring import at_size
from segment.tuning.cache import Cache, read_example

SIDE, CLASSES, PHOTOS, ROUNDS = 512, 11, 100, 3
LARGE = (3000, 4000)


def held() -> float:
    """Megabytes that this process holds now."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def stream(given: list[np.ndarray], count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Photos with probabilities of their own, made as they are asked for."""
    maps = [probabilities(n, CLASSES, SIDE, SIDE, "soft") for n in range(len(given))]
    for number in range(count):
        yield given[number % len(given)], maps[number % len(given)].copy()


def refine(folder: Path | None) -> None:
    """Print what a round of each way took."""
    given = photos(folder, 10, SIDE, SIDE)
    torch.set_num_threads(1)
    rates: dict[int, list[float]] = {0: [], 2: []}
    for _ in range(ROUNDS):
        for workers, found in rates.items():
            results = crf("native").map(stream(given, PHOTOS), workers)
            start, busy = time.perf_counter(), time.process_time()
            for _ in islice(results, PHOTOS // 5):
                pass
            before = held()
            for _ in results:
                pass
            took = time.perf_counter() - start
            found.append(PHOTOS / took)
            share = (time.process_time() - busy) / took / max(workers, 1)
            print(
                f"{workers or 'no'} workers: {found[-1]:.1f} photos a second, {share:.0%} of their "
                f"cores busy, {held() - before:+.0f} MB over the last four fifths"
            )
    ratio = statistics.median(b / a for a, b in zip(rates[0], rates[2], strict=True))
    print(f"two workers: {ratio:.2f} times the photos of none")


def cache() -> None:
    """Print what asking and keeping took."""
    taxonomy = Taxonomy.load("taco60")
    torch.manual_seed(0)
    module = DeepLabV2Module(taxonomy.num_classes, "tf_efficientnet_lite0", pretrained=False).eval()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        height, width = LARGE
        cv2.imwrite(str(root / "a.jpg"), drawn(0, height, width))
        box = [0, 0, width // 2, height // 2]
        record = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": 0}
        record["segmentation"] = [[0, 0, box[2], 0, box[2], box[3], 0, box[3]]]
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": height, "width": width}],
            "annotations": [{**record, "area": box[2] * box[3]}],
            "categories": [{"id": n, "name": c} for n, c in enumerate(taxonomy.classes) if n],
        }
        (root / "a.json").write_text(json.dumps(content))
        coco = CocoFile(root / "a.json", root, taxonomy=taxonomy)
        kept = Cache(root / "cache", {})
        settings = DenseCRF()
        start = time.perf_counter()
        list(kept.fill(module, CocoSegmentation(coco), coco.photos, settings))
        took = time.perf_counter() - start
        path = kept.path(coco.photos[0])
        example = read_example(path)
        size = settings.working_size(height, width)
        image = torch.from_numpy(cv2.imread(str(root / "a.jpg"))[..., ::-1].copy())
        most = peak()  # before asking again
        with torch.inference_mode():
            asked = at_size(module.probabilities(image.permute(2, 0, 1)[None])[0].clone(), size)
        same = (asked.argmax(0).numpy() == example.probabilities.argmax(0)).mean()
        print(
            f"{width}x{height} pixels, {taxonomy.num_classes} classes: {took:.1f} s, peak "
            f"{most:.0f} MB, file {path.stat().st_size / 2**20:.1f} MB for "
            f"{example.probabilities.nbytes / 2**20:.0f} MB of probabilities at "
            f"{size[1]}x{size[0]}; {same:.4%} of the labels as asked"
        )


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("refine", "cache"))
    parser.add_argument("--photos", type=Path, help="folder of photos, searched through")
    options = parser.parse_args()
    refine(options.photos) if options.what == "refine" else cache()


if __name__ == "__main__":
    main()
