from typing import Any

from segment.table import table

TOTALS = {"miou_foreground": 0.3, "pixel_accuracy": 0.4, "mean_accuracy": 0.5, "fw_iou": 0.6,
          "dice": 0.7}  # fmt: skip


def evaluation(refined: dict[str, Any] | None) -> dict[str, Any]:
    """An evaluation of two photos by hand; the second class shows in neither."""
    return {
        "classes": ["Background", "Paper", "Glass"],
        "split": "test",
        "notes": ["a note"],
        "annotations": {"path": "set/test.json", "photos": 2},
        "raw": {
            "iou": [0.75, None, 0.5],
            "miou": 0.625,
            **TOTALS,
            "boundary_f1": 0.8,
            "trimap_miou": {"1": 0.11, "2": 0.22},
        },
        "refined": refined,
        "crf": None if refined is None else {"seconds_per_photo": 0.25, "backend": "pydensecrf"},
    }


def test_raw_stands_before_refined_and_change_is_what_the_refinement_added() -> None:
    refined = {
        "iou": [0.85, None, 0.45],
        "miou": 0.65,
        **TOTALS,
        "boundary_f1": 0.9,
        "trimap_miou": {"1": 0.21, "2": 0.2},
    }
    rows = [line.rsplit(maxsplit=3) for line in table(evaluation(refined)).splitlines()]
    assert rows[:4] == [
        ["IoU by class", "raw", "refined", "change"],
        ["Background", "0.7500", "0.8500", "+0.1000"],
        ["Paper", "-", "-", "-"],
        ["Glass", "0.5000", "0.4500", "-0.0500"],
    ]
    for row in (
        ["mean IoU", "0.6250", "0.6500", "+0.0250"],
        ["pixel accuracy", "0.4000", "0.4000", "+0.0000"],
        ["boundary F1", "0.8000", "0.9000", "+0.1000"],
        ["mean IoU within 1 px of an edge", "0.1100", "0.2100", "+0.1000"],
        ["mean IoU within 2 px of an edge", "0.2200", "0.2000", "-0.0200"],
    ):
        assert row in rows
    assert "2 photos of set/test.json (test)\nCRF: 0.25 s per photo (pydensecrf)\nNote: a note" in (
        table(evaluation(refined))
    )


def test_without_a_crf_there_is_one_column() -> None:
    text = table(evaluation(None))
    rows = [line.rsplit(maxsplit=1) for line in text.splitlines()]
    assert rows[:4] == [["IoU by class", "raw"], ["Background", "0.7500"], ["Paper", "-"],
                        ["Glass", "0.5000"]]  # fmt: skip
    assert "CRF: off" in text
