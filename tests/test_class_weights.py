"""Median-frequency weights that a run counts by itself."""

from pathlib import Path

import pytest
import torch
from conftest import fit_tiny

from segment.data.coco import CocoFile
from segment.data.stats import count
from segment.data.taxonomy import Taxonomy


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_counted_weights_train_as_the_same_ones_written_down(sample: Path, tmp_path: Path) -> None:
    stats = count(CocoFile(sample / "train.json", sample, taxonomy=Taxonomy.load("trash10")))
    given = stats.median_frequency_weights()
    assert given[given > 0].min() < 0.5 * given.max()  # or weighing would change little
    words = {"named": "median_frequency", "listed": str(given.tolist()), "none": "null"}
    trained = {}
    for name, word in words.items():
        (tmp_path / name).mkdir()
        setting = ["--model.init_args.class_weights", word]
        run, _ = fit_tiny(sample, tmp_path / name, *setting)
        trained[name] = last_weights(run)
    for key, value in trained["named"].items():
        torch.testing.assert_close(value, trained["listed"][key], atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(v, trained["none"][k]) for k, v in trained["named"].items())


def test_another_word_is_refused(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit_tiny(sample, tmp_path, "--model.init_args.class_weights", "balanced")
