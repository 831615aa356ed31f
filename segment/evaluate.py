"""Score a checkpoint, raw and refined, and write evaluation.json.

For instance:

    python -m segment.evaluate --run runs/deeplab_crf/2026-01-31_12-00-00
    python -m segment.evaluate --run RUN --split test --data.root data/other --crf.iterations 5
    python -m segment.evaluate --run RUN --init_args '{output_stride: 8, test_flip: true}'
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jsonargparse

from segment.arguments import add_init_args, add_run
from segment.cli import SegmentCLI
from segment.cli_errors import user_errors
from segment.evaluation import Evaluation
from segment.modules.loading import load_checkpoint
from segment.runs import checkpoint_of, fresh_folder, hold
from segment.table import table
from segment.tracking import Tracker, log_evaluation, tracker_of


def _arguments(parser: jsonargparse.ArgumentParser) -> None:
    add_run(parser)
    add_init_args(parser)
    parser.add_argument("--split", type=Literal["train", "val", "test"], default="val")
    parser.add_argument(
        "--out",
        type=str | None,
        help="Folder to write to; null: the run's, or evaluations/<time> in it if it has scores.",
    )
    parser.add_argument(
        "--score_workers", type=int | None, help="Photos refined at a time; null: half the cores."
    )


def evaluate(
    cli: SegmentCLI,
    run: Path,
    checkpoint: Path,
    split: str,
    out: Path,
    workers: int | None = None,
    init_args: dict[str, Any] | None = None,
) -> None:
    """Score `checkpoint` on a split with the CLI's data, CRF and trainer; print and write."""
    trainer, data = cli.trainer, cli.datamodule
    experiment = cli.config.experiment
    scoring = Evaluation(run, out, experiment, checkpoint, split, cli.crf, workers, init_args)
    trainer.callbacks.append(scoring)  # type: ignore[attr-defined]  # untyped
    data.split = split
    module = load_checkpoint(checkpoint, init_args)
    if data.taxonomy_source is None and module.taxonomy is not None:
        data.use_taxonomy(module.taxonomy)  # not what this split's json happens to list
    trainer.test(module, datamodule=data, verbose=False)
    if scoring.result is not None:
        log_evaluation(trainer, scoring.result, scoring.out)
        print(table(scoring.result))
        print(f"Written to {out / 'evaluation.json'}", flush=True)
        tracker = tracker_of(trainer)
        if tracker is not None:
            tracker.finish()


def _free_folder(run: Path) -> Path:
    """The run's own folder, unless it holds an evaluation already: that one stays."""
    if (run / "evaluation.json").exists():
        return fresh_folder(run / "evaluations")
    return run


def main(args: Sequence[str]) -> None:
    """Run the verb with its command line."""
    cli = SegmentCLI(args, "evaluate", _arguments)
    run = Path(cli.config.run)
    checkpoint = checkpoint_of(run, cli.config.checkpoint)
    out = Path(cli.config.out or run)
    # On every process, which would else wait for the one that refuses.
    if cli.config.out is not None and (out / "evaluation.json").exists():
        raise ValueError(  # its photos would stand beside these
            f"{out}: holds the evaluation.json of an earlier evaluation; give --out another "
            f"folder, or delete this one."
        )
    if cli.trainer.is_global_zero:
        if cli.config.out is None:
            out = _free_folder(run)
        hold(out)
    if os.environ.get("WANDB_SWEEP_ID"):  # W&B's agent waits for the run that it has named
        tracker = Tracker(project="segment")
        if cli.trainer.is_global_zero:
            tracker.follow(out, cli.config.experiment, cli.resolved())
        cli.trainer.loggers = [tracker]
    init_args = cli.config.init_args
    evaluate(cli, run, checkpoint, cli.config.split, out, cli.config.score_workers, init_args)


if __name__ == "__main__":
    user_errors(lambda: main(sys.argv[1:]))
