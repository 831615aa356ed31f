"""A run folder on disk -> a `Run`, checked; or what is missing."""

import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segment.bootstrap import Sums, stacked
from segment.comparison.runs import KINDS, Run, Unfinished
from segment.comparison.settings import with_names
from segment.evaluation import SCHEMA
from segment.files import read_yaml
from segment.metrics import PhotoCounts

_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
_SCORES = ("miou", "mean_accuracy", "pixel_accuracy", "boundary_f1")
_BY_CLASS = ("iou", "accuracy", "boundary_f1_by_class")


def load_runs(folders: Iterable[str | Path]) -> tuple[list[Run], list[Unfinished]]:
    """Read run folders, or folders that `segment.evaluate --out` wrote.

    Raises:
        ValueError: A folder is none of a run, is named twice, or a file in it is damaged.
    """
    runs: list[Run] = []
    unfinished: list[Unfinished] = []
    paths = [Path(folder) for folder in folders]
    for path, times in Counter(path.resolve() for path in paths).items():
        if times > 1:
            raise ValueError(f"{path}: is named {times} times; name each run once.")
    for path in tqdm(paths, desc="reading runs", unit="run", delay=2, disable=None):
        found = load_run(path)
        if isinstance(found, Run):
            runs.append(found)
        else:
            unfinished.append(found)
    return with_names(runs), unfinished


def load_run(folder: Path) -> Run | Unfinished:
    """One run; see `load_runs`."""
    path = folder / "evaluation.json"
    config = _config_of(folder)
    if not path.is_file():
        if config is None and not (folder / "checkpoints").is_dir():
            raise ValueError(f"{folder}: is not the folder of a run; it has no evaluation.json.")
        trained = (folder / "checkpoints" / "best.ckpt").is_file()
        remedy = f"`python -m segment.evaluate --run {folder}` scores its best checkpoint"
        return Unfinished(folder, f"no evaluation.json; {remedy if trained else 'still training?'}")
    evaluation = _read_json(path)
    photos = folder / "per_photo.jsonl.gz"
    if not photos.is_file() or config is None:
        what = "config.yaml" if photos.is_file() else "per_photo.jsonl.gz"
        return Unfinished(folder, f"no {what}; copy it from where the run was made")
    try:
        classes = len(evaluation["classes"])
        _touch(evaluation)
    except _MALFORMED as error:
        raise ValueError(
            f"{path}: is not what segment.evaluate writes ({type(error).__name__}: {error}); "
            f"score the run again."
        ) from error
    settings = read_yaml(config)
    if not isinstance(settings.get("model"), dict) or not isinstance(settings.get("data"), dict):
        raise ValueError(f"{config}: lacks `model` or `data`; it is not a run's own.")
    if not isinstance(settings["model"].get("init_args") or {}, dict):
        raise ValueError(f"{config}: its model.init_args are no settings; it is not a run's own.")
    kinds = [kind for kind in KINDS if evaluation[kind] is not None]
    try:
        files, sums, changed = _photos(photos, kinds, classes)
    except (*_MALFORMED, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{photos}: cannot be read ({type(error).__name__}: {error}); score the run again."
        ) from error
    for kind in kinds:
        truth = np.sum(evaluation[kind]["confusion"], axis=1)
        if not np.array_equal(truth, sums[kind].pixels[:, 1].sum(0)):
            raise ValueError(
                f"{photos}: its photos do not add up to {path.name}; score the run again."
            )
    return Run(folder, evaluation["experiment"], evaluation, settings, files, sums, changed)


