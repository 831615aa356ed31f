"""What a network costs: parameters, multiply-adds, seconds, memory."""

import json
import resource
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from segment.architectures.layers import SegmentationNetwork
from segment.files import write_atomically

# What an evaluation.json says of it.
COSTS = (
    "parameters",
    "multiply_adds_512",
    "seconds_per_training_step",
    "seconds_per_photo_forward",
    "peak_memory_mb",
    "peak_memory_mb_training",
)


def multiply_adds(network: SegmentationNetwork, side: int = 512) -> int:
    """Multiply-adds of a network for one photo of side x side pixels, counted on no data."""
    size = network.valid_size(side, side)
    was_training = network.training
    try:
        network.eval()
        counter = FlopCounterMode(display=False)
        meta = {name: value.to("meta") for name, value in network.state_dict().items()}
        # In the network's own type: `trainer.precision: bf16-true` has cast its weights.
        kind = next(network.parameters()).dtype
        photo = torch.zeros(1, 3, *size, dtype=kind, device="meta")
        with torch.no_grad(), counter:
            torch.func.functional_call(network, meta, (photo,))
    finally:
        network.train(was_training)
    return counter.get_total_flops() // 2


def peak_memory_mb() -> float:
    """Most memory this process held so far: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def training_cost(run: Path) -> dict[str, float]:
    """What `StepTimer` left in a run folder; empty where nothing was trained."""
    path = run / "cost.json"
    return json.loads(path.read_text()) if path.is_file() else {}


class StepTimer(Callback):
    """Seconds per training step, for `cost` in evaluation.json: median without the first steps."""

    def __init__(self, out: Path, warmup: int = 3, keep: int = 500) -> None:
        self.out, self.warmup = out, warmup
        self.seconds: deque[float] = deque(maxlen=keep)
        self.started: float | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A step is timed from the end of the one before it: loading counts, validation not."""
        self.started = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A step after a validation within the epoch is not timed, like the first of an epoch."""
        self.started = None

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Take one step's time."""
        now = time.perf_counter()
        if self.started is not None and trainer.global_step > self.warmup:
            self.seconds.append(now - self.started)
        self.started = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the figure in the run folder."""
        if trainer.is_global_zero and self.seconds:
            cost = {
                "seconds_per_training_step": round(statistics.median(self.seconds), 4),
                "peak_memory_mb_training": peak_memory_mb(),
            }
            write_atomically(self.out / "cost.json", json.dumps(cost).encode())
