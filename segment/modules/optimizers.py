"""Optimizers and schedules that the papers use, by name."""

from typing import Any, Literal

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

OptimizerName = Literal["sgd", "adam", "adamw"]


def make_optimizer(
    name: OptimizerName, groups: list[dict[str, Any]], lr: float, momentum: float
) -> Optimizer:
    """An optimizer over groups that carry their own rates and decays.

    Args:
        name: `sgd` with momentum, `adam` or `adamw`.
        groups: As torch takes them.
        lr: Rate of a group without its own.
        momentum: Of `sgd`.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, lr=lr)


def make_schedule(
    optimizer: Optimizer, steps: float, power: float, warmup_steps: int = 0
) -> LambdaLR:
    """Rates times (1 - step / steps) ** power, after a linear rise from 0.

    Args:
        optimizer: Its groups keep their proportions.
        steps: Steps of the whole training; infinite only with power 0.
        power: 0.9 is DeepLab's poly; 0 keeps the rate.
        warmup_steps: Steps of the rise; the last of them has the full factor.
    """

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
        return warm * max(0.0, 1 - step / max(1, steps)) ** power

    return LambdaLR(optimizer, factor)
