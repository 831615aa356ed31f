"""BN statistics counted afresh before the network is scored, as SegNet and DeconvNet had it."""

from itertools import islice

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim.swa_utils import update_bn

from segment.modules.base import SegmentationModule


class RecomputedBatchNorm(SegmentationModule):
    """Replaces BN's running averages by averages over the training photos, before each validation.

    Running averages trail behind weights that still change, and forget all but the last steps. The
    pass takes the epoch's crops forward once more; the checkpoints written after the validation
    hold its averages.

    Attributes:
        recompute_batch_norm: Whether this is done; a subclass takes it as an argument.
    """

    recompute_batch_norm: bool

    def use_recomputed_batch_norm(self, wanted: bool) -> None:
        """Turn it on or off.

        Raises:
            ValueError: BN is to stay as it is as well.
        """
        if wanted and self.freeze_batch_norm:
            raise ValueError(
                "model.freeze_batch_norm keeps BN's statistics and model.recompute_batch_norm "
                "replaces them; set one of them to false."
            )
        self.recompute_batch_norm = wanted

    def on_validation_start(self) -> None:
        """Count, in training alone; Lightning's sanity check of validation does not count."""
        trainer = self.trainer
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not (self.recompute_batch_norm and fitting):
            return
        # A loader of its own: the training's may be in the middle of its epoch.
        loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]  # untyped
        loader.sampler.set_epoch(self.current_epoch)
        length = trainer.num_training_batches
        batches = islice(loader, None if length == float("inf") else int(length))
        update_bn((self.pad(batch["image"].to(self.device)) for batch in batches), self.network)
        for layer in self.network.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                # Every process has as many batches as any other, so the mean of means is the mean.
                for average in (layer.running_mean, layer.running_var):
                    assert isinstance(average, torch.Tensor)
                    average.copy_(trainer.strategy.reduce(average, reduce_op="mean"))
