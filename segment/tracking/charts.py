"""Charts of scores, drawn by W&B from tables: one chart over classes, not one per class."""

from collections.abc import Mapping, Sequence
from typing import Any

import wandb
from wandb.plot.custom_chart import CustomChart


def iou_chart(ious: Mapping[str, float | None], title: str) -> CustomChart:
    """Bars of IoU, one per name; a class without an IoU has none."""
    rows: list[Any] = [[name, value] for name, value in ious.items() if value is not None]
    table = wandb.Table(columns=["class", "IoU"], data=rows)
    return wandb.plot.bar(table, "class", "IoU", title)


def iou_before_and_after(evaluation: Mapping[str, Any]) -> CustomChart:
    """Bars of an evaluation's IoU: each class raw, and refined beside it where there is a CRF."""
    kinds = [kind for kind in ("raw", "refined") if evaluation[kind] is not None]
    bars = {
        f"{name} {kind}": evaluation[kind]["iou"][index]
        for index, name in enumerate(evaluation["classes"])
        for kind in kinds
    }
    return iou_chart(bars, f"IoU by class, {' and '.join(kinds)}")


def confusion_chart(
    confusion: Sequence[Sequence[int]], names: Sequence[str], title: str
) -> CustomChart:
    """A confusion matrix of pixels: rows are the truth."""
    cells: list[Any] = [
        [names[i], names[j], count]
        for i, row in enumerate(confusion)
        for j, count in enumerate(row)
    ]
    columns = ["Actual", "Predicted", "nPredictions"]
    table = wandb.Table(columns=[*columns], data=cells)
    return wandb.plot_table(
        "wandb/confusion_matrix/v1", table, {name: name for name in columns}, {"title": title}
    )
