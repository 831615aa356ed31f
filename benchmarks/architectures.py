"""What every network costs: writes the table of docs/architectures.md.

python benchmarks/architectures.py --out docs/architectures.md

Parameters and multiply-adds are counted, seconds measured: the median of `--rounds` forward passes
of one photo of 512x512 pixels (padded to the network's valid size), random weights, evaluation
mode, channels last, one network after the other. 21 classes.
"""

import argparse
import gc
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from segment import architectures
from segment.architectures.layers import SegmentationNetwork
from segment.cost import multiply_adds

LITE = {"backbone": "tf_efficientnet_lite0"}
ROWS: list[tuple[str, int, str, dict[str, Any]]] = [
    ("sliding window, dense", 2012, "PatchCNN", {"mode": "dense"}),
    ("plain stack", 2015, "PlainFCN", {}),
    ("context module", 2016, "PlainFCN", {"variant": "context"}),
    ("FCN-32s, VGG-16", 2015, "FCN", {"stride": 32}),
    ("FCN-16s, VGG-16", 2015, "FCN", {"stride": 16}),
    ("FCN-8s, VGG-16", 2015, "FCN", {"stride": 8}),
    ("FCN-32s, AlexNet", 2015, "FCN", {"stride": 32, "backbone": "alexnet"}),
    ("FCN-8s, Lite0", 2015, "FCN", {"stride": 8, "padding": "same", **LITE}),
    ("torchvision FCN, ResNet-50", 2015, "TorchvisionFCN", {"backbone": "resnet50"}),
    ("torchvision DeepLab v3, ResNet-50", 2017, "TorchvisionDeepLabV3", {"backbone": "resnet50"}),
    ("DeconvNet", 2015, "DeconvNet", {}),
    ("SegNet", 2016, "SegNet", {}),
    ("SegNet-Basic", 2016, "SegNetBasic", {}),
    ("U-Net, unpadded", 2015, "UNet", {}),
    ("U-Net, padded", 2015, "UNet", {"padded": True}),
    ("DeepLab v1 LargeFOV", 2015, "DeepLabV1", {}),
    ("DeepLab v1 MSc-LargeFOV", 2015, "DeepLabV1", {"variant": "msc_largefov"}),
    ("DeepLab v2, VGG-16", 2016, "DeepLabV2", {}),
    ("DeepLab v2, ResNet-101", 2016, "DeepLabV2", {"backbone": "resnet101"}),
    ("DeepLab v2, Lite0, stride 16", 2016, "DeepLabV2", {"output_stride": 16, **LITE}),
    ("DeepLab v3, ResNet-50, stride 16", 2017, "DeepLabV3", {"backbone": "resnet50"}),
    ("DeepLab v3, ResNet-101, stride 16", 2017, "DeepLabV3", {"backbone": "resnet101"}),
    ("DeepLab v3+, Xception-65", 2018, "DeepLabV3Plus", {"backbone": "xception65"}),
    ("DeepLab v3+, ResNet-101", 2018, "DeepLabV3Plus", {"backbone": "resnet101"}),
    ("DeepLab v3+, Lite0", 2018, "DeepLabV3Plus", LITE),
    ("FRRN A", 2017, "FRRN", {"variant": "A"}),
    ("FRRN B", 2017, "FRRN", {"variant": "B"}),
    ("Semantic FPN, ResNet-50", 2019, "SemanticFPN", {"backbone": "resnet50"}),
    ("Semantic FPN, Lite0", 2019, "SemanticFPN", LITE),
    ("deep contextual network", 2016, "DeepContextualNetwork", {}),
    ("upsampling by bilinear", 2016, "UpsamplingNet", {"upsampling": "bilinear"}),
    ("no downsampling, dilation", 2016, "UpsamplingNet", {"upsampling": "dilation"}),
]


def seconds(network: SegmentationNetwork, rounds: int, side: int = 512) -> float:
    """Median seconds of a forward pass, after one that does not count."""
    network.eval().to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, *network.valid_size(side, side))
    image = image.contiguous(memory_format=torch.channels_last)
    taken = []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            start = time.perf_counter()
            network(image)
            taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def main() -> None:
    """Count, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/architectures.md"))
    parser.add_argument("--rounds", type=int, default=3, help="0 measures no seconds")
    options = parser.parse_args()
    rows = []
    for title, year, name, settings in tqdm(ROWS):
        make = getattr(architectures, name)
        network = make(21, **settings)
        parameters = sum(p.numel() for p in network.parameters())
        adds = multiply_adds(network) / 1e9
        took = f"{seconds(network, options.rounds):.2f}" if options.rounds else "not measured"
        rows.append(f"| {title} | {year} | `{name}` | {parameters:,} | {adds:.1f} | {took} |")
        del network
        gc.collect()
    text = f"""# Architectures

Written by `python benchmarks/architectures.py`; 21 classes, one photo of 512x512 pixels, padded to
the size that the network takes. Parameters are those of papers or released code to the unit where
these state them. Seconds: the median of {options.rounds} forward passes on {os.cpu_count()} cores
({platform.machine()}), torch {torch.__version__.split("+")[0]}, random weights.

| network | year | class | parameters | multiply-adds, 10^9 | seconds |
|---|---|---|---|---|---|
"""
    options.out.write_text(text + "\n".join(rows) + "\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
