"""The comparison as tables: pandas for CSV and notebooks, Markdown for reading."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from segment.bootstrap import TRIMAP_WIDTH, measure_names
from segment.comparison.differences import Comparison
from segment.comparison.runs import KINDS, Run
from segment.comparison.words import sentence

# Columns of scores that stand raw beside refined, as a table heads them.
SCORES = {
    "miou": "mIoU",
    "mean_accuracy": "class average",
    "pixel_accuracy": "pixel accuracy",
    "boundary_f1": "boundary F1",
    "trimap_miou": f"trimap mIoU, {TRIMAP_WIDTH} px",
}
# Costs, of which the least is best.
COSTS = {
    "parameters": "parameters",
    "multiply_adds_512": "multiply-adds",
    "seconds_per_training_step": "s / step",
    "seconds_per_photo_forward": "s / photo",
    "crf_seconds_per_photo": "s / photo, CRF",
    "peak_memory_mb": "memory, MB",
}


def scores_of(run: Run, kind: str) -> dict[str, float | None]:
    """The scores of `SCORES`, and all None where there are none."""
    scores = run.evaluation.get(kind) or {}
    found = {key: scores.get(key) for key in SCORES}
    found["trimap_miou"] = (scores.get("trimap_miou") or {}).get(TRIMAP_WIDTH)
    return found


def scores_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run: scores raw and refined, cost, weights, and what the photos had decided.

    Columns are keys of `SCORES` with `_raw` and `_refined`, those of `COSTS`, and `run`,
    `experiment`, `seed`, `weights`, `split`, `photos`, `role_raw`, `role_refined`, `folder`.
    """
    rows = []
    for run in runs:
        evaluation = run.evaluation
        row: dict[str, Any] = {
            "run": run.name,
            "experiment": evaluation["experiment"],
            "seed": run.seed,
        }
        for kind in KINDS:
            row |= {f"{key}_{kind}": value for key, value in scores_of(run, kind).items()}
        cost = evaluation["cost"]
        row |= {key: cost.get(key) for key in COSTS}
        row["crf_seconds_per_photo"] = (evaluation["crf"] or {}).get("seconds_per_photo")
        row |= {"weights": run.weights, "split": evaluation["split"], "photos": len(run.files)}
        row |= {f"role_{kind}": ", ".join(run.roles(kind)) or "untouched" for kind in KINDS}
        rows.append(row | {"folder": str(run.folder)})
    return pd.DataFrame(rows)


def classes_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row for each run, kind of labels and class: IoU, accuracy, boundary F1, pixel share."""
    rows = []
    for run in runs:
        for kind in run.kinds:
            scores = run.evaluation[kind]
            pixels = np.sum(scores["confusion"], axis=1)
            shares = pixels / max(1, pixels.sum())
            for place, name in enumerate(run.classes):
                row = {"run": run.name, "kind": kind, "class": name, "iou": scores["iou"][place]}
                row["accuracy"] = scores["accuracy"][place]
                row["boundary_f1"] = scores["boundary_f1_by_class"][place]
                rows.append(row | {"pixel_share": shares[place]})
    return pd.DataFrame(rows)


def iou_table(runs: Sequence[Run]) -> pd.DataFrame:
    """IoU by class (rows) and run (columns): raw and, of refined runs, refined and the change.

    NaN where a class was never seen.
    """
    columns: dict[tuple[str, str], pd.Series] = {}
    for run in runs:
        for kind in run.kinds:
            values = run.evaluation[kind]["iou"]
            columns[run.name, kind] = pd.Series(values, run.classes, dtype=float)
        if len(run.kinds) == 2:
            change = columns[run.name, "refined"] - columns[run.name, "raw"]
            columns[run.name, "change"] = change
    return pd.DataFrame(columns, index=list(dict.fromkeys(n for run in runs for n in run.classes)))


def confusions_table(runs: Sequence[Run], most: int | None = None) -> pd.DataFrame:
    """Which classes are taken for which: one row per run, kind, true and predicted class.

    Args:
        runs: The runs.
        most: Rows for each run and kind, those with the largest share; None: all that occur.

    Returns:
        `share` is that of the true class's pixels, `pixels` their number; largest share first.
    """
    rows = []
    for run in runs:
        for kind in run.kinds:
            matrix = np.array(run.evaluation[kind]["confusion"])
            true = np.maximum(1, matrix.sum(1, keepdims=True))
            shares = matrix / true
            np.fill_diagonal(shares, 0)
            for flat in np.argsort(-shares, axis=None, kind="stable")[:most]:
                a, b = np.unravel_index(flat, shares.shape)
                if shares[a, b] == 0:
                    break
                row = {"run": run.name, "kind": kind, "true": run.classes[a]}
                row |= {"predicted": run.classes[b], "share": shares[a, b]}
                rows.append(row | {"pixels": int(matrix[a, b])})
    return pd.DataFrame(rows, columns=["run", "kind", "true", "predicted", "share", "pixels"])


def differences_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row for each comparison and measure, IoU by class among them; see `Comparison`."""
    rows = []
    for one in comparisons:
        for place, name in enumerate(measure_names(len(one.classes))):
            measure, _, train_id = name.partition("/")
            rows.append(
                {
                    "level": one.level,
                    "kind": one.kind,
                    "first": one.first.name,
                    "second": one.second.name,
                    "measure": measure,
                    "class": one.classes[int(train_id)] if train_id else "",
                    "difference": one.value[place],
                    "low": one.low[place],
                    "high": one.high[place],
                    "p": one.p[place],
                    "p_holm": one.holm[place],
                    "comparisons": one.tests[place],
                    "shown": bool(one.verdict(place)),
                    "seeds_first": one.first.seeds,
                    "seeds_second": one.second.seeds,
                    "photos": one.photos,
                    "blocks": one.blocks,
                    "sentence": sentence(one, place),
                }
            )
    return pd.DataFrame(rows)


