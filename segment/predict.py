"""Photos -> label PNGs, overlays, a COCO results json and the area of every class.

    python -m segment.predict --run RUN photo.jpg holiday/ --out predictions
    python -m segment.predict --run RUN photo.jpg --out predictions --save_probabilities

Writes to --out, which may hold no earlier results.json:

    labels/NAME.png      train ids, 8-bit grey
    overlays/NAME.jpg    the photo with the labels' colours
    results.json         COCO results: one RLE per photo and class present, score = mean probability
    categories.json      the classes by the ids in results.json, which are the train ids
    areas.csv            per photo and class: pixels and share of the photo
    heat_maps/NAME.CLASS.png, probabilities/NAME.npz     on request
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jsonargparse
from tqdm import tqdm

from segment.answer import classes_of, probabilities_of, to_device
from segment.arguments import add_init_args, add_run, add_switch, named_run
from segment.cli_errors import SegmentParser, user_errors
from segment.crf import DenseCRF
from segment.crf.pool import WorkerPool
from segment.data.photos import read_photo
from segment.interrupt import stopped
from segment.modules.loading import load_checkpoint
from segment.prediction import (
    Job,
    Predicted,
    find_photos,
    find_unread,
    write_lists,
    write_prediction,
)
from segment.runs import checkpoint_of, hold, read_config
from segment.scoring import at_most, default_workers


def _arguments() -> jsonargparse.ArgumentParser:
    parser = SegmentParser(prog="python -m segment.predict", description=__doc__)
    parser.add_argument(
        "photos", type=str, nargs="+", help="Photos, folders of photos, or COCO json files."
    )
    add_run(parser)
    parser.add_argument("--out", type=str, required=True, help="Folder to write to.")
    parser.add_argument("--root", type=str | None, help="Photos of a json; null: its own folder.")
    parser.add_argument(
        "--crf", type=DenseCRF | None, sub_configs=True, help="Null: off. Default: the run's own."
    )
    add_switch(parser, "heat_maps", "One picture per class.")
    add_switch(parser, "save_probabilities", "Before the CRF, float16 npz.")
    add_init_args(parser)
    parser.add_argument("--device", type=str | None, help="cpu, cuda, mps; null: the fastest.")
    parser.add_argument(
        "--workers", type=int | None, help="Photos refined at a time; null: half the cores."
    )
    return parser


def predict(args: Sequence[str]) -> None:
    """Run the verb with its command line."""
    parser = _arguments()
    run = named_run(args)
    if run is not None:  # the run's own CRF is the default
        parser.set_defaults(crf=read_config(run).get("crf"))
    config = parser.parse_args(list(args))
    crf: DenseCRF | None = parser.instantiate(config).crf
    out = Path(config.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; give --out a folder.")
    if (out / "results.json").exists():  # whose labels would stand beside lists without them
        raise ValueError(
            f"{out}: holds the results.json of an earlier prediction; give --out another folder, "
            f"or delete this one."
        )
    photos = find_photos(config.photos, config.root, out)
    checkpoint = checkpoint_of(Path(config.run), config.checkpoint)
    module = load_checkpoint(checkpoint, config.init_args)
    to_device(module, config.device)
    taxonomy = classes_of(module, checkpoint)
    threads = crf is not None and crf.releases_lock
    workers = config.workers
    if workers is None:
        # Without a CRF there is little to do, and native-size maps are too large to queue.
        few = crf is None or (len(photos) < 4 and not threads)
        workers = 0 if few else default_workers()

    unread: list[str] = []

    def jobs() -> Iterator[Job]:
        for source in tqdm(photos, unit="photo", disable=None):
            try:
                image = read_photo(source.path)
            except ValueError as error:
                unread.append(str(error))
                continue
            maps = probabilities_of(module, image)
            if crf is not None:
                maps = at_most(maps, crf.working_size(*image.shape[:2]))
            probabilities = maps.cpu().numpy()
            yield Job(
                image,
                probabilities,
                source,
                out,
                crf,
                taxonomy,
                config.heat_maps,
                config.save_probabilities,
            )

    hold(out)
    pool: WorkerPool[Job, Predicted] = WorkerPool(write_prediction, workers, threads)
    done: list[Predicted] = []
    try:
        for job in jobs():
            done += pool.submit(job)
        done += pool.drain()
    except KeyboardInterrupt as interrupt:
        stopped(interrupt, f"{len(done)} of {len(photos)} photos written to {out}")
    finally:
        pool.close()
        if done:  # also what Ctrl-C left
            write_lists(out, done, taxonomy)
    print(f"{len(done)} photos written to {out}")
    if passed_over := find_unread(config.photos):
        print(
            f"{len(passed_over)} photos were passed over, in formats that are not read, beginning "
            f"with {passed_over[0]}; convert them, for example to JPEG."
        )
    if unread:
        raise ValueError("\n".join([f"{len(unread)} photos could not be read:", *unread]))


if __name__ == "__main__":
    user_errors(lambda: predict(sys.argv[1:]))
