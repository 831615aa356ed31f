"""What a whole training keeps and logs, with scores that rise and fall as the test has them."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import fit_tiny

from segment.modules import SegmentationModule

LR = 1e-3  # PlainFCNModule's own


@pytest.fixture(scope="module")
def trained(
    sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[dict[str, str]]]:
    """The folder, the evaluation and the log of three epochs, of which the second scores best."""
    root = tmp_path_factory.mktemp("trained")
    validate = SegmentationModule.validation_step

    def set_then_validate(self: SegmentationModule, *args: Any) -> None:
        # Labels all over, drawn at random; in the second epoch mostly background, as in the photos.
        score = self.network.score
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            score.weight.normal_(std=3.0, generator=generator)
            score.bias.zero_()[0] = 12.0 if self.current_epoch == 1 else 0.0
        validate(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationModule, "validation_step", set_then_validate)
        logger = "--trainer.logger.class_path", "lightning.pytorch.loggers.CSVLogger"
        run, evaluation = fit_tiny(
            sample, root, *logger, "--trainer.logger.init_args.save_dir", str(root / "log")
        )
    (log,) = (root / "log").rglob("metrics.csv")
    return run, evaluation, list(csv.DictReader(log.open()))


def column(log: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in log if row.get(name)]


def test_the_best_checkpoint_is_of_the_epoch_with_the_highest_miou(trained: tuple) -> None:
    run, _, log = trained
    mious = column(log, "val/miou")
    assert len(mious) == 3
    assert mious[1] > 2 * max(mious[0], mious[2])
    for name, epoch in (("best", 1), ("last", 2)):
        checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert checkpoint["epoch"] == epoch
    monitored = [state.get("best_model_score") for state in checkpoint["callbacks"].values()]
    assert [float(score) for score in monitored if score is not None] == [
        pytest.approx(mious[1], rel=1e-6)
    ]


def test_validation_logs_what_the_evaluation_finds(trained: tuple) -> None:
    _, evaluation, log = trained
    raw = evaluation["raw"]
    expected = {f"val/{key}": raw[key] for key in ("miou", "miou_foreground", "pixel_accuracy")}
    names = evaluation["classes"]
    expected |= {f"val/iou/{name}": iou for name, iou in zip(names, raw["iou"], strict=True)}
    assert len({round(iou, 4) for iou in raw["iou"]}) > 3  # or swapped classes would go unnoticed
    for key, value in expected.items():
        assert column(log, key)[1] == pytest.approx(value, rel=1e-6), key


def test_the_rate_falls_with_every_step_as_poly_has_it(trained: tuple) -> None:
    _, _, log = trained
    # Three epochs of three steps.
    expected = [LR * (1 - step / 9) ** 0.9 for step in range(9)]
    assert column(log, "train/rate/head") == pytest.approx(expected, rel=1e-5)
