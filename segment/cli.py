"""SegmentCLI: one YAML -> trainer, model, data, crf.

    seed_everything: 0
    model: {class_path: segment.modules.DeepLabV2Module, init_args: {num_classes: 11}}
    data: {root: data/taco, train: train.json, val: val.json}
    crf: {iterations: 10}          # null switches the refinement off
    trainer: {max_epochs: 100}     # everything lightning.Trainer takes

Every setting can be given on the command line too: `--data.batch_size 4`, `--crf null`.
"""

import os
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonargparse
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.strategies import DDPStrategy
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from segment.arguments import named_run
from segment.cli_errors import SegmentParser, check_files, no_module, refuse_model, stop
from segment.console import CalmProgressBar, quiet
from segment.cost import StepTimer
from segment.crf import DenseCRF
from segment.data.datamodule import TrashDataModule
from segment.files import write_atomically
from segment.modules import SegmentationModule
from segment.modules.base import WEIGHTS_FOLLOW
from segment.runs import (
    AtomicCheckpointIO,
    KeepConfig,
    RunCheckpoint,
    SaveInterrupted,
    config_of,
    hold,
    new_run,
    read_config,
    remove_rubbish,
)
from segment.tracking import LogPredictions, LogRun, Tracker

# A YAML names classes to import, and importing runs code: only these packages are looked into.
TRUSTED = ["segment", "lightning", "torch", "torchmetrics"]
RUN_VARIABLE = "SEGMENT_RUN"  # how the processes that Lightning starts learn the run folder


