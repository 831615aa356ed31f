"""SegmentationModule: everything the papers share about training and evaluating a network."""

import math
from contextvars import ContextVar
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.layers import SegmentationNetwork
from segment.architectures.pretrained import load_weights
from segment.data.stats import count
from segment.data.taxonomy import Taxonomy
from segment.data.transforms import evaluation_image
from segment.labels import labels_of
from segment.metrics import SegmentationScores
from segment.modules.losses import cross_entropy, weights_of
from segment.modules.optimization import Optimization, OptimizerName, Schedule
from segment.seeds import mix_seed, run_seed

Batch = dict[str, Tensor]

# Set while a module is built for a checkpoint that replaces all its weights: the file that
# they once started from need not exist any more.
WEIGHTS_FOLLOW: ContextVar[bool] = ContextVar("weights_follow", default=False)


class SegmentationModule(LightningModule):
    """Wraps one network: normalization, padding, loss, schedule, scores, checkpoints.

    A subclass calls `save_hyperparameters()`, builds its network from numbers and names, and
    hands it to `wrap`. What its paper says about training goes into its default arguments.

    Args:
        num_classes: Number of classes C, background included.
        lr: Learning rate of the backbone at the first step.
        optimizer: `sgd` with momentum as in the papers, or `adam`, `adamw`.
        momentum: Momentum of `sgd`.
        weight_decay: L2 penalty.
        schedule: `poly` lowers the rate as (1 - step / steps) ** power; `step` multiplies it by
            `gamma` every `step_size` steps; `constant` keeps it.
        power: Exponent of `poly`.
        step_size: Optimizer steps between the drops of `step`.
        gamma: Factor of each drop of `step`.
        min_lr: Rate of the backbone below which `step` does not go.
        warmup_steps: Steps over which the rate first rises linearly from 0.
        head_lr_factor: Rate of the layers that start anew over that of the others.
        bias_lr_factor: Rate of biases and norms over that of the weights beside them. Caffe's
            papers have 2; other than 1 it also takes the L2 penalty off them.
        freeze_batch_norm: Keep the backbone's BN statistics and affine maps as they are.
        class_weights: One weight per class for the cross-entropy; `median_frequency` counts them
            on the training photos, as `segment.prepare stats` does; null weighs all alike.
        weights: Checkpoint of the same architecture to start from; score layers start anew where
            the number of classes differs, and where an earlier stage of training had none.
    """

    mean: Tensor
    std: Tensor
    class_weights: Tensor | None
    val_scores: SegmentationScores
    network: SegmentationNetwork
    pretrained_on = "ImageNet"  # what `pretrained: true` loads the weights of
    starts_from: tuple[str, ...] = ("weights",)  # arguments that name checkpoints to start from
    refines_itself = False  # whether `probabilities` have been through a CRF of the module's own
    wants_instances = False  # whether `loss` takes them too: int64 (N, H, W), a number per object

    def __init__(
        self,
        num_classes: int,
        lr: float = 1e-3,
        optimizer: OptimizerName = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        schedule: Schedule = "poly",
        power: float = 0.9,
        step_size: int = 2000,
        gamma: float = 0.1,
        min_lr: float = 0.0,
        warmup_steps: int = 0,
        head_lr_factor: float = 1.0,
        bias_lr_factor: float = 1.0,
        freeze_batch_norm: bool = False,
        class_weights: list[float] | Literal["median_frequency"] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"model.num_classes is {num_classes}; give at least 2.")
        self.num_classes = num_classes
        self.optimization = Optimization(
            lr,
            optimizer,
            momentum,
            weight_decay,
            schedule,
            power,
            step_size,
            gamma,
            min_lr,
            warmup_steps,
            head_lr_factor,
            bias_lr_factor,
        )
        self.freeze_batch_norm = freeze_batch_norm
        self._weights = weights
        self.taxonomy: Taxonomy | None = None
        self.short_side: int | None = None
        self.trained_on: dict[str, str] = {}  # sha256 of the annotation files, by split
        self._balances = class_weights == "median_frequency"  # once there are photos to count
        weighting = (
            None if isinstance(class_weights, str) else weights_of(class_weights, num_classes)
        )
        self.register_buffer("class_weights", weighting, persistent=False)

    def wrap(self, network: SegmentationNetwork) -> None:
        """Take the network, its normalization and, where asked for, its starting weights."""
        # Channels last: on CPUs dilated and depthwise convolutions take half the time, and on GPUs
        # tensor cores want it.
        self.network = network.to(memory_format=torch.channels_last)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(network, name)).view(3, 1, 1) * 255
            self.register_buffer(name, values, persistent=False)
        if self._weights is not None and not WEIGHTS_FOLLOW.get():
            from segment.modules.loading import read_weights  # it needs this class

            anew = load_weights(
                network, read_weights(self._weights, type(network).__name__), self._weights
            )
            if anew:
                rank_zero_info(
                    f"{self._weights}: fits all but {', '.join(anew)}, which start anew."
                )
        if self.freeze_batch_norm:
            for parameter in self._frozen():
                parameter.requires_grad_(False)

    # ---- pixels to scores

    def pad(self, image: Tensor) -> Tensor:
        """Normalize uint8 (N, 3, H, W) and pad it with zeros, bottom and right, to a valid size."""
        height, width = image.shape[-2:]
        valid = self.network.valid_size(height, width)
        normal = (image - self.mean) / self.std
        padded = F.pad(normal, (0, valid[1] - width, 0, valid[0] - height))
        return padded.contiguous(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: Photos, uint8 RGB (N, 3, H, W), of any size.

        Returns:
            Logits, float (N, C, H, W).
        """
        height, width = image.shape[-2:]
        return self.network(self.pad(image))[..., :height, :width]

    def probabilities(self, image: Tensor) -> Tensor:
        """What evaluation and prediction start from.

        Args:
            image: Photos at their own size, uint8 RGB (N, 3, H, W).

        Returns:
            Probabilities, float32 (N, C, h, w), at `short_side` or the photo's own size.
        """
        logits = self(evaluation_image(image, self.short_side))
        # In place: for a 12-megapixel photo with 60 classes this is the largest tensor of all.
        logits = logits.float().sub_(logits.amax(1, keepdim=True)).exp_()
        return logits.div_(logits.sum(1, keepdim=True))

    # ---- training

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """The training loss of a batch; a paper with another one overrides this."""
        return self.cross_entropy(self(image), mask)

    def cross_entropy(self, logits: Tensor, mask: Tensor) -> Tensor:
        """`losses.cross_entropy` with the class weights that were configured."""
        return cross_entropy(logits, mask, self.class_weights)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout from (seed, epoch, step, rank): a resumed run then draws the same."""
        seed = mix_seed(run_seed(), self.current_epoch, batch_idx, self.global_rank)
        # torch.manual_seed takes milliseconds where there is no GPU: it notes a stack for each.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step of the optimizer; logs `train/loss`."""
        # Image and mask, and instances where they were wanted.
        loss = self.loss(**{key: batch[key] for key in batch if key != "image_id"})
        # Looking at a value makes a GPU wait, so not at every step.
        if batch_idx % 50 == 0 or self.trainer.is_last_batch:
            self._refuse_divergence(loss.item())
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["mask"]))
        return loss

    def _refuse_divergence(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                f"the training loss is {loss} in epoch {self.current_epoch}, so training has "
                f"diverged; lower model.init_args.lr, which is {self.optimization.lr}."
            )

    def train(self, mode: bool = True) -> "SegmentationModule":
        """As in torch, but frozen batch normalization stays in evaluation mode."""
        super().train(mode)
        if mode and self.freeze_batch_norm:
            self._frozen()
        return self

    def _frozen(self) -> list[nn.Parameter]:
        """Put the backbone's BN layers into evaluation mode; their parameters."""
        own = {id(p) for p in self.network.backbone_parameters()}
        frozen = []
        for layer in self.network.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                parameters = list(layer.parameters())
                if all(id(parameter) in own for parameter in parameters):
                    layer.eval()
                    frozen += parameters
        return frozen

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer with per-layer rates, and the schedule, stepped after every step."""
        optimizer = self.optimization.optimizer(self.parameter_groups())
        schedule = self.optimization.scheduler(optimizer, self.trainer.estimated_stepping_batches)
        # Lightning's monitor of rates takes the name, and adds that of each group of parameters.
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "train/rate"},
        }

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer trains, at which rates; a paper with other rates overrides this."""
        return self.optimization.groups(self.network)

    # ---- validation during training: raw scores only, on the device

    def setup(self, stage: str) -> None:
        """Learn from the data what a checkpoint must know to be used without them."""
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return
        taxonomy = data.taxonomy
        self.check_taxonomy(taxonomy)
        if taxonomy.num_classes != self.num_classes:
            raise ValueError(
                f"model.init_args.num_classes is {self.num_classes}, but the taxonomy "
                f"{taxonomy.name} has {taxonomy.num_classes} classes "
                f"({', '.join(taxonomy.classes)}); make them equal."
            )
        self.taxonomy, self.short_side = taxonomy, data.short_side
        data.instances = self.wants_instances
        if stage == "fit":
            files = {split: data.read(split).sha256 for split in ("train", "val")}
            if self.trained_on.get("val", files["val"]) != files["val"]:
                raise ValueError(
                    f"data.val is another file than the one whose scores chose this run's best "
                    f"checkpoint ({data.files['val']}); keep that, or start a new run with "
                    f"--model.init_args.weights."
                )
            self.trained_on = files
            if self._balances:
                counted = count(data.read("train")).median_frequency_weights()
                self.class_weights = weights_of(counted.tolist(), self.num_classes)
            self.val_scores = SegmentationScores(self.num_classes, taxonomy.background)

    def check_taxonomy(self, taxonomy: Taxonomy) -> None:
        """Refuse the data's taxonomy where a checkpoint knows another.

        Raises:
            ValueError: It has other classes, or another background.
        """
        known, given = self.taxonomy, (taxonomy.classes, taxonomy.background)
        if known is not None and (known.classes, known.background) != given:
            raise ValueError(
                f"the checkpoint knows the classes {', '.join(known.classes)}; data.taxonomy "
                f"gives {', '.join(taxonomy.classes)}; take the checkpoint's own."
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one photo at the size of its annotation."""
        self.val_scores.to(self.device)
        mask = batch["mask"]
        ids = labels_of(self.probabilities(batch["image"])[0], (mask.shape[1], mask.shape[2])).ids
        self.val_scores.update_confusion(ids[None].long(), mask)

    def on_validation_epoch_end(self) -> None:
        """Log `val/miou`, which chooses the checkpoint, and the IoU of every class."""
        scores = self.val_scores.compute()
        self.val_scores.reset()
        assert self.taxonomy is not None
        overall = {
            f"val/{key}": scores[key] for key in ("miou", "miou_foreground", "pixel_accuracy")
        }
        by_class = {
            f"val/iou/{name}": value
            for name, value in zip(self.taxonomy.classes, scores["iou"], strict=True)
        }
        known = {key: value for key, value in {**overall, **by_class}.items() if value is not None}
        # The scores are summed over processes already; sync_dist only keeps Lightning quiet.
        known["val/miou"] = scores["miou"] or 0.0
        for key, value in known.items():
            self.log(key, value, prog_bar=key == "val/miou", sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities of one photo; `segment.evaluate` scores them raw and refined."""
        return self.probabilities(batch["image"])

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what a reader of the file alone must know."""
        checkpoint["segment"] = {
            "class_name": type(self).__name__,
            "taxonomy": None if self.taxonomy is None else self.taxonomy.to_dict(),
            "short_side": self.short_side,
            "trained_on": self.trained_on,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` stored, unless `setup` has learnt it from the data."""
        stored = checkpoint["segment"]
        if self.taxonomy is None and stored["taxonomy"] is not None:
            self.taxonomy = Taxonomy.from_dict(stored["taxonomy"])
            self.short_side, self.trained_on = stored["short_side"], stored["trained_on"]
