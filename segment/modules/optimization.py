"""Optimizers, rates and schedules that the papers use, by name."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from segment.architectures.layers import SegmentationNetwork

OptimizerName = Literal["sgd", "adam", "adamw"]
Schedule = Literal["poly", "step", "constant"]


@dataclass(frozen=True)
class Optimization:
    """How a network is trained; `SegmentationModule` says what each setting means.

    Raises:
        ValueError: A setting makes no sense.
    """

    lr: float
    optimizer_name: OptimizerName
    momentum: float
    weight_decay: float
    schedule: Schedule
    power: float
    step_size: int
    gamma: float
    min_lr: float
    warmup_steps: int
    head_lr_factor: float
    bias_lr_factor: float

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ValueError(f"model.lr is {self.lr}; give a learning rate above 0.")
        if self.step_size < 1:
            raise ValueError(f"model.step_size is {self.step_size}; give at least 1 step.")
        for name in (
            *("momentum", "weight_decay", "power", "gamma", "min_lr", "warmup_steps"),
            *("head_lr_factor", "bias_lr_factor"),
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"model.{name} is {getattr(self, name)}; give 0 or more.")

    def groups(self, network: SegmentationNetwork) -> list[dict[str, Any]]:
        """Backbone and head of a network, each with weights and biases, at their own rates."""
        groups: list[tuple[str, list[nn.Parameter], float, float]] = []
        for part, parameters, rate in (
            ("backbone", network.backbone_parameters(), 1.0),
            ("head", network.head_parameters(), self.head_lr_factor),
        ):
            if self.bias_lr_factor == 1:
                groups.append((part, parameters, rate, self.weight_decay))
                continue
            weights = [p for p in parameters if p.ndim > 1]
            biases = [p for p in parameters if p.ndim <= 1]
            groups.append((part, weights, rate, self.weight_decay))
            groups.append((f"{part}_bias", biases, rate * self.bias_lr_factor, 0.0))
        return [
            {"params": params, "lr": self.lr * rate, "weight_decay": decay, "name": name}
            for name, params, rate, decay in groups
            if params
        ]

    def optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimizer over groups that carry their own rates."""
        if self.optimizer_name == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        return kinds[self.optimizer_name](groups, lr=self.lr)

    def scheduler(self, optimizer: Optimizer, steps: float) -> LambdaLR:
        """The schedule, to be stepped after every step of the optimizer.

        Args:
            optimizer: Its groups keep their proportions.
            steps: Steps of the whole training; infinite where nothing ends it.

        Raises:
            ValueError: The schedule must know when training ends, and nothing says so.
        """
        if self.schedule == "poly" and steps == float("inf"):
            raise ValueError(
                "model.schedule is poly, which must know when training ends; set "
                "trainer.max_epochs or trainer.max_steps, or model.init_args.schedule: constant."
            )
        factors: dict[str, Callable[[int], float]] = {
            "poly": lambda step: max(0.0, 1 - step / max(1, steps)) ** self.power,
            "step": lambda step: max(self.gamma ** (step // self.step_size), self.min_lr / self.lr),
            "constant": lambda step: 1.0,
        }
        factor, rise = factors[self.schedule], max(1, self.warmup_steps)
        return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / rise) * factor(step))
