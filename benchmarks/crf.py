"""The CRF's backends: seconds, memory, and whether native answers as pydensecrf does.

python benchmarks/crf.py --photos path/to/photos --out docs/crf.md

One call each from probabilities to probabilities, alternating in one process; medians of their
ratios. Photos are the folder's, resized, one after another; without a folder they are drawn.
Probabilities are smooth noise, `soft` (no class sure) or `sure` (one class almost everywhere).
Memory is what a fresh process peaks at above its inputs.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from segment.crf import DenseCRF, _native
from segment.files import write_atomically

SIZES = ((256, 256), (512, 512), (768, 1024), (1024, 2048))  # height, width
CLASSES = (2, 11, 21)
SHARPNESS = {"soft": 1.0, "sure": 8.0}
MEMORY_OF = (11, "soft")  # of the other rows memory is not measured: a process each takes time
MOST_TORCH_PIXELS = 1_000_000
WAYS = {  # backend and threads
    "pydensecrf": ("pydensecrf", 1),
    "native, 1 thread": ("native", 1),
    "native, 2 threads": ("native", 2),
    "torch, 2 threads": ("torch", 2),
}


def drawn(seed: int, height: int, width: int) -> np.ndarray:
    """Regions of one colour each, with light and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (height // 64 + 2, width // 64 + 2, 3)).astype(np.float32)
    photo = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    return (photo + rng.normal(0, 5, photo.shape)).clip(0, 255).astype(np.uint8)


def photos(folder: Path | None, count: int, height: int, width: int) -> list[np.ndarray]:
    """`count` photos of a size."""
    if folder is None:
        return [drawn(seed, height, width) for seed in range(count)]
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise SystemExit(f"{folder}: no JPEG or PNG in it.")
    found = []
    for path in paths[:: max(1, len(paths) // count)][:count]:
        photo = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        found.append(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA))
    return found


def probabilities(seed: int, classes: int, height: int, width: int, kind: str) -> np.ndarray:
    """Softmax of smooth noise, float32 (C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, height // 32 + 2, width // 32 + 2, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (SHARPNESS[kind] * smooth).softmax(0).numpy()


def crf(backend: str) -> DenseCRF:
    """The default parameters at full size."""
    return DenseCRF(backend=backend, max_side=None)


def peak() -> float:
    """Megabytes that this process has held at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def memory(backend: str, height: int, width: int, classes: int) -> float:
    """Megabytes that a call adds to a fresh process's peak."""
    code = f"""
from pathlib import Path
import torch
from benchmarks.crf import crf, drawn, peak, probabilities
torch.set_num_threads({torch.get_num_threads()})
photo = drawn(0, {height}, {width})
p = probabilities(0, {classes}, {height}, {width}, "soft")
crf("{backend}")(photo[:32, :32], p[:, :32, :32])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: making p took some, too
before = peak()
crf("{backend}")(photo, p)
print(peak() - before)
"""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    return float(done.stdout)


def compare(folder: Path | None, height: int, width: int, classes: int, kind: str, rounds: int):
    """One row: seconds of each way, their ratio to pydensecrf, how far native agrees with it."""
    cases = [
        (photo, probabilities(n, classes, height, width, kind))
        for n, photo in enumerate(photos(folder, rounds, height, width))
    ]
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    labels, close = [], []
    for number in range(rounds):
        photo, p = cases[number % len(cases)]
        answers = {}
        for way, (backend, threads) in WAYS.items():
            if backend == "torch" and height * width > MOST_TORCH_PIXELS:
                continue
            torch.set_num_threads(threads)
            start = time.perf_counter()
            answers[way] = crf(backend)(photo, p)
            took[way].append(time.perf_counter() - start)
        ours, theirs = answers["native, 2 threads"], answers["pydensecrf"]
        labels.append((ours.argmax(0) == theirs.argmax(0)).float().mean().item())
        close.append(((ours - theirs).abs() < 1e-3).float().mean().item())
    done = {way: times for way, times in took.items() if times}
    ratios = {
        way: statistics.median(a / b for a, b in zip(took["pydensecrf"], times, strict=True))
        for way, times in done.items()
    }
    medians = {way: statistics.median(times) for way, times in done.items()}
    return medians, ratios, min(labels), min(close)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder of photos, searched through")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="of the four, from the least")
    parser.add_argument("--out", type=Path, help="Markdown file to write; else it is printed")
    options = parser.parse_args()
    lines = [
        "| photo | classes | probabilities | pydensecrf | native, 1 thread | 2 threads "
        "| torch, 2 threads | times as fast: native, 1 | native, 2 | torch "
        "| equal labels | within 0.001 | memory: pydensecrf | native |",
        "|---|--:|---|" + "--:|" * 11,
    ]
    cases = [(s, c, k) for s in SIZES[: options.sizes] for c in CLASSES for k in SHARPNESS]
    for (height, width), classes, kind in tqdm(cases, "calls", disable=None):
        took, ratios, labels, close = compare(
            options.photos, height, width, classes, kind, options.rounds
        )
        room = ["", ""]
        if (classes, kind) == MEMORY_OF:
            torch.set_num_threads(2)
            used = (memory(b, height, width, classes) for b in ("pydensecrf", "native"))
            room = [f"{megabytes:.0f} MB" for megabytes in used]
        seconds = " | ".join(f"{took[way]:.3f} s" if way in took else "" for way in WAYS)
        times = " | ".join(f"{ratios[w]:.1f}" if w in ratios else "" for w in list(WAYS)[1:])
        lines.append(
            f"| {width}x{height} | {classes} | {kind} | {seconds} | {times} | "
            f"{100 * labels:.3f} % | {100 * close:.3f} % | {room[0]} | {room[1]} |"
        )
    text = "\n".join(lines) + "\n"
    if options.out is None:
        print(text)
        return
    source = "the photos of a folder" if options.photos else "drawn photos"
    head = f"""# The native CRF beside pydensecrf

Written by `python benchmarks/crf.py --rounds {options.rounds} --sizes {options.sizes}` with
{source}: one call from probabilities to probabilities, default parameters (10 iterations), medians
over as many photos in turn; "times as fast" is the median ratio to pydensecrf as pip builds it.
Labels and probabilities are native's with 2 threads against pydensecrf's, the worst photo's; memory
is what a call adds to a fresh process's peak. {platform.machine()} with
{_native.instruction_sets()[0]}, torch {torch.__version__}.

"""
    write_atomically(options.out, (head + text).encode())


if __name__ == "__main__":
    main()
