"""What a training shows: a calm progress bar, and no advice that has nothing to do with it."""

import logging
import time
import warnings
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

REDRAW_SECONDS = 0.1

ADVERTS = (
    "\N{ELECTRIC LIGHT BULB} Tip",
    "Loading `train_dataloader` to estimate",
    "TPU available",
)
KNOWN_WARNINGS = (
    r".*does not have many workers",  # `data.workers` is the user's choice
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    r"Found \d+ module\(s\) in eval mode",  # `freeze_batch_norm` does that on purpose
    r".*treespec, LeafSpec",
    r"Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its folder
)


def quiet() -> None:
    """Drop Lightning's adverts, and its warnings about what is meant to be so."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(_is_about_this_run)  # the same function twice counts once
    for message in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message)


def _is_about_this_run(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(ADVERTS)


class CalmProgressBar(TQDMProgressBar):
    """Lightning's bar, redrawn ten times a second at most.

    Lightning redraws after every step, and W&B records every redraw: milliseconds a step.
    """

    drawn = 0.0

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The loss and the score, without the id of the W&B run."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown

    def _is_due(self, done: int, total: float | int | None) -> bool:
        if done != total and time.monotonic() - self.drawn < REDRAW_SECONDS:
            return False
        self.drawn = time.monotonic()
        return True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw if it is time, and after the last step."""
        if self._is_due(batch_idx + 1, self.total_train_batches):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Redraw if it is time, and after the last photo."""
        if self._is_due(batch_idx + 1, self.total_val_batches_current_dataloader):
            super().on_validation_batch_end(
                trainer, pl_module, outputs, batch, batch_idx, dataloader_idx
            )
