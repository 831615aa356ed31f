"""Write the W&B workspace in which runs are compared.

python -m segment.dashboard --project segment
python -m segment.dashboard --project segment --entity my-team --taxonomy trash10
WANDB_MODE=offline python -m segment.dashboard --project segment --out dashboard.json

Scores by architecture, raw against refined, IoU by class, cost against accuracy, losses and photos.
Where W&B cannot be reached, the same definition goes to a file, and the same command publishes it
once it can.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import wandb

from segment.cli_errors import SegmentParser, user_errors
from segment.data.taxonomy import Taxonomy
from segment.files import write_json
from segment.tracking.tracker import why_offline


def _arguments() -> jsonargparse.ArgumentParser:
    parser = SegmentParser(prog="python -m segment.dashboard", description=__doc__)
    parser.add_argument("--project", type=str, default="segment", help="W&B project.")
    parser.add_argument("--entity", type=str | None, help="W&B team; null: the account's own.")
    parser.add_argument(
        "--taxonomy", type=str | None, help="A preset or YAML: bars for each of its classes, too."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("dashboard.json"), help="Where it goes without W&B."
    )
    return parser


def main(args: Sequence[str]) -> None:
    """Run the verb with its command line."""
    given = _arguments().parse_args(list(args))
    try:
        from segment.tracking.workspace import definition, workspace
    except ImportError as error:
        raise ValueError(
            "python -m segment.dashboard: the package wandb-workspaces is not installed; "
            "pip install 'segment[dashboard]'."
        ) from error
    classes = Taxonomy.load(given.taxonomy).classes if given.taxonomy else ()
    reason = why_offline()
    if reason is None:
        try:
            entity = given.entity or str(wandb.Api().default_entity)
            print(f"Written to {workspace(given.project, entity, classes).save().url}")
            return
        except (wandb.Error, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
    write_json(given.out, definition(workspace(given.project, given.entity or "", classes)))
    print(
        f"W&B cannot be used ({reason}), so the workspace is written to {given.out}; with a "
        f"network and `wandb login` the same command publishes it."
    )


if __name__ == "__main__":
    user_errors(lambda: main(sys.argv[1:]))
