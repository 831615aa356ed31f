"""Every module's defaults, against what its paper or release trains with."""

import inspect
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch.optim import SGD, Adam, AdamW

from segment import modules

STEPS = 10_000  # of the training
CONSTANT = dict.fromkeys((0, 5000, 9999), 1.0)
POLY = {0: 1.0, 5000: 0.5**0.9, 9999: 0.0001**0.9}


def drops(every: int, factor: float, floor: float = 0.0) -> dict[int, float]:
    """By step, what the rate is multiplied by."""
    return {0: 1.0, every - 1: 1.0, every: factor, 2 * every: factor**2, 99 * every: floor}


class Recipe(NamedTuple):
    optimizer: type
    lr: float  # of the weights; biases and depthwise convolutions have tests of their own
    momentum: float | None
    weight_decay: float
    schedule: dict[int, float]
    freeze_batch_norm: bool = False
    head_factor: float = 1.0


# Where no source names a value, it is the choice that the module's docstring tells.
RECIPES = {
    "PatchCNNModule": Recipe(SGD, 1e-2, 0.0, 0.0, CONSTANT),
    "PlainFCNModule": Recipe(Adam, 1e-3, None, 5e-4, POLY),
    "FCNModule": Recipe(SGD, 1.9e-5, 0.99, 5e-4, CONSTANT),
    "CRFRNNModule": Recipe(SGD, 1.9e-8, 0.99, 5e-4, CONSTANT),
    "TorchvisionFCNModule": Recipe(SGD, 0.02, 0.9, 1e-4, POLY),
    "TorchvisionDeepLabV3Module": Recipe(SGD, 0.02, 0.9, 1e-4, POLY),
    "DeconvNetModule": Recipe(SGD, 0.01, 0.9, 5e-4, drops(9000, 0.1)),
    "EDeconvNetModule": Recipe(SGD, 1e-12, 0.9, 5e-4, CONSTANT),
    "SegNetModule": Recipe(SGD, 1e-3, 0.9, 5e-4, CONSTANT),
    "SegNetBasicModule": Recipe(SGD, 0.1, 0.9, 5e-4, CONSTANT),
    "UNetModule": Recipe(SGD, 1e-4, 0.99, 0.0, CONSTANT),
    "DeepLabV1Module": Recipe(SGD, 1e-3, 0.9, 5e-4, drops(2000, 0.1), head_factor=10),
    "DeepLabV2Module": Recipe(SGD, 1e-3, 0.9, 5e-4, POLY, freeze_batch_norm=True, head_factor=10),
    "DeepLabV3Module": Recipe(SGD, 0.007, 0.9, 1e-4, POLY),
    "DeepLabV3PlusModule": Recipe(SGD, 0.007, 0.9, 4e-5, POLY),
    "FRRNModule": Recipe(Adam, 1e-3, None, 0.0, drops(5000, 1 / 1.25, 5e-5 / 1e-3)),
    "SemanticFPNModule": Recipe(SGD, 0.01, 0.9, 1e-4, POLY, freeze_batch_norm=True),
    "DeepContextualNetworkModule": Recipe(SGD, 0.01, 0.9, 5e-4, drops(8000, 0.1)),
    "UpsamplingNetModule": Recipe(AdamW, 1e-3, None, 0.01, POLY),
}


def test_every_module_has_a_recipe() -> None:
    assert set(RECIPES) == set(modules.__all__) - {"SegmentationModule"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_module_trains_as_its_paper_says(name: str) -> None:
    recipe, module_class = RECIPES[name], getattr(modules, name)
    settings: dict[str, Any] = {"num_classes": 21}
    if "pretrained" in inspect.signature(module_class).parameters:
        settings["pretrained"] = False
    with torch.device("meta"):
        module = module_class(**settings)
    assert module.freeze_batch_norm == recipe.freeze_batch_norm
    module._trainer = SimpleNamespace(estimated_stepping_batches=STEPS)
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert type(optimizer) is recipe.optimizer
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert groups.keys() & {"backbone", "head"}
    for part, factor in (("backbone", 1.0), ("head", recipe.head_factor)):
        if part in groups:
            assert groups[part]["initial_lr"] == pytest.approx(factor * recipe.lr)
            assert groups[part]["weight_decay"] == recipe.weight_decay
            assert groups[part].get("momentum") == recipe.momentum
    found = {step: scheduler.lr_lambdas[0](step) for step in recipe.schedule}
    assert found == pytest.approx(recipe.schedule)
