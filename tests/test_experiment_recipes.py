"""The experiments' numbers held to those of papers and released code."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


class Recipe(NamedTuple):
    """What a source names: photos per optimizer step, rate, crop, steps, and fixed settings."""

    photos: int
    lr: float
    crop: int | None = None
    steps: int | None = None
    settings: dict[str, Any] = {}


V1 = Recipe(20, 1e-3, 321, 6000, {"schedule": "step", "step_size": 2000, "head_lr_factor": 10.0})
V3 = Recipe(16, 0.007, 513, 30000, {"weight_decay": 1e-4})
TF = {"weight_decay": 4e-5}  # of Google's release for Xception and MobileNet
RECIPES = {
    # Release: 1e-10 for a loss summed over pixels, here a mean over 512x512; then a hundredth each.
    "fcn32s": Recipe(1, 1e-10 * 512**2, None, 100000, {"momentum": 0.99, "weight_decay": 5e-4}),
    "fcn16s": Recipe(1, 1e-12 * 512**2, None, 100000, {"momentum": 0.99}),
    "fcn8s": Recipe(1, 1e-14 * 512**2, None, 100000, {"momentum": 0.99}),
    "fcn8s_at_once": Recipe(1, 1e-10 * 512**2, None, 300000, {"momentum": 0.99}),
    "fcn32s_alexnet": Recipe(20, 1e-4, None, None, {"momentum": 0.9}),
    "deconvnet_stage1": Recipe(64, 0.01, 224, 20000, {"step_size": 9000, "gamma": 0.1}),
    "deconvnet_stage2": Recipe(64, 0.01, 224, 40000, {"step_size": 10000, "gamma": 0.1}),
    "segnet": Recipe(5, 1e-3, None, 40000, {"class_weights": "median_frequency"}),
    "segnet_basic": Recipe(12, 0.1, None, 10000, {"class_weights": "median_frequency"}),
    "unet": Recipe(1, 1e-4, 572, None, {"momentum": 0.99, "border_weight": 10, "border_sigma": 5}),
    "deeplab_v1": V1,
    "deeplab_v1_4x4": V1,
    "deeplab_v1_7x7": V1,
    "deeplab_v1_msc": V1,
    "deeplab_v2_vgg16": Recipe(10, 1e-3, 321, 20000, {"weight_decay": 5e-4}),
    "deeplab_v2_resnet101": Recipe(10, 2.5e-4, 321, 20000, {"weight_decay": 5e-4}),
    "deeplab_v3_os16": V3,
    "deeplab_v3_os8": V3._replace(lr=1e-3, settings={"freeze_batch_norm": True}),
    "deeplab_v3_lite0": V3._replace(settings=TF),
    "deeplab_v3plus_resnet101": V3,
    "deeplab_v3plus_xception65": V3._replace(settings=TF),
    "deeplab_v3plus_lite0": V3._replace(settings=TF),
    "frrn_a": Recipe(3, 1e-3, None, None, {"step_size": 5000, "gamma": 1 / 1.25}),
    "frrn_b": Recipe(3, 1e-3, None, None, {"step_size": 5000, "gamma": 1 / 1.25}),
    "semantic_fpn_resnet50": Recipe(32, 0.01, None, 65000, {"weight_decay": 1e-4}),
    "contextual": Recipe(8, 0.01),
}


@pytest.mark.parametrize("name", RECIPES)
def test_an_experiment_trains_as_its_source_says(name: str) -> None:
    recipe = RECIPES[name]
    experiment = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text())
    model, data, trainer = (experiment[key] for key in ("model", "data", "trainer"))
    assert data["batch_size"] * trainer.get("accumulate_grad_batches", 1) == recipe.photos
    assert model["init_args"]["lr"] == pytest.approx(recipe.lr, rel=0.02)
    given = {key: model["init_args"][key] for key in recipe.settings}
    assert given == recipe.settings
    if recipe.crop is not None:
        assert data["crop_size"] == recipe.crop
    if recipe.steps is not None:
        assert trainer["max_steps"] == recipe.steps
