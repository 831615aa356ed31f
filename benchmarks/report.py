"""Time, memory and size of a report over many runs and photos, and how fast its page opens.

python benchmarks/report.py [--runs 50] [--photos 5000] [--classes 11]

Makes runs of random labels of 64x48 pixels (a hundred photos, again and again), reports on them in
a process of its own, and opens the page in chromium, which must be installed.
"""

import argparse
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from selenium import webdriver

from segment.data.coco import CocoFile
from segment.data.taxonomy import Taxonomy
from segment.metrics import Totals, count_photo, scores_from_totals

HEIGHT, WIDTH, POOL = 48, 64, 100


def make_set(root: Path, photos: int, classes: int) -> CocoFile:
    """Photos with two squares each."""
    root.mkdir()
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    images, annotations = [], []
    for i in range(photos):
        (root / f"{i:05d}.jpg").write_bytes(data)
        images.append({"id": i, "file_name": f"{i:05d}.jpg", "width": WIDTH, "height": HEIGHT})
        for x, side in ((2, 24), (36, 12)):
            outline = [x, 4, x + side, 4, x + side, 4 + side, x, 4 + side]
            category = 1 + (i % POOL + x) % (classes - 1)
            one = {"id": len(annotations), "image_id": i, "category_id": category, "iscrowd": 0}
            annotations.append(one | {"segmentation": [outline], "bbox": [x, 4, side, side]})
    categories = [{"id": c, "name": f"class {c}"} for c in range(1, classes)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    for name in ("train.json", "val.json"):
        (root / name).write_text(json.dumps(content))
    return CocoFile(root / "val.json", root, taxonomy=Taxonomy.from_categories(categories))


def make_run(folder: Path, coco: CocoFile, number: int) -> None:
    """A run whose labels are wrong in a share of the pixels that grows with its number."""
    folder.mkdir()
    rng = np.random.default_rng(number)
    classes = coco.taxonomy.num_classes
    lines, totals = [], {kind: Totals.zeros(classes) for kind in ("raw", "refined")}
    pool = []
    for place in range(min(POOL, len(coco.photos))):
        truth = coco.paint(coco.photos[place])
        record = {}
        for kind, share in (("raw", 0.1 + 0.01 * number), ("refined", 0.08 + 0.01 * number)):
            wrong = rng.random(truth.shape) < share * rng.uniform(0.5, 1.5)
            ids = np.where(wrong, rng.integers(0, classes, truth.shape), truth).astype(np.uint8)
            counts = count_photo(truth, ids, rng.uniform(0.3, 1, truth.shape), classes)
            record[kind] = counts
            if number == 0:
                data = cv2.imencode(".png", ids)[1].tobytes()
                (folder / "labels" / kind).mkdir(parents=True, exist_ok=True)
                for photo in coco.photos[place::POOL]:
                    (folder / "labels" / kind / f"{photo.file_name}.png").write_bytes(data)
        pool.append((record, {kind: counts.to_json() for kind, counts in record.items()}))
    if number:
        (folder / "labels").symlink_to(folder.parent / "run0" / "labels")
    for place, photo in enumerate(coco.photos):
        record, plain = pool[place % POOL]
        lines.append(json.dumps({"image_id": photo.id, "file_name": photo.file_name} | plain))
        for kind, counts in record.items():
            for total, value in zip(totals[kind], Totals.of(counts), strict=True):
                total += value
    with gzip.open(folder / "per_photo.jsonl.gz", "wt", compresslevel=1) as file:
        file.write("\n".join(lines))
    evaluation = {
        "schema": 1,
        "experiment": f"network {number // 2}",
        "checkpoint": "best.ckpt",
        "init_args": None,
        "split": "val",
        "notes": [],
        "annotations": {"path": str(coco.path), "sha256": coco.sha256},
        "classes": list(coco.taxonomy.classes),
        "colors": [list(color) for color in coco.taxonomy.colors],
        "background": 0,
        **{kind: scores_from_totals(each, 0) for kind, each in totals.items()},
        "crf": {"parameters": {}, "seconds_per_photo": 0.5},
        "cost": {"parameters": 10**6, "multiply_adds_512": 10**9},
        "seed": number % 2,
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "config.yaml").write_text(
        f"model: {{note: {number // 2}}}\ndata: {{root: {coco.root}, train: train.json}}\n"
    )


def opened(page: Path) -> dict[str, float]:
    """Seconds until the page is loaded, the median of five, and megabytes of JavaScript's heap."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    chrome = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            chrome.get(page.as_uri())
            seconds.append(time.perf_counter() - start)
        heap = chrome.execute_script("return performance.memory.usedJSHeapSize") / 2**20
        return {"open_s": float(np.median(seconds)), "heap_mb": heap}
    finally:
        chrome.quit()


def main() -> None:
    """Make, report, open, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=11)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        coco = make_set(root / "set", options.photos, options.classes)
        for number in range(options.runs):
            make_run(root / f"run{number}", coco, number)
        runs = [str(root / f"run{number}") for number in range(options.runs)]
        start = time.perf_counter()
        command = [sys.executable, "-m", "segment.report", *runs, "--out", str(root / "report")]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
        print(done.stdout)
        sizes = [path.stat().st_size for path in (root / "report").rglob("*") if path.is_file()]
        page = root / "report" / "index.html"
        print(f"report: {seconds:.0f} s, {peak:.0f} MB at its peak")
        print(f"folder: {sum(sizes) / 1e6:.0f} MB; index.html {page.stat().st_size / 1e6:.1f} MB")
        found = opened(page)
        print(f"opens in {found['open_s']:.2f} s; JavaScript's heap {found['heap_mb']:.0f} MB")


if __name__ == "__main__":
    main()
