"""The table that fit and evaluate end with: class by class, raw beside refined."""

from typing import Any

TOTALS = {
    "miou": "mean IoU",
    "miou_foreground": "mean IoU, no background",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "fw_iou": "frequency-weighted IoU",
    "dice": "mean Dice",
    "boundary_f1": "boundary F1",
}


def table(evaluation: dict[str, Any]) -> str:
    """An evaluation as text: IoU per class raw, refined and their difference, then totals.

    Args:
        evaluation: The content of an `evaluation.json`.
    """
    raw, refined = evaluation["raw"], evaluation["refined"]
    names = evaluation["classes"]
    rows = [
        (name, raw["iou"][index], None if refined is None else refined["iou"][index])
        for index, name in enumerate(names)
    ]
    totals = [
        (title, raw[key], None if refined is None else refined[key])
        for key, title in TOTALS.items()
        if raw[key] is not None
    ]
    totals += [
        (
            f"mean IoU within {width} px of an edge",
            value,
            None if refined is None else refined["trimap_miou"][width],
        )
        for width, value in raw["trimap_miou"].items()
    ]
    width = max(len(title) for title, *_ in rows + totals)
    heads = ["raw"] if refined is None else ["raw", "refined", "change"]
    lines = [f"{'IoU by class':{width}}" + "".join(f"{head:>9}" for head in heads)]
    lines += [_line(*row, width, refined is not None) for row in rows]
    lines += ["-" * len(lines[0])]
    lines += [_line(*row, width, refined is not None) for row in totals]
    return "\n".join([*lines, *_notes(evaluation)])


def _line(title: str, raw: float | None, refined: float | None, width: int, both: bool) -> str:
    cells = [_number(raw)]
    if both:
        change = None if raw is None or refined is None else refined - raw
        cells += [_number(refined), "-" if change is None else f"{change:+.4f}"]
    return f"{title:{width}}" + "".join(f"{cell:>9}" for cell in cells)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _notes(evaluation: dict[str, Any]) -> list[str]:
    photos = evaluation["annotations"]["photos"]
    lines = [f"{photos} photos of {evaluation['annotations']['path']} ({evaluation['split']})"]
    crf = evaluation["crf"]
    if crf is None:
        lines.append("CRF: off")
    else:
        lines.append(f"CRF: {crf['seconds_per_photo']} s per photo ({crf['backend']})")
    lines += [f"Note: {note}" for note in evaluation["notes"]]
    if any(value is None for value in evaluation["raw"]["iou"]):
        lines.append("-: neither in these photos nor predicted; left out of the means.")
    return lines
