"""What the framework costs per training step, against a bare PyTorch loop.

python benchmarks/training_overhead.py --config experiments/deeplab_crf.yaml --steps 30 --rounds 3
python benchmarks/training_overhead.py --config experiments/smoke.yaml --tiny --steps 200

The same network, optimizer, photos, augmentation and threads, alternating bare and framework
rounds, each in a process of its own. A round counts as a whole, so that steps which log and ends of
epochs weigh as much as they take: the seconds of all its steps, but for those of the first 10
seconds, in which W&B's service starts beside the training, once for a run. Prints milliseconds per
step, ratio and difference of every round, and the median over rounds. The framework's side logs to
W&B (offline) and shows its progress bar.
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
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from segment.architectures.layers import SegmentationNetwork
from segment.cli import SegmentCLI
from segment.data.datamodule import TrashDataModule
from segment.fit import _arguments
from segment.modules import SegmentationModule

WARM_UP_SECONDS = 10
MOST_EPOCHS = 10_000  # the clock stops before; the schedule wants to know an end


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
    """When each step ended; stops the training after enough steps.

    Args:
        steps: Timed steps.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.ends: list[float] = []
        self.started: float | None = None

    def tick(self) -> bool:
        """Note the end of a step; whether it was the last one."""
        now = time.perf_counter()
        if self.started is None:
            self.started = now
        if now >= self.started + WARM_UP_SECONDS:
            self.ends.append(now)
        return len(self.ends) > self.steps

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Tick."""
        trainer.should_stop = self.tick()

    @property
    def per_step(self) -> float:
        """Seconds per timed step."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def bare(module: SegmentationModule, data: TrashDataModule, steps: int) -> float:
    """Seconds per step of a loop with nothing in it but the training."""
    loader = data.train_dataloader()
    optimizer = module.optimization.optimizer(module.parameter_groups())
    module.train()
    clock, epoch, last = Clock(steps), 0, False
    while not last:
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in loader:
            loss = module.loss(batch["image"], batch["mask"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            last = clock.tick()
            if last:
                break
        epoch += 1
    return clock.per_step


def framework(config: str, module: SegmentationModule, steps: int, extra: list[str]) -> float:
    """Seconds per step of `segment.fit`'s own trainer: schedule, logging, progress bar and all.

    Only validation is off, and with it the checkpoints that its score would choose.
    """
    with tempfile.TemporaryDirectory() as root:
        args = ["--config", config, "--trainer.default_root_dir", root, *extra]
        args += ["--trainer.max_epochs", str(MOST_EPOCHS), "--trainer.limit_val_batches", "0"]
        args += ["--trainer.num_sanity_val_steps", "0"]
        cli = SegmentCLI(args, "fit", _arguments)
        cli.start_run(None)
        clock = Clock(steps)
        kept = [c for c in cli.trainer.callbacks if not isinstance(c, ModelCheckpoint)]
        cli.trainer.callbacks = [*kept, clock]
        cli.trainer.fit(module, datamodule=cli.datamodule)
        wandb.finish()  # else it goes on watching the machine beside the next round
    return clock.per_step


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
