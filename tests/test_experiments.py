"""Every experiment parses, builds, and takes a training and an evaluation step."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml

import segment.modules
from segment.cli import SegmentCLI
from segment.fit import _arguments

FOLDER = Path(__file__).parents[1] / "experiments"
EXPERIMENTS = sorted(FOLDER.glob("*.yaml"))

# Nothing is downloaded, no run before is at hand, and layers are thinner where the paper's network
# has a `width`: what the YAML says of the rest is as it stands.
SMALL = {"pretrained": "false", "weights": "null", "deconvnet_weights": "null",
         "fcn8s_weights": "null", "num_classes": "11"}  # fmt: skip
WIDTHS = {"FRRNModule": 3, "SemanticFPNModule": 64}  # others: 4
FULL_WIDTH = {"plain_fcn_context", "fcn8s_lite0", "crf_rnn_lite0"}  # these have no narrower form


def test_the_experiments_are_found() -> None:
    assert {"deeplab_crf", "smoke", "garbage6", "bags"} <= {path.stem for path in EXPERIMENTS}


def test_every_module_has_an_experiment() -> None:
    used = {yaml.safe_load(path.read_text())["model"]["class_path"] for path in EXPERIMENTS}
    names = {f"segment.modules.{name}" for name in segment.modules.__all__}
    assert names - used == {"segment.modules.SegmentationModule"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_an_experiment_takes_a_step(path: Path, sample: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    name = content["model"]["class_path"].rsplit(".", 1)[1]
    accepted = {
        key
        for kind in getattr(segment.modules, name).__mro__
        if hasattr(kind, "__init__")
        for key in inspect.signature(kind.__init__).parameters
    }
    model = {key: value for key, value in SMALL.items() if key in accepted}
    if "width" in accepted and path.stem not in FULL_WIDTH:
        model["width"] = WIDTHS.get(name, 4)
    # Without padding U-Net takes no less; a dilated 7x7 convolution takes a CPU minutes for more.
    crop_size = {"unet": 188, "deeplab_v1_7x7": 17}.get(path.stem, 64)
    data = {"root": sample, "taxonomy": "trash10", "sample": "null", "train": "train.json",
            "val": "val.json", "crop_size": crop_size, "short_side": min(64, crop_size),
            "batch_size": 2, "workers": 0}  # fmt: skip
    trainer = {"max_steps": -1, "max_epochs": 1, "limit_train_batches": 0.25,
               "limit_val_batches": 0.2, "accelerator": "cpu",
               "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "32-true",
               "logger": "false", "enable_checkpointing": "false", "num_sanity_val_steps": 0,
               "enable_progress_bar": "false", "default_root_dir": tmp_path,
               "accumulate_grad_batches": 1, "val_check_interval": "null",
               "check_val_every_n_epoch": 1}  # fmt: skip
    args = ["--config", str(path)]
    for group, settings in (("model.init_args", model), ("data", data), ("trainer", trainer)):
        for key, value in settings.items():
            args += [f"--{group}.{key}", str(value)]
    torch.manual_seed(0)
    cli = SegmentCLI(args, "fit", _arguments)
    assert yaml.safe_load(cli.resolved())["experiment"] == path.stem
    before = {key: value.clone() for key, value in cli.model.network.named_parameters()}
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert cli.trainer.global_step == 1
    assert "val/miou" in cli.trainer.callback_metrics
    after = dict(cli.model.network.named_parameters())
    assert any(not torch.equal(after[key], value) for key, value in before.items())
    assert all(value.isfinite().all() for value in after.values())