class SyncBatchNorms(LayerSync):
    """Statistics over all processes; timm's layers of norm and activation in one included.

    torch's converter would make plain norms of those, and drop the activation.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Convert every batch normalization of a module."""
        return convert_sync_batchnorm(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Nothing: the module is not used after its trainer."""
        return model


class CheckCRF(Callback):
    """Refuses a CRF that cannot refine the photos to be scored, before anything is trained."""

    def __init__(self, crf: DenseCRF) -> None:
        self.crf = crf

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hold the CRF against the number of classes and every photo's size."""
        assert isinstance(pl_module, SegmentationModule)
        data: TrashDataModule = trainer.datamodule  # type: ignore[attr-defined]  # untyped
        for photo in data.read("val" if stage == "fit" else data.split).photos:
            self.crf.check_fits(pl_module.num_classes, photo.height, photo.width)


class SegmentCLI(LightningCLI):
    """Parses an experiment and builds its parts; the verbs run them.

    Args:
        args: Command line after the verb.
        verb_arguments: Adds the verb's own options to the parser.
    """

    model: SegmentationModule
    datamodule: TrashDataModule
    trainer: Trainer

    def __init__(
        self,
        args: Sequence[str],
        verb: str,
        verb_arguments: Callable[[jsonargparse.ArgumentParser], None],
    ) -> None:
        jsonargparse.set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=TRUSTED)
        self.verb, self.verb_arguments = verb, verb_arguments
        quiet()
        super().__init__(
            SegmentationModule,
            TrashDataModule,
            args=self._with_config(list(args)),
            run=False,
            subclass_mode_model=True,
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            parser_class=SegmentParser,
            parser_kwargs={"prog": f"python -m segment.{verb}"},
            trainer_defaults={
                "log_every_n_steps": 10,
                "use_distributed_sampler": False,
                "enable_model_summary": False,
            },
        )

    def _with_config(self, args: list[str]) -> list[str]:
        """Put the configuration of the run that is resumed or evaluated before all else."""
        run = named_run(args)
        return args if run is None else ["--config", str(config_of(run)), *args]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The keys beside trainer, model and data."""
        parser.add_argument(
            "--experiment", type=str | None, help="Name of the run's folder; null: the YAML's name."
        )
        parser.add_argument(
            "--crf",
            type=DenseCRF | None,
            default=None,
            sub_configs=True,
            help="The fully connected CRF: settings, a YAML file of settings, or null.",
        )
        self.verb_arguments(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, without Lightning's warning about arguments passed from Python."""
        if not any(re.match(r"(-c|--config|-h|--help)(=|$)", word) for word in args):
            stop(
                "no run given; name one, for instance --run runs/smoke/2026-01-31_12-00-00."
                if self.verb != "fit"
                else "no experiment given; name one, for instance --config experiments/smoke.yaml."
            )
        check_files(args, {action.dest.split(".")[0] for action in parser._actions})
        if named_run(args) is not None:
            refuse_model(args, self.verb)
        self.config = parser.parse_args(args)
        if self.config.experiment is None:
            self.config.experiment = Path(self.config.config[0].relative).stem
        name = self.config.experiment
        if name in ("", "..") or Path(name).name != name:
            stop(f"experiment is {name!r}; give a name, not a path.")
        if self.config.model.class_path.endswith(".SegmentationModule"):
            stop(no_module("left out, or SegmentationModule, which has no network of its own"))

    def before_instantiate_classes(self) -> None:
        """Set what Lightning leaves at unwelcome defaults."""
        trainer = self.config.trainer
        if "run" in self.config:  # evaluate: the checkpoint itself says what its module is
            del self.config["model"]
            own = read_config(Path(self.config.run))
            if self.config.data.root != own["data"]["root"]:
                self.config.data.sample = None  # other photos: nothing is to be generated there
        # The parser makes a float of 1, which means all.
        for name, whole in (("limit_test_batches", (None, 1.0)), ("fast_dev_run", (False,))):
            if trainer[name] not in whole:
                raise ValueError(
                    f"trainer.{name} is {trainer[name]}, but scores are of all photos of a split; "
                    f"leave it out, and for fewer photos name a json of those in data."
                )
        self.root = trainer.default_root_dir or "runs"
        if trainer.strategy == "ddp":
            # Lightning's own waits half an hour (gloo) for a process that died.
            trainer.strategy = DDPStrategy(timeout=timedelta(minutes=10))

    def instantiate_classes(self) -> None:
        """Build trainer, model and data; where a checkpoint follows, without starting weights."""
        resumed = self.config.get("resume")
        if resumed is None or not (Path(resumed) / "checkpoints" / "last.ckpt").is_file():
            super().instantiate_classes()
            return
        given, self.config = self.config, self.config.clone()
        if "pretrained" in self.config.model.init_args:
            self.config.model.init_args.pretrained = False
        token = WEIGHTS_FOLLOW.set(True)
        try:
            super().instantiate_classes()
        finally:
            WEIGHTS_FOLLOW.reset(token)
        self.config = given  # what config.yaml says

    @property
    def crf(self) -> DenseCRF | None:
        """The refinement, or None where it is off."""
        return self.config_init.crf

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with whole checkpoints; `start_run` adds the rest."""
        plugins = self.config_init.trainer.plugins or []
        kwargs["plugins"] = [
            *(plugins if isinstance(plugins, list) else [plugins]),
            AtomicCheckpointIO(),
        ]
        if self.config.trainer.sync_batchnorm:
            kwargs["plugins"].append(SyncBatchNorms())
            kwargs["sync_batchnorm"] = False  # Lightning's own loses activations
        if self.verb != "fit" or self.config.trainer.logger in (True, None):
            # The log is the training's; and Lightning's default advises to install two packages.
            kwargs["logger"] = False
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # untyped
        callbacks[:] = [
            CalmProgressBar() if type(one) is TQDMProgressBar else one for one in callbacks
        ]
        if self.crf is not None:
            callbacks.insert(0, CheckCRF(self.crf))
        return trainer

    def start_run(self, resume: Path | None) -> Path:
        """Make (or take up) the run folder and attach what a training writes to it."""
        trainer = self.trainer
        on_cpu = trainer.strategy.root_device.type == "cpu"
        if self.config.trainer.sync_batchnorm and trainer.world_size > 1 and on_cpu:
            raise ValueError(
                "trainer.sync_batchnorm: torch synchronizes norms between GPUs only, and this run "
                "is on CPUs; leave it out, or freeze the norms."
            )
        # Only a parent tells: a script that has fitted before leaves its variable to torchrun.
        teller, _, given = os.environ.get(RUN_VARIABLE, "").partition(":")
        if teller == str(os.getppid()) and "LOCAL_RANK" in os.environ:
            run = Path(given)  # Lightning started this process for one that made the folder
        elif resume is not None:
            run = resume
            if self.trainer.is_global_zero:
                hold(run)
                remove_rubbish(run)
        elif self.trainer.is_global_zero:
            run = new_run(self.config.experiment, self.root)
            hold(run)
        else:
            run = Path(self.root)  # torchrun or SLURM: rank 0 tells once they are connected
        os.environ[RUN_VARIABLE] = f"{os.getpid()}:{run}"
        if self.trainer.is_global_zero and resume is None:
            write_atomically(run / "config.yaml", self.resolved().encode())
        self._attach(run)
        return run

    def resolved(self) -> str:
        """The whole configuration as YAML, ready for `--config`."""
        config = self.config.clone()
        for key in ("config", "resume", "run"):
            config.pop(key, None)
        if isinstance(config.trainer.strategy, DDPStrategy):
            config.trainer.strategy = "ddp"
        return self.parser.dump(config, skip_unset=False, skip_validation=True)

    def _attach(self, run: Path) -> None:
        trainer = self.trainer
        # `callbacks` holds Lightning's own ModelCheckpoint already, which would add a third file.
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # untyped
        callbacks[:] = [
            one for one in callbacks if not (isinstance(one, ModelCheckpoint) and not one.dirpath)
        ]
        folder = run / "checkpoints"
        callbacks += [
            KeepConfig(run, self.resolved()),  # also what is given beside --resume
            SaveInterrupted(folder),
            StepTimer(run),
            # One file each, always of the same name: a resumed run overwrites, never adds.
            RunCheckpoint(
                folder, "best", monitor="val/miou", mode="max", enable_version_counter=False
            ),
            # Lightning's own save_last only follows the best one.
            RunCheckpoint(
                folder, "last", save_on_train_epoch_end=True, enable_version_counter=False
            ),
        ]
        if self.config.trainer.logger in (True, None):
            trainer.loggers = [Tracker(project="segment")]
        for logger in trainer.loggers:
            if isinstance(logger, Tracker) and trainer.is_global_zero:
                logger.follow(run, self.config.experiment, self.resolved())
        if trainer.loggers:
            callbacks += [LearningRateMonitor("step"), LogRun(), LogPredictions(self.crf)]
        # Lightning wants checkpoint callbacks last, so that they see what the others logged.
        callbacks.sort(key=lambda callback: isinstance(callback, ModelCheckpoint))
