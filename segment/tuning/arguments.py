"""The command line of `segment.tune_crf`."""

from typing import Literal

import jsonargparse

from segment.arguments import add_run

Method = Literal["grid", "optuna", "gradient"]


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    """Of the verb, beside those of an experiment."""
    add_run(parser)
    parser.add_argument("--split", type=Literal["train", "val", "test"], default="val")
    parser.add_argument("--out", type=str | None, help="Null: crf/<split> in the run.")
    parser.add_argument(
        "--objective",
        type=Literal["miou", "boundary_f1", "trimap_miou"],
        default="miou",
        help="What is to be highest; trimap_miou is that within 4 px of a label change.",
    )
    parser.add_argument(
        "--method",
        type=Method,
        default="grid",
        help="gradient learns weights and compatibility by cross-entropy, at the widths that grid "
        "found here for the same objective, else at those of --crf.",
    )
    parser.add_argument("--trials", type=int, default=60, help="Of --method optuna.")
    parser.add_argument("--photos", type=int, default=100, help="At most; half of them tune.")
    parser.add_argument(
        "--block_size",
        type=int,
        default=1,
        help="Photos in a row that belong together, such as frames of one drive.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Of the choice of photos and halves.")
    parser.add_argument(
        "--score_workers", type=int | None, help="Photos refined at a time; null: every core."
    )


def check_numbers(config: jsonargparse.Namespace) -> None:
    """Refuse numbers that no tuning can have.

    Raises:
        ValueError: One of them is too small.
    """
    for name, least in (("trials", 1), ("photos", 2), ("block_size", 1), ("seed", 0)):
        if config[name] < least:
            raise ValueError(f"--{name} is {config[name]}; give {least} or more.")
    if config.photos < 2 * config.block_size:
        raise ValueError(
            f"--photos {config.photos}: two blocks of {config.block_size} photos are "
            f"{2 * config.block_size}, one to tune and one to score; give as many, or smaller "
            f"blocks."
        )
