r"""The CRF's backends: seconds, memory, and whether native answers as pydensecrf does.

python benchmarks/crf.py --photos path/to/photos --run RUN --out docs/crf.md
python benchmarks/crf.py --largest 2

One call each from probabilities to probabilities, alternating in one process; medians of their
ratios. Photos are the folder's, resized, one after another; without a folder they are drawn.
Probabilities are those of RUN's network where it has as many classes, else smooth noise: `soft` (no
class sure) or `sure` (one class almost everywhere). Memory is what a fresh process peaks at above
its inputs. --largest refines 8192x8192 pixels, once, says what that took, and fails where 2 classes
took more than 7.5 GB.

Two more columns, where their folders are given. Both were built by hand:
    CFLAGS="-O3 -march=native" CXXFLAGS="-O3 -march=native" \
        pip install --no-binary :all: --no-deps --target FOLDER pydensecrf2      # --optimized
    pip install --target FOLDER "numpy<2" setuptools                             # --simplecrf
    PYTHONPATH=FOLDER pip install --no-build-isolation --target FOLDER SimpleCRF
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from segment.crf import DenseCRF, _native
from segment.files import write_atomically
from segment.modules.loading import load_checkpoint
from segment.runs import checkpoint_of
from segment.scoring import at_size

SIZES = ((256, 256), (512, 512), (768, 1024), (1024, 2048))  # height, width
CLASSES = (2, 11, 21)
SHARPNESS = {"soft": 1.0, "sure": 8.0}  # of noise
SOFTENED = 0.25  # of a network's answers: their exponent in the `soft` rows, 1 in the `sure` ones
MOST_TORCH_PIXELS = 1_000_000
LARGEST = 8192
MOST_BYTES = 120  # a pixel that --largest may take above its inputs with 2 classes: 7.5 GB
COMPARED = ("native", "torch")  # with pydensecrf: each with 2 threads
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


def answers(run: Path, given: list[np.ndarray], kind: str) -> list[np.ndarray]:
    """What a run's network says of photos, softened in the `soft` rows."""
    module = load_checkpoint(checkpoint_of(run))
    found = []
    for photo in given:
        image = torch.from_numpy(photo).permute(2, 0, 1)[None]
        with torch.inference_mode():
            p = at_size(module.probabilities(image)[0].clone(), photo.shape[:2])
        p = p ** (SOFTENED if kind == "soft" else 1.0)
        found.append((p / p.sum(0)).numpy())
    return found


class Table:
    """Markdown, row by row; the first head names the rows."""

    def __init__(self, heads: list[str]) -> None:
        self.lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]

    def add(self, row: str, cells: list[str]) -> None:
        """A row's name and its cells."""
        self.lines.append("| " + " | ".join([row, *cells]) + " |")

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"


class Elsewhere:
    """Another CRF in another Python: see crf_elsewhere.py.

    Args:
        kind: `pydensecrf` or `simplecrf`.
        folder: Where that Python finds its packages.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        script = Path(__file__).with_name("crf_elsewhere.py")
        self.kind, self.folder = kind, folder
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, script, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def seconds(self, photo: np.ndarray, p: np.ndarray) -> float:
        """Of one call with the default parameters."""
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: f"{folder}/{name}.npy" for name in ("photo", "probabilities")}
            np.save(paths["photo"], photo)
            np.save(paths["probabilities"], p)
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps({**paths, "crf": asdict(crf("auto"))}) + "\n")
            self.process.stdin.flush()
            if not (answer := self.process.stdout.readline()):
                raise SystemExit(f"{self.folder}: no {self.kind} that answers there, see above.")
            return float(answer)


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
from dataclasses import replace
from pathlib import Path
import torch
from benchmarks.crf import crf, drawn, peak, probabilities
torch.set_num_threads({torch.get_num_threads()})
photo = drawn(0, {height}, {width})
p = probabilities(0, {classes}, {height}, {width}, "soft")
few = replace(crf("{backend}"), iterations=2)  # more take no more memory
few(photo[:32, :32], p[:, :32, :32])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: making p took some, too
before = peak()
few(photo, p)
print(peak() - before)
"""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    return float(done.stdout)


def compare(
    cases: list[tuple[np.ndarray, np.ndarray]], others: dict[str, Elsewhere]
) -> tuple[dict[str, float], dict[str, float], dict[str, tuple[float, float]]]:
    """One row: seconds of each way, their ratio to pydensecrf, and who agrees with it how far.

    That is: of COMPARED the share of equal labels, and of probabilities within 0.001, of the photo
    where it is the least.
    """
    took: dict[str, list[float]] = {way: [] for way in (*WAYS, *others)}
    parity: dict[str, list[tuple[float, float]]] = {backend: [] for backend in COMPARED}
    for photo, p in cases:
        found = {}
        for way, (backend, threads) in WAYS.items():
            if backend == "torch" and photo.shape[0] * photo.shape[1] > MOST_TORCH_PIXELS:
                continue
            torch.set_num_threads(threads)
            start = time.perf_counter()
            found[way] = crf(backend)(photo, p).numpy()
            took[way].append(time.perf_counter() - start)
        for way, other in others.items():
            took[way].append(other.seconds(photo, p))
        theirs = found["pydensecrf"]
        for backend, shares in parity.items():
            if (ours := found.get(f"{backend}, 2 threads")) is not None:
                labels = (ours.argmax(0) == theirs.argmax(0)).mean()
                shares.append((labels, (np.abs(ours - theirs) < 1e-3).mean()))
    ratios = {
        way: statistics.median(a / b for a, b in zip(took["pydensecrf"], times, strict=True))
        for way, times in took.items()
        if times
    }
    medians = {way: statistics.median(times) for way, times in took.items() if times}
    least = {
        b: (min(s[0] for s in found), min(s[1] for s in found))
        for b, found in parity.items()
        if found
    }
    return medians, ratios, least


