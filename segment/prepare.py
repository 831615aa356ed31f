"""Make or inspect data: `python -m segment.prepare sample`, or `check`, or `stats`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from segment.data.check import check, report
from segment.data.coco import CocoFile
from segment.data.sample import make_sample
from segment.data.stats import count, table, write_csv
from segment.data.stats_picture import draw
from segment.data.taxonomy import Taxonomy
from segment.files import write_json
from segment.interrupt import stopped

_EXAMPLES = """examples:
  python -m segment.prepare sample --out data/sample
  python -m segment.prepare check --annotations data/a/train.json data/a/val.json --root data/a
  python -m segment.prepare stats --annotations data/a/train.json --root data/a --out stats/a
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: Arguments after the program's name; None takes the process's own.

    Returns:
        Exit code: 0; 1 if `check` found fatal defects; 2 if the verb could not do its work; Ctrl-C
        exits with 130.
    """
    parser = argparse.ArgumentParser(
        prog="python -m segment.prepare",
        description="Make or inspect data in COCO format.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="sample | check | stats")
    _add_sample(verbs)
    _add_check(verbs)
    _add_stats(verbs)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except (ValueError, OSError) as error:
        print(f"{parser.prog} {args.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        stopped(interrupt, f"`{parser.prog} {args.verb}` did not finish; run it again")


def _add_sample(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "sample",
        help="draw the embedded trash set",
        description="Draw photos of trash with COCO annotations; the same seed, the same bytes.",
        epilog="example:\n  python -m segment.prepare sample --out data/sample --train 400\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("data/sample"), help="folder to make")
    parser.add_argument("--train", type=int, default=200, help="photos to train on (200)")
    parser.add_argument("--val", type=int, default=50, help="photos to validate on (50)")
    parser.add_argument("--size", type=int, default=256, help="height and width, pixels (256)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set (0)")
    parser.set_defaults(run=_sample)


def _add_check(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "check",
        help="find defects, and photos that stand in the data twice",
        description="Find every defect of COCO files and copies among their photos. Exit code 1 "
        "means that training would refuse the data. Without --taxonomy the first file's categories "
        "are those of all, so name the training file first.",
        epilog="example:\n  python -m segment.prepare check --annotations data/a/train.json "
        "data/a/val.json --root data/a --taxonomy trash10 --json defects.json\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--annotations", type=Path, nargs="+", required=True, help="COCO files")
    _add_data(parser)
    parser.add_argument("--json", type=Path, help="write all defects there, too")
    parser.add_argument(
        "--headers-only",
        action="store_true",
        help="do not decode photos: fast, but finds no damaged ones and no copies",
    )
    parser.set_defaults(run=_check)


def _add_stats(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "stats",
        help="count classes, and give loss weights",
        description="Count pixels, objects and photos of each class; write classes.csv, "
        "cooccurrence.csv and stats.png.",
        epilog="example:\n  python -m segment.prepare stats --annotations data/a/train.json "
        "--root data/a --out stats/a\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--annotations", type=Path, required=True, help="COCO file")
    _add_data(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and picture")
    parser.set_defaults(run=_stats)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, required=True, help="folder file names start from")
    parser.add_argument("--taxonomy", help="preset or YAML file; without, categories as they are")


def _sample(args: argparse.Namespace) -> int:
    make_sample(args.out, train=args.train, val=args.val, size=args.size, seed=args.seed)
    return 0


def _check(args: argparse.Namespace) -> int:
    taxonomy = Taxonomy.load(args.taxonomy) if args.taxonomy else None
    defects = check(args.annotations, args.root, taxonomy, decode=not args.headers_only)
    print(report(args.annotations, defects))
    if args.json:
        found = [asdict(defect) for defect in defects]
        write_json(args.json, {"annotations": list(map(str, args.annotations)), "defects": found})
    return int(any(defect.fatal for defect in defects))


def _stats(args: argparse.Namespace) -> int:
    taxonomy = Taxonomy.load(args.taxonomy) if args.taxonomy else None
    stats = count(CocoFile(args.annotations, args.root, taxonomy=taxonomy, check_photos=False))
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(stats, args.out)
    draw(stats).save(args.out / "stats.png")
    print(table(stats))
    print(f"written: {args.out}/classes.csv, cooccurrence.csv, stats.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
