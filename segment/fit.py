"""Train one experiment, then score its best checkpoint raw and refined.

For instance:

    python -m segment.fit --config experiments/deeplab_crf.yaml
    python -m segment.fit --resume runs/deeplab_crf/2026-01-31_12-00-00
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import jsonargparse
from lightning.pytorch.utilities.exceptions import SIGTERMException

from segment.cli import SegmentCLI
from segment.cli_errors import user_errors
from segment.evaluate import evaluate
from segment.modules.loading import check_resumable, read_checkpoint
from segment.runs import checkpoint_of


def _arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resume", type=str | None, help="Folder of a run to go on with, from its last epoch."
    )


def fit(args: Sequence[str]) -> None:
    """Run the verb with its command line."""
    cli = SegmentCLI(args, "fit", _arguments)
    resume = None if cli.config.resume is None else Path(cli.config.resume)
    run = cli.start_run(resume)
    last = run / "checkpoints" / "last.ckpt"
    start = last if resume is not None and last.is_file() else None
    if cli.trainer.is_global_zero:
        print(f"{'Resuming' if resume else 'Writing to'} {run}", flush=True)
        if resume is not None and start is None:
            print("No epoch was finished, so training starts over, with the same seed.")
        network = cli.model.network
        count = sum(parameter.numel() for parameter in network.parameters())
        print(f"{type(network).__name__}: {count:,} parameters", flush=True)
    if start is not None:  # so that `setup` holds the data's classes against those it has learnt
        checkpoint = read_checkpoint(start)
        check_resumable(start, checkpoint, cli.model)
        cli.model.on_load_checkpoint(checkpoint)
    cli.trainer.fit(
        cli.model,
        datamodule=cli.datamodule,
        ckpt_path=None if start is None else str(start),
        weights_only=True,
    )
    if cli.trainer.received_sigterm:  # in the last step, after which Lightning no longer looks
        raise SIGTERMException
    run = Path(cli.trainer.strategy.broadcast(str(run)))
    if not any((run / "checkpoints").glob("*.ckpt")):
        raise ValueError(
            f"{run}: not one epoch was trained, so there is nothing to score; see "
            f"trainer.max_epochs, trainer.max_steps and trainer.limit_train_batches."
        )
    best = run / "checkpoints" / "best.ckpt"
    if not best.is_file() and cli.trainer.is_global_zero:
        print("No epoch was validated, so there is no best checkpoint; scoring the last one.")
    evaluate(cli, run, checkpoint_of(run, "best" if best.is_file() else "last"), "val", out=run)


if __name__ == "__main__":
    user_errors(lambda: fit(sys.argv[1:]))
