"""What the framework costs per training step, against a bare PyTorch loop.

python benchmarks/training_overhead.py --config experiments/deeplab_crf.yaml --steps 30 --rounds 3
python benchmarks/training_overhead.py --config experiments/smoke.yaml --tiny --steps 200

The same network, optimizer, photos, augmentation and threads, alternating bare and framework
rounds, each in a process of its own. A round counts as a whole: its seconds from the end of the
first step to the end of the last, over the steps between, so that steps which log and ends of
epochs weigh as much as they take. Prints milliseconds per step, ratio and difference of every
round, and the median over rounds. The framework's side logs to W&B (offline) and shows its
progress bar.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

import torch
import wandb
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from segment.architectures.layers import SegmentationNetwork
from segment.cli import SegmentCLI
from segment.data.datamodule import TrashDataModule
from segment.fit import _arguments
from segment.modules import SegmentationModule


class Tiny(SegmentationNetwork):
    """One convolution and the scores: whatever a step costs beyond them is the loop's."""

    mean = std = (0.5, 0.5, 0.5)
    score_names = ("score",)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.score = nn.Conv2d(4, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        return self.score(self.stem(image))


class TinyModule(SegmentationModule):
    """Wraps `Tiny`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.save_hyperparameters()
        self.wrap(Tiny(num_classes))


class Clock(Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def per_step(ends: list[float]) -> float:
    """Seconds per step of a whole round; the first step, which also sets up, is left out."""
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def bare(module: SegmentationModule, data: TrashDataModule, steps: int) -> float:
    """Seconds per step of a loop with nothing in it but the training."""
    loader = data.train_dataloader()
    optimizer = module.optimization.optimizer(module.parameter_groups())
    module.train()
    ends: list[float] = []
    epoch = 0
    while len(ends) < steps + 1:
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in loader:
            loss = module.loss(batch["image"], batch["mask"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ends.append(time.perf_counter())
            if len(ends) > steps:
                break
        epoch += 1
    return per_step(ends)


def framework(config: str, module: SegmentationModule, steps: int, extra: list[str]) -> float:
    """Seconds per step of `segment.fit`'s own trainer: schedule, logging, progress bar and all.

    Only validation is off, and with it the checkpoints that its score would choose.
    """
    with tempfile.TemporaryDirectory() as root:
        args = ["--config", config, "--trainer.default_root_dir", root, *extra]
        args += ["--trainer.max_steps", str(steps + 1), "--trainer.limit_val_batches", "0"]
        args += ["--trainer.max_epochs", "-1", "--trainer.num_sanity_val_steps", "0"]
        cli = SegmentCLI(args, "fit", _arguments)
        cli.start_run(None)
        clock = Clock()
        kept = [c for c in cli.trainer.callbacks if not isinstance(c, ModelCheckpoint)]
        cli.trainer.callbacks = [*kept, clock]
        cli.trainer.fit(module, datamodule=cli.datamodule)
        wandb.finish()  # else it goes on watching the machine beside the next round
    return per_step(clock.ends)


def measure(options: argparse.Namespace) -> float:
    """Seconds per step of one side, in this process."""
    extra = [] if options.root is None else ["--data.root", options.root]
    cli = SegmentCLI(["--config", options.config, *extra], "fit", _arguments)
    cli.datamodule.prepare_data()
    module = TinyModule(cli.model.num_classes) if options.tiny else cli.model
    if options.side == "bare":
        return bare(module, cli.datamodule, options.steps)
    return framework(options.config, module, options.steps, extra)


def in_a_process_of_its_own(side: str) -> float:
    """The same command line for one side: what one leaves in memory must not slow the other."""
    with tempfile.NamedTemporaryFile() as file:
        words = [sys.executable, *sys.argv, "--side", side, "--write", file.name]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        return json.loads(Path(file.name).read_text())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="experiments/deeplab_crf.yaml")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a network of one convolution")
    parser.add_argument("--root", help="another data.root")
    parser.add_argument("--side", choices=["bare", "framework"], help=argparse.SUPPRESS)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        Path(options.write).write_text(json.dumps(measure(options)))
        return
    pairs: list[tuple[float, float]] = []
    for round_ in range(options.rounds):
        one, other = (in_a_process_of_its_own(side) for side in ("bare", "framework"))
        pairs.append((one, other))
        print(
            f"round {round_}: bare {one * 1e3:.1f} ms, framework {other * 1e3:.1f} ms a step, "
            f"ratio {other / one:.3f}, difference {(other - one) * 1e3:+.1f} ms",
            flush=True,
        )
    print(
        f"{Path(options.config).stem}{' (tiny network)' if options.tiny else ''}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, median of "
        f"{options.rounds} rounds: ratio {statistics.median(b / a for a, b in pairs):.3f}, "
        f"difference {statistics.median(b - a for a, b in pairs) * 1e3:+.1f} ms a step"
    )


if __name__ == "__main__":
    main()
