"""Find the CRF's parameters for a run's network, and whether refining helps at all.

    python -m segment.tune_crf --run RUN
    python -m segment.tune_crf --run RUN --objective boundary_f1 --photos 50 --crf.iterations 5

Asks the network once, then searches both widths and the weight of the bilateral kernel on one half
of the photos, coarse to fine as DeepLab did. The other half says what that is worth. Stop it when
you like: the same command goes on where it was. Another --method beside it is scored on the same
photos; gradient starts at what grid found.

Writes to RUN/crf/<split>, or --out:

    crf.yaml         for --crf of fit, evaluate, predict and refine
    tuning.md        scores on the half that tuned nothing, and the verdict
    landscape.png    the best trial of each place; or, learnt, curves.png: loss and weights by step
    trials.*.jsonl, gradient.*.pt, tuned.*.yaml      what was tried, learnt and found
    cache/           the network's answers
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from tqdm import tqdm

from segment.bootstrap import measures, summed
from segment.cli import SegmentCLI
from segment.cli_errors import user_errors
from segment.crf import DenseCRF
from segment.data.dataset import CocoSegmentation
from segment.files import read_yaml, write_atomically
from segment.interrupt import stopped
from segment.metrics import Totals
from segment.modules.loading import load_checkpoint
from segment.runs import checkpoint_of, hold
from segment.scoring import cores
from segment.tuning.arguments import Method, add_arguments, check_numbers
from segment.tuning.cache import Cache
from segment.tuning.gradient import Learning
from segment.tuning.methods import (
    LEARNT,
    PUBLISHED,
    SECOND,
    ask,
    by_gradient,
    by_search,
    found_by,
    published,
    write_crf,
)
from segment.tuning.search import Search, count_all, pool_for, seconds_a_photo
from segment.tuning.verdict import ADVICE, NAMES, Held, chosen, falling, halves


class Tuning:
    """The parts of one tuning, from its command line.

    Raises:
        ValueError: There is nothing to tune on, or the folder is another tuning's.
    """

    def __init__(self, cli: SegmentCLI) -> None:
        self.config = cli.config
        check_numbers(self.config)
        self.run = Path(self.config.run)
        self.out = Path(self.config.out or self.run / "crf" / self.config.split)
        self.rank, self.world = (
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1))
        )
        checkpoint = checkpoint_of(self.run, self.config.checkpoint)
        self.module = load_checkpoint(checkpoint)
        device = cli.trainer.strategy.root_device
        if device.type == "cuda" and self.world > 1:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        self.module.to(device)
        data = cli.datamodule
        known = self.module.taxonomy
        if known is None:
            raise ValueError(f"{self.run}: the checkpoint names no classes; train with `fit`.")
        self.taxonomy = data.taxonomy if data.taxonomy_source else known
        self.module.check_taxonomy(self.taxonomy)
        data.use_taxonomy(self.taxonomy)
        data.prepare_data()
        self.module.short_side = data.short_side
        self.coco = data.read(self.config.split)
        if not self.coco.shown_classes():
            raise ValueError(
                f"{self.coco.path}: not one pixel is labelled, so nothing can be tuned on it."
            )
        blocks, seed = self.config.block_size, self.config.seed
        self.photos = chosen(self.coco.photos, self.config.photos, blocks, seed)
        self.skipped = 0  # known once the network was asked
        self.tuning, self.held = halves(len(self.photos), blocks, seed)
        self.blocks = np.arange(len(self.photos)) // blocks
        given = cli.crf or DenseCRF()
        sides = [max(photo.height, photo.width) for photo in self.photos]
        self.reference = given.reference_size or int(np.median(sides))
        self.given = replace(given, tuned_on=None)
        for photo in self.photos:
            self.given.check_fits(self.taxonomy.num_classes, photo.height, photo.width)
        self.start = replace(self.given, reference_size=self.reference, keep_classes=None)
        if self.out.is_file():
            raise ValueError(f"{self.out}: is a file; give --out a folder.")
        if self.rank == 0:
            hold(self.out)
        with checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.identity = {
            "checkpoint": digest,
            "annotations": self.coco.sha256,
            "taxonomy": hashlib.sha256(repr(self.taxonomy).encode()).hexdigest(),
            "max_side": str(self.start.max_side),
            "short_side": str(self.module.short_side),
        }
        self.cache = Cache(self.out / "cache", self.identity)
        workers = self.config.score_workers
        self.pool = pool_for(self.start, cores() if workers is None else workers)

    def paths(self, places: Sequence[int]) -> list[Path]:
        """Files of some of the photos."""
        return [self.cache.path(self.photos[place]) for place in places]

    def ask_network(self) -> None:
        """Fill the cache: this process's share, and the first one what is then still missing.

        Raises:
            ValueError: Photos cannot be read, and the data say to stop there; or none of one half.
        """
        shares = [self.photos[self.rank :: self.world]]
        if self.rank == 0 and self.world > 1:
            shares.append(self.photos)
        for share in shares:
            ask(self.cache, self.module, CocoSegmentation(self.coco), share, self.start)
        unread = self.cache.missing(self.photos)
        self.skipped = len(unread)
        for half in (self.tuning, self.held):
            half[:] = [place for place in half if self.photos[place] not in unread]
            if self.rank == 0 and not half:
                raise ValueError(
                    f"{self.coco.path}: of one half of the {len(self.photos)} photos not one can "
                    f"be read, so nothing can be tuned or told; mend them, or give more --photos."
                )

    def search(self) -> DenseCRF:
        """The best parameters on the tuning half."""
        config, paths, classes = self.config, self.paths(self.tuning), self.taxonomy.num_classes
        if config.method == "gradient":
            start = self.found("grid") or self.start
            known = self._file("gradient.pt", asdict(start), config.seed)
            learning = Learning(start, paths, classes, known, config.seed)
            tuned = by_gradient(learning, self.out / "curves.png")
        else:
            known, background = self._file("trials.jsonl"), self.taxonomy.background
            search = Search(
                self.start, paths, classes, background, known, config.objective, self.pool
            )
            trials = config.trials if config.method == "optuna" else None
            picture = self.out / "landscape.png"
            tuned = by_search(search, picture, self.reference, trials, config.seed)
        write_crf(self._found_by(config.method), tuned)
        return tuned

    def _file(self, name: str, *depends: object) -> Path:
        """A file that goes with these photos of this network and these settings alone."""
        names = [path.name for path in self.paths(self.tuning)]
        told = json.dumps([self.identity, asdict(self.start), names, *depends], sort_keys=True)
        stem, ending = name.rsplit(".", 1)
        return self.out / f"{stem}.{hashlib.sha256(told.encode()).hexdigest()[:8]}.{ending}"

    def _found_by(self, method: str) -> Path:
        """Where what a method found is kept, beside what the others found for the same."""
        held = [path.name for path in self.paths(self.held)]
        return self._file(f"tuned.{method}.yaml", self.config.objective, held)

    def found(self, method: str) -> DenseCRF | None:
        """What a method found for the same photos and objective, or None."""
        path = self._found_by(method)
        try:
            return DenseCRF(**read_yaml(path)) if path.exists() else None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: is damaged; delete it, and tune again.") from error

    def counted(self, places: Sequence[int], crf: DenseCRF | None, shift: int = 0) -> Totals:
        """Scores of some photos; guided by the photo `shift` places on."""
        paths = self.paths(places)
        guides = paths[shift:] + paths[:shift]
        return count_all(paths, crf, self.taxonomy.num_classes, self.pool, guides)

    def gated(self, tuned: DenseCRF) -> DenseCRF:
        """With the classes kept whose IoU fell on the tuning half, if that serves the objective."""
        background, objective = self.taxonomy.background, self.config.objective
        raw, free = self.counted(self.tuning, None), self.counted(self.tuning, tuned)
        falls = falling(raw, free, background)
        if not falls:
            return tuned
        kept = replace(tuned, keep_classes=falls)
        without, with_kept = (
            measures(summed(totals), background)[objective]
            for totals in (free, self.counted(self.tuning, kept))
        )
        return kept if with_kept > without else tuned

    def hold_out(self, tuned: DenseCRF) -> tuple[str, str]:
        """Write crf.yaml; the scores on the half that tuned nothing, as Markdown, and advice."""
        final = replace(self.gated(tuned), tuned_on=self.coco.sha256)
        falls, objective = final.keep_classes, self.config.objective
        method = self.config.method
        name = f"tuned by {method}"
        crfs = {"as given": self.given, PUBLISHED: published(self.given)}
        for other in get_args(Method):
            found = tuned if other == method else self.found(other)
            if found is not None:
                crfs[f"tuned by {other}"] = found
        others = [kind for kind in crfs if kind.startswith("tuned") and kind != name]
        if falls:
            crfs[name + " and gated"] = final
        totals, seconds = {"raw": self.counted(self.held, None)}, {}
        for kind, crf in tqdm(crfs.items(), "held-out half", disable=None):
            totals[kind] = self.counted(self.held, crf)
            seconds[kind] = seconds_a_photo(self.paths(self.held), crf)
        if len(self.held) > 1:
            # Not the next one, which may be the next frame of the same drive.
            far = len(self.held) // 2
            totals["control: another photo's edges"] = self.counted(self.held, final, far)
        blocks = np.unique(self.blocks[self.held], return_inverse=True)[1]
        held = Held(totals, self.taxonomy.classes, self.taxonomy.background, blocks)
        judged = list(crfs)[-1] if falls else name
        write_crf(self.out / "crf.yaml", final)
        kept = ", ".join(self.taxonomy.classes[c] for c in falls or ()) or "none"
        if falls:
            kept += f" ({self._found_by(method).name} is without that)"
        how = f"{method} for {NAMES[objective]}"
        if method == "gradient":
            how = LEARNT[self.found("grid") is not None].format(NAMES[objective])
        own = SECOND if self.module.refines_itself else ""
        parts = [
            f"# The CRF on {self.coco.path.name}, for {self.run}",
            f"{len(self.tuning)} photos tuned, by {how}; {len(self.held)} others are scored below, "
            f"at the size the CRF works at (longer side at most {final.max_side} px). Found: "
            f"{found_by(final, method)}. {own}Classes that keep their pixels, since that served "
            f"the tuning half: {kept}.",
            held.table(seconds),
            *(held.against(name, other, objective) for other in others),
            *([held.against(judged, name, objective)] if falls else []),
            held.verdict(judged, objective, self.skipped),
            held.by_class(judged),
        ]
        shown = held.differences(judged)[objective].verdict
        advice = ADVICE[shown].format(self.out / "crf.yaml")
        return "\n\n".join(parts) + "\n", advice


def main(args: Sequence[str]) -> None:
    """Run the verb with its command line."""
    tuning = Tuning(SegmentCLI(args, "tune_crf", add_arguments))
    try:
        tuning.ask_network()
        if tuning.rank != 0:
            return
        text, advice = tuning.hold_out(tuning.search())
    except KeyboardInterrupt as interrupt:
        stopped(interrupt, f"what is known so far is in {tuning.out}; the same command goes on")
    finally:
        tuning.pool.close()
    write_atomically(tuning.out / "tuning.md", text.encode())
    print(text)
    print(f"Written to {tuning.out}; {advice}.")


if __name__ == "__main__":
    user_errors(lambda: main(sys.argv[1:]))