def trimap_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row for each run, kind and half-width of the band around true edges: mean IoU."""
    rows = [
        {"run": run.name, "kind": kind, "half_width_px": int(width), "miou": value}
        for run in runs
        for kind in run.kinds
        for width, value in run.evaluation[kind]["trimap_miou"].items()
    ]
    return pd.DataFrame(rows, columns=["run", "kind", "half_width_px", "miou"])


def calibration_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row for each run, kind and bin of confidence: its pixels, and how many are right.

    `confidence` and `accuracy` are means over the bin's pixels, NaN where it has none; `ece`, the
    expected calibration error, is of the run and kind.
    """
    columns = ["lower", "upper", "pixels", "confidence", "accuracy"]
    rows = []
    for run in runs:
        for kind in run.kinds:
            scores = run.evaluation[kind]["calibration"]
            for one in scores["bins"]:
                row = {"run": run.name, "kind": kind} | {key: one.get(key) for key in columns}
                rows.append(row | {"ece": scores["ece"]})
    return pd.DataFrame(rows, columns=["run", "kind", *columns, "ece"])


def best_in(table: pd.DataFrame) -> dict[str, float]:
    """The best value of each column of scores (most) and costs (least); bold in the tables.

    Seconds have none: they are of the machine that scored a run, and of what else ran on it.
    """
    best = {}
    for column in table.columns:
        if "seconds" in column:
            continue
        choose = "min" if column in COSTS else "max"
        if column in COSTS or column.endswith(tuple(f"_{kind}" for kind in KINDS)):
            values = pd.to_numeric(table[column], errors="coerce")
            if values.notna().sum() > 1:
                best[column] = float(getattr(values, choose)())
    return best


def shown(column: str, value: Any) -> str:
    """A cell as people read it."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if column in ("parameters", "multiply_adds_512"):
        for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
            if value >= factor:
                return f"{value / factor:.3g}{unit}"
        return f"{value:.0f}"
    if column == "peak_memory_mb":
        return f"{value:,.0f}"
    if column in COSTS:
        return f"{value:.3g}"
    return f"{value:.3f}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; names from users stay in their cell and are not markup."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    return "\n".join([line(heads), line(["---"] * len(heads)), *map(line, rows)])


def literal(text: str) -> str:
    """A user's text in Markdown, shown as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", " ".join(text.split()))


def scores_markdown(table: pd.DataFrame) -> str:
    """The comparison table, the best of each column in bold."""
    best = best_in(table)
    columns = [f"{key}_{kind}" for key in SCORES for kind in KINDS] + list(COSTS)
    heads = [f"{title}, {kind}" for title in SCORES.values() for kind in KINDS]

    def bold(column: str, value: Any) -> str:
        text = shown(column, value)
        return f"**{text}**" if value == best.get(column) else text

    rows = [
        [
            literal(row["run"]),
            *(bold(column, row[column]) for column in columns),
            literal(row["weights"]),
            row["role_refined"],
        ]
        for row in table.to_dict("records")
    ]
    return markdown(["run", *heads, *COSTS.values(), "weights", "these photos"], rows)
