"""What every network costs and sees: writes docs/architectures.md.

python benchmarks/architectures.py --out docs/architectures.md

Each network has a process of its own, so that its peak memory is its own; one after the other.
Nothing else should run meanwhile.
"""

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from architecture_rows import ROWS
from torch import nn
from tqdm import tqdm

from segment import architectures
from segment.architectures.backbones import TimmBackbone
from segment.architectures.deeplab_v3 import ConvBNReLU
from segment.architectures.layers import SegmentationNetwork
from segment.architectures.xception import SeparableConv
from segment.cost import multiply_adds

SIDE = 512  # pixels
CLASSES = 21
FAMILIES = (
    *("tf_efficientnet_lite0", "efficientnet_b0", "resnet50", "mobilenetv3_large_100"),
    *("mixnet_s", "convnext_tiny", "regnety_004", "xception65", "vgg16", "densenet121"),
    *("hrnet_w18_small", "swin_tiny_patch4_window7_224", "vit_small_patch16_224"),
)


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Median seconds of a call."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def step(network: SegmentationNetwork, photos: torch.Tensor) -> None:
    """Forward and backward of a training step, without the optimizer's."""
    network.zero_grad()
    network(photos).square().mean().backward()


def receptive_field(network: SegmentationNetwork) -> int | None:
    """Rows of a photo that reach the logits in its middle, by their gradient; None: all of them.

    Every layer takes the mean of its input and norms are left out, so that no gradient vanishes;
    four photos, because a pool that hands on its places passes the gradient to one pixel of each.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MaxPool2d) and not child.return_indices:
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(parent, name, pool)
            elif "Norm" in type(child).__name__ and not isinstance(child, nn.LocalResponseNorm):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
                weight = child.weight.data
                weight.fill_(weight.shape[0] / weight.numel())
                if child.bias is not None:
                    nn.init.zeros_(child.bias)
    network.eval()
    photo = torch.rand(4 if indexed(network) else 1, 3, *network.valid_size(SIDE, SIDE))
    logits = network(photo.requires_grad_())
    logits[..., logits.shape[2] // 2, logits.shape[3] // 2].sum().backward()
    assert photo.grad is not None
    (rows,) = photo.grad.abs().amax(dim=(0, 1, 3)).nonzero(as_tuple=True)
    seen = int(rows.max() - rows.min()) + 1
    return None if seen == photo.shape[2] else seen


def output_stride(network: SegmentationNetwork) -> int:
    """Pixels of the photo per pixel of the finest map that a score layer writes.

    `forward` itself gives logits at the size of the photo. Two photos are compared, since padding
    adds to both maps.
    """
    small, large = (network.valid_size(side, side)[1] for side in (SIDE // 2, SIDE))
    cells = [_finest(network, side) for side in (small, large)]
    return round((large - small) / (cells[1] - cells[0]))


def _finest(network: SegmentationNetwork, side: int) -> int:
    sides: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: sides.append(out.shape[-1]))
        for name, layer in network.named_modules()
        if name.startswith(network.score_names) and isinstance(layer, nn.Conv2d)
    ]
    logits = network(torch.rand(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    # PatchCNN shows its score layer's weights to a convolution with other strides.
    return max(sides, default=logits.shape[-1])


def indexed(network: SegmentationNetwork) -> bool:
    """Whether a pool of the network hands on the places of its maxima."""
    return any(getattr(layer, "return_indices", False) for layer in network.modules())


def measure(place: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    _, _, name, settings = ROWS[place]
    network: SegmentationNetwork = getattr(architectures, name)(CLASSES, **settings)
    told: dict[str, Any] = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "multiply_adds": multiply_adds(network),
    }
    if rounds:
        network.eval().to(memory_format=torch.channels_last)
        photos = torch.rand(2, 3, *network.valid_size(SIDE, SIDE))
        photos = photos.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            told["stride"] = output_stride(network)
            told["forward"] = seconds(lambda: network(photos[:1]), rounds)
            told["memory_forward"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        network.train()
        told["step"] = seconds(lambda: step(network, photos), rounds)
        told["memory_step"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        network.zero_grad()
        gc.collect()
    told["sees"] = receptive_field(network)
    return told


def separable(rounds: int) -> list[str]:
    """What a depthwise separable convolution saves, counted and timed, beside the formula."""
    lines = []
    for title, channels, width, side, rate in (
        ("decoder of v3+, 304 to 256 channels, 128x128", 304, 256, 128, 1),
        ("ASPP on Xception, 2048 to 256 channels, rate 12, 32x32", 2048, 256, 32, 12),
        ("Xception's middle flow, 728 to 728 channels, 32x32", 728, 728, 32, 1),
    ):
        layers = (
            ConvBNReLU(channels, width, dilation=rate).eval(),
            SeparableConv(channels, width, dilation=rate).eval(),
        )
        maps = torch.rand(1, channels, side, side).contiguous(memory_format=torch.channels_last)
        weights = [sum(p.numel() for p in layer.parameters() if p.dim() == 4) for layer in layers]
        taken: list[list[float]] = [[], []]
        with torch.inference_mode():
            for _ in range(max(1, rounds) * 5):  # alternating
                for one, layer in zip(taken, layers, strict=True):
                    one.append(seconds(partial(layer, maps), 1))
        plain, apart = map(statistics.median, taken)
        lines.append(
            f"| {title} | {weights[1] / weights[0]:.3f} | {1 / width + 1 / 9:.3f} "
            f"| {1000 * plain:.1f} | {1000 * apart:.1f} | {apart / plain:.2f} |"
        )
    return lines


def windows() -> list[str]:
    """What PatchCNN's ways to score a photo of 512x512 pixels take."""
    network = architectures.PatchCNN(CLASSES).eval()
    photo = torch.rand(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        views = network.windows(photo)[0, :, SIDE // 2].transpose(0, 1)  # of one row
        parts = views.split(64)
        took = seconds(lambda: [network.classify(part) for part in parts], 3)
        naive = took * SIDE * SIDE / len(views)
        lines = [f"| naive, scaled up from {len(views)} pixels | {naive:.0f} |"]
        for mode in ("shift_and_stitch", "dense", "fully_convolutional"):
            network.mode = mode  # type: ignore[assignment]
            lines.append(f"| {mode} | {seconds(lambda: network(photo), 3):.2f} |")
    return lines


def table(rounds: int) -> list[str]:
    """A line for every network."""
    lines = []
    for place, (title, year, name, _) in enumerate(tqdm(ROWS)):
        words = [sys.executable, __file__, "--row", str(place), "--rounds", str(rounds)]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        told = json.loads(done.stdout)
        sees = "all" if told["sees"] is None else told["sees"]
        cells = [title, year, f"`{name}`", f"{told['parameters']:,}"]
        cells += [f"{told['multiply_adds'] / 1e9:.1f}", told.get("stride", "-"), sees]
        for key in ("forward", "step", "memory_forward", "memory_step"):
            cells.append(f"{told[key]:.2f}" if key in told else "-")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def backbones() -> list[str]:
    """Which timm families have which output strides."""
    lines = []
    for name in FAMILIES:
        cells, alignment = [], "-"
        for stride in (8, 16, 32):
            try:
                with torch.device("meta"):
                    alignment = TimmBackbone(name, stride).alignment
            except ValueError:
                cells.append("-")
            else:
                cells.append("yes")
        lines.append(f"| `{name}` | {' | '.join(cells)} | {alignment} |")
    return lines


def page(rounds: int) -> str:
    """The whole page."""
    machine = f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}"
    return "\n".join(
        [
            "# Architectures",
            "",
            f"Written by `python benchmarks/architectures.py --rounds {rounds}` on {machine}.",
            "",
            f"{CLASSES} classes, {SIDE}x{SIDE} pixels, padded to a size that the network takes;",
            "random weights. Parameters equal those that papers or released code state, where",
            "they do. Stride: pixels per cell of the finest scores, before they are interpolated.",
            "Sees: rows of the photo with a gradient to the logits in the middle, norms left out;",
            "*all* are 512 or more. Seconds: of a photo's forward pass, and of forward and",
            f"backward for two photos, medians of {rounds}. GB: the most that the process has held",
            "after each, Python and torch included.",
            "",
            "| network | year | class | parameters | multiply-adds, 10^9 | stride | sees "
            "| s forward | s step | GB forward | GB step |",
            "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
            *table(rounds),
            "",
            "## What a depthwise separable convolution saves",
            "",
            "A k x k convolution to N channels, written as one of each channel and a 1x1 across",
            "them, has 1/N + 1/k^2 of its weights and multiply-adds (k = 3). Times with norm and",
            "ReLU, in turn.",
            "",
            "| convolution | counted | formula | ms plain | ms separable | ratio |",
            "|---|--:|--:|--:|--:|--:|",
            *separable(rounds),
            "",
            "## Ways to slide a window",
            "",
            f"`PatchCNN`, one photo of {SIDE}x{SIDE} pixels. The first three give the same scores;",
            "the last scores every 16th pixel and interpolates.",
            "",
            "| mode | seconds |",
            "|---|--:|",
            *windows(),
            "",
            "## Backbones",
            "",
            "timm networks by the output strides that `TimmBackbone` takes; where there is none it",
            "says so. Alignment: where cells lie (see `segment.architectures.backbones`).",
            "",
            "| timm network | 8 | 16 | 32 | alignment |",
            "|---|---|---|---|---|",
            *backbones(),
            "",
        ]
    )


def main() -> None:
    """Write the page, or measure one of its rows for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="Markdown file to write; else it is printed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(measure(options.row, options.rounds)))
        return
    text = page(options.rounds)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