def _touch(evaluation: dict[str, Any]) -> None:
    """Fail where something that the report shows is missing or of another kind."""
    if evaluation["schema"] != SCHEMA:
        raise ValueError(f"schema {evaluation['schema']}, not {SCHEMA}")
    classes, annotations = evaluation["classes"], evaluation["annotations"]
    for kind in ("raw", *(["refined"] if evaluation["refined"] is not None else [])):
        _touch_scores(evaluation[kind], len(classes))
    texts = [*classes, *evaluation["notes"], *evaluation.get("starts_from", [])]
    texts += [evaluation[key] for key in ("experiment", "checkpoint", "split")]
    texts += [annotations["sha256"], annotations["path"], evaluation.get("pretrained_on", "")]
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is no text")
    colors = evaluation["colors"]
    if np.shape(colors) != (len(classes), 3) or not all(type(v) is int for c in colors for v in c):
        raise ValueError("the colours of the classes")
    background = evaluation["background"]
    if type(evaluation["seed"]) is not int or not (
        background is None or (type(background) is int and 0 <= background < len(classes))
    ):
        raise TypeError("the seed or the background is no number of its own")
    crf = {} if evaluation["crf"] is None else evaluation["crf"]
    for part in (crf, evaluation["cost"]):
        if not isinstance(part, dict):
            raise TypeError(f"{part!r} is no group of values")
    if not isinstance(crf.get("parameters") or {}, dict):
        raise TypeError(f"{crf['parameters']!r} is no group of values")
    _touch_numbers([crf.get("seconds_per_photo"), *evaluation["cost"].values()])


def _touch_scores(scores: dict[str, Any], classes: int) -> None:
    """The same of raw or refined scores."""
    if np.shape(scores["confusion"]) != (classes, classes):
        raise ValueError(f"the confusion matrix of {classes} classes")
    if not all(type(number) is int for row in scores["confusion"] for number in row):
        raise TypeError("the confusion matrix holds something else than whole numbers")
    by_class = [scores[key] for key in _BY_CLASS]
    bins = scores["calibration"]["bins"]
    if any(len(values) != classes for values in by_class) or len(bins) == 0:
        raise ValueError("the scores by class")
    _touch_numbers([scores[key] for key in _SCORES])
    _touch_numbers([value for values in by_class for value in values])
    for width, value in scores["trimap_miou"].items():
        int(width)
        _touch_numbers([value])
    _touch_numbers([scores["calibration"]["ece"]])
    _touch_numbers([each[key] for each in bins for key in ("confidence", "accuracy")])
    if not all(type(each["pixels"]) is int for each in bins):
        raise TypeError("the calibration's pixels")


def _touch_numbers(values: Iterable[Any]) -> None:
    for value in values:
        number = type(value) in (int, float) and math.isfinite(value)
        if value is not None and not number:
            raise TypeError(f"{value!r} is no number")


def _config_of(folder: Path) -> Path | None:
    """The run's config.yaml: here, or above `evaluations/<time>`."""
    for place in (folder, folder.resolve().parent.parent):
        if (place / "config.yaml").is_file():
            return place / "config.yaml"
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not valid JSON ({error}); score the run again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: is no evaluation; score the run again.")
    return content


def _photos(
    path: Path, kinds: Sequence[str], classes: int
) -> tuple[tuple[str, ...], dict[str, Sums], NDArray[np.float64]]:
    """Names, sums and changed shares of the photos, of which only the sums are kept."""
    files: list[str] = []
    rows: dict[str, list[Sums]] = {kind: [] for kind in kinds}
    changed: list[float] = []
    for record in _lines(path):
        files.append(str(record["file_name"]))
        counts = [PhotoCounts.from_json(record[kind]) for kind in kinds]
        for kind, one in zip(kinds, counts, strict=True):
            if len(one.confusion) != classes:
                raise ValueError(f"{files[-1]} has {len(one.confusion)} classes, not {classes}")
            row = Sums.of(stacked([one]))
            # In half the memory: no photo has 2**31 pixels.
            small = row.pixels.astype(np.int32), row.trimap.astype(np.int32)
            rows[kind].append(Sums(*small, row.boundary))
        matrices = [one.confusion for one in (counts[0], counts[-1])]
        pixels = max(1, int(matrices[0].sum()))
        changed.append(np.abs(matrices[1] - matrices[0]).sum() / 2 / pixels)
    if not files:
        raise ValueError("it holds no photo")
    sums = {
        kind: Sums(*(np.concatenate(field) for field in zip(*some, strict=True)))
        for kind, some in rows.items()
    }
    return tuple(files), sums, np.array(changed)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