def growth(seconds: dict[tuple[int, int, int, str], float]) -> Table:
    """Nanoseconds per pixel of native with two threads, by photo size and number of classes."""
    table = Table(["photo", *(f"{c} classes" for c in CLASSES)])
    for height, width in dict.fromkeys(key[:2] for key in seconds):
        times = (statistics.mean(seconds[height, width, c, k] for k in SHARPNESS) for c in CLASSES)
        cells = [f"{1e9 * time / height / width:.0f} ns" for time in times]
        table.add(f"{width}x{height}", cells)
    return table


def largest(classes: int) -> str:
    """What refining LARGEST x LARGEST pixels takes; fails above MOST_BYTES a pixel."""
    used = memory("native", LARGEST, LARGEST, classes) * 2**20
    told = (
        f"{LARGEST}x{LARGEST} pixels, {classes} classes: {used / 2**30:.1f} GB above the inputs, "
        f"{used / LARGEST**2:.0f} bytes a pixel"
    )
    if classes == 2 and used > MOST_BYTES * LARGEST**2:
        raise SystemExit(f"{told}, but {MOST_BYTES} are allowed.")
    return told


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder of photos, searched through")
    parser.add_argument("--run", type=Path, help="finished run whose network answers")
    parser.add_argument("--optimized", type=Path, help="folder of a pydensecrf with -O3 -march")
    parser.add_argument("--simplecrf", type=Path, help="folder of SimpleCRF")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="of the four, from the least")
    parser.add_argument("--largest", type=int, help="classes: only refine 8192x8192 pixels")
    parser.add_argument("--out", type=Path, help="Markdown file to write; else it is printed")
    options = parser.parse_args()
    if options.largest:
        print(largest(options.largest))
        return
    others = {}
    if options.optimized:
        others["pydensecrf -O3"] = Elsewhere("pydensecrf", options.optimized)
    if options.simplecrf:
        others["SimpleCRF"] = Elsewhere("simplecrf", options.simplecrf)
    known = load_checkpoint(checkpoint_of(options.run)).num_classes if options.run else None
    ways = [*WAYS, *others]
    fast = Table(["times as fast as pydensecrf:", *ways[1:]])
    took_by = Table(["seconds:", *ways])
    alike = Table(
        ["agreement and memory:"]
        + [f"{kind}, {b}" for kind in ("equal labels", "within 0.001") for b in COMPARED]
        + [f"MB, {b}" for b in ("pydensecrf", *COMPARED)]
    )
    rows = [(s, c, k) for s in SIZES[: options.sizes] for c in CLASSES for k in SHARPNESS]
    native: dict[tuple[int, int, int, str], float] = {}
    used: dict[tuple[int, int, int, str], float] = {}
    for (height, width), classes, kind in tqdm(rows, "rows", disable=None):
        given = photos(options.photos, options.rounds, height, width)
        if classes == known:
            found = answers(options.run, given, kind)
        else:
            found = [probabilities(n, classes, height, width, kind) for n in range(len(given))]
        took, ratios, parity = compare(list(zip(given, found, strict=True)), others)
        native[height, width, classes, kind] = took["native, 2 threads"]
        torch.set_num_threads(2)
        for backend in ("pydensecrf", *parity):
            if (key := (height, width, classes, backend)) not in used:  # alike for both kinds
                used[key] = memory(backend, height, width, classes)
        origin = f"network, {kind}" if classes == known else kind
        row = f"{width}x{height}, {classes} classes, {origin}"
        fast.add(row, [f"{ratios[way]:.1f}" if way in ratios else "" for way in ways[1:]])
        took_by.add(row, [f"{took[way]:.3f}" if way in took else "" for way in ways])
        shares = [parity[b][part] if b in parity else None for part in range(2) for b in COMPARED]
        room = [used.get((height, width, classes, b)) for b in ("pydensecrf", *COMPARED)]
        alike.add(
            row,
            [
                *("" if share is None else f"{100 * share:.3f} %" for share in shares),
                *("" if megabytes is None else f"{megabytes:.0f}" for megabytes in room),
            ],
        )
    text = f"""{fast}
{took_by}
{alike}
How native's cost with 2 threads grows: time per pixel, the mean of both kinds of probabilities.

{growth(native)}"""
    if options.out is None:
        print(text)
        return
    source = "the photos of a folder" if options.photos else "drawn photos"
    head = f"""# The native CRF beside pydensecrf

Written by `python benchmarks/crf.py --rounds {options.rounds} --sizes {options.sizes}` with
{source}: one call from probabilities to probabilities, default parameters
(10 iterations), medians over as many photos in turn; "times as fast" is the median ratio to
pydensecrf as pip builds it. `pydensecrf -O3` is built with `-O3 -march=native`; SimpleCRF gives
labels alone. `network` are a trained network's own probabilities, `network, soft` their fourth
roots, the rest is smooth noise. Labels and probabilities are those with 2 threads against
pydensecrf's, of the photo where they differ most; memory is what a call adds to a fresh process's
peak. {os.cpu_count()} cores, {platform.machine()} with {_native.instruction_sets()[0]}, torch
{torch.__version__}.

"""
    write_atomically(options.out, (head + text).encode())


if __name__ == "__main__":
    main()
