"""Compare runs: which differences are real, as a page that opens from disk, tables and Markdown.

For instance:

    python -m segment.report RUN RUN ... --out report/
    python -m segment.report runs/fcn8s/* runs/unet/* --out report/ --group '^(.*)_frame'
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from segment.cli_errors import user_errors
from segment.comparison.differences import compare
from segment.comparison.folder import check_ours, replaced
from segment.comparison.photo_sets import sets
from segment.comparison.reading import load_runs
from segment.comparison.runs import check_side_by_side
from segment.comparison.words import findings
from segment.comparison.writing import write_report
from segment.interrupt import stopped


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m segment.report",
        description="Compare runs: index.html, report.md and CSV tables. Which differences are "
        "real is told by a paired bootstrap over photos, and over seeds where runs differ in the "
        "seed alone.",
        epilog="example:\n  python -m segment.report runs/fcn8s/* runs/unet/* --out report\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--group",
        metavar="PATTERN",
        help="photos whose names agree in what this regular expression finds (its first group, "
        "if it has one) are drawn together: frames of one drive, photos of one place",
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="put runs of other photos, true labels or classes side by side; only those of the "
        "same are tested",
    )
    parser.add_argument("--draws", type=int, default=2000, help="draws of photos (2000)")
    parser.add_argument("--root", type=Path, help="folder of the photos, if they were moved")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the verb with its command line; None takes the process's own."""
    options = _arguments().parse_args(argv)
    if options.draws < 100:
        raise ValueError(f"--draws {options.draws}: is too few; give 100 or more.")
    check_ours(options.out)
    try:
        runs, unfinished = load_runs(options.runs)
        if not runs:
            told = "; ".join(f"{one.folder}: {one.reason}" for one in unfinished)
            raise ValueError(f"no run has scores yet ({told}).")
        if not options.anyway:
            check_side_by_side(runs)
        comparisons = compare(runs, options.group, options.draws)
        with replaced(options.out) as folder:
            missing = write_report(folder, runs, unfinished, comparisons, options.root)
    except KeyboardInterrupt as interrupt:
        stopped(interrupt, f"nothing was written to {options.out}")
    for one in unfinished:
        print(f"Left out: {one.folder} ({one.reason})")
    for text in missing:
        print(text)
    for text in sets(runs, comparisons):
        print(text)
    for text in findings(comparisons):
        print(f"- {text}")
    print(f"Written to {options.out}: open {options.out / 'index.html'}")


if __name__ == "__main__":
    user_errors(main)
