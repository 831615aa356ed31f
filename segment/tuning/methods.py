"""The ways to tune as a user sees them: a progress bar, and a picture of what was tried."""

from dataclasses import asdict
from pathlib import Path

import yaml
from tqdm import tqdm

from segment.crf import DenseCRF
from segment.data.dataset import CocoSegmentation
from segment.data.records import Photo
from segment.files import write_atomically
from segment.modules import SegmentationModule
from segment.tuning.cache import Cache
from segment.tuning.gradient import Learning
from segment.tuning.pictures import write_curves, write_landscape
from segment.tuning.search import PASCAL_SIDE, SEARCHED, Search, Trial

LEARNT = {  # by whether there is a grid's find to start from
    True: "gradient of the cross-entropy, from what grid found for {}",
    False: "gradient of the cross-entropy, from those of --crf, since no grid for {} was run here",
}
SECOND = (
    "This network refines by a CRF of its own, so `raw` is refined already, and what was tuned is "
    "a second CRF upon it. "
)
PUBLISHED = "published for DeepLab v2 (ResNet-101)"
REDRAWN = 20  # steps after which the curves are drawn again


def published(given: DenseCRF) -> DenseCRF:
    """DeepLab v2's parameters, which were found on photos of PASCAL VOC, at the size of `given`."""
    own = {"max_side": given.max_side, "backend": given.backend, "reference_size": PASCAL_SIDE}
    return DenseCRF.preset("deeplab_v2_resnet101", **own)


def write_crf(path: Path, crf: DenseCRF) -> None:
    """Write the file that `--crf` takes."""
    write_atomically(path, yaml.safe_dump(asdict(crf), sort_keys=False).encode())


def found_by(crf: DenseCRF, method: str) -> str:
    """What a method has found, in words."""
    fields = [*SEARCHED, *(["position_weight"] if method == "gradient" else [])]
    shown = ", ".join(f"{field} {getattr(crf, field):g}" for field in fields)
    return f"{shown}, for photos of {crf.reference_size} px"


def ask(
    cache: Cache,
    module: SegmentationModule,
    dataset: CocoSegmentation,
    photos: list[Photo],
    crf: DenseCRF,
) -> None:
    """Fill the cache with the network's answers on photos that it lacks."""
    missing = cache.missing(photos)
    filled = cache.fill(module, dataset, missing, crf)
    for _ in tqdm(filled, "network", len(missing), unit="photo", disable=not missing or None):
        pass


def by_search(
    search: Search, picture: Path, reference: int, trials: int | None = None, seed: int = 0
) -> DenseCRF:
    """The best point of the grid, or of Optuna's choice.

    Args:
        search: Over the photos that tune.
        picture: PNG to write.
        reference: Longer side in pixels of the photos that widths are for.
        trials: Number of Optuna's trials; None searches the grid.
        seed: Optuna's.
    """
    with tqdm(desc="trials", unit="trial", disable=None) as bar:

        def tell(trial: Trial, best: Trial | None) -> None:
            if best is not None and best.point is not None:
                shown = ", ".join(f"{value:g}" for value in best.point)
                score = best.scores[search.objective]
                bar.set_postfix_str(f"best {search.objective} {score:.4f} at {shown}")
            bar.update()

        search.told = tell
        search.score(None)
        if trials is None:
            search.grid(reference)
        else:
            search.optuna(reference, trials, seed)
    assert search.best is not None
    taken = search.best.point
    assert taken is not None
    write_landscape(picture, list(search.trials.values()), search.objective, taken)
    return search.at(taken)


def by_gradient(learning: Learning, picture: Path) -> DenseCRF:
    """What is learnt from the photos, one a step.

    Args:
        learning: New, or taken up where it was stopped.
        picture: PNG to write, again and again.
    """
    done = len(learning.steps)
    with tqdm(desc="steps", total=len(learning), initial=done, unit="step", disable=None) as bar:
        for step in learning.run():
            bar.set_postfix_str(
                f"loss {step.loss:.4f}, weights {step.position_weight:.2f}, "
                f"{step.bilateral_weight:.2f}"
            )
            bar.update()
            if len(learning.steps) % REDRAWN == 0:
                write_curves(picture, learning.steps)
    write_curves(picture, learning.steps)
    return learning.learnt()
