"""SegmentCLI: one YAML -> trainer, model, data, crf.

    seed_everything: 0
    model: {class_path: segment.modules.DeepLabV2Module, init_args: {num_classes: 11}}
    data: {root: data/taco, train: train.json, val: val.json}
    crf: {iterations: 10}          # null switches the refinement off
    trainer: {max_epochs: 100}     # everything lightning.Trainer takes

Every setting can be given on the command line too: `--data.batch_size 4`, `--crf null`.
"""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DDPStrategy

from segment.cli_errors import INNER, explain
from segment.console import CalmProgressBar, quiet
from segment.cost import StepTimer
from segment.crf import DenseCRF
from segment.data.datamodule import TrashDataModule
from segment.files import read_yaml, write_atomically
from segment.modules import SegmentationModule
from segment.runs import (
    AtomicCheckpointIO,
    SaveInterrupted,
    config_of,
    new_run,
    read_config,
    remove_rubbish,
)
from segment.tracking import LogPredictions, Tracker

# A YAML names classes to import, and importing runs code: only these packages are looked into.
TRUSTED = ["segment", "lightning", "torch", "torchmetrics"]
RUN_VARIABLE = "SEGMENT_RUN"  # how the processes that Lightning starts learn the run folder


class SegmentParser(LightningArgumentParser):
    """Answers a mistake in a few lines, without the dump of types and the usage of all options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and where, and exit with 2; a nested parser tells the outer one."""
        if self.exit_on_error:
            stop(explain(message, self))
        super().error(message if INNER in message else INNER + explain(message, self), ex)


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
                if self.verb == "evaluate"
                else "no experiment given; name one, for instance --config experiments/smoke.yaml."
            )
        _check_files(args)
        self.config = parser.parse_args(args)
        if self.config.experiment is None:
            self.config.experiment = Path(self.config.config[0].relative).stem

    def before_instantiate_classes(self) -> None:
        """Set what Lightning leaves at unwelcome defaults."""
        trainer = self.config.trainer
        if "run" in self.config:  # evaluate: the checkpoint itself says what its module is
            del self.config["model"]
            own = read_config(Path(self.config.run))
            if self.config.data.root != own["data"]["root"]:
                self.config.data.sample = None  # other photos: nothing is to be generated there
        self.root = trainer.default_root_dir or "runs"
        if trainer.strategy == "ddp":
            # Lightning's own waits half an hour (gloo) for a process that died.
            trainer.strategy = DDPStrategy(timeout=timedelta(minutes=10))

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
        if self.config.trainer.logger in (True, None):
            kwargs["logger"] = False  # Lightning's default advises to install two packages
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [
            CalmProgressBar() if type(one) is TQDMProgressBar else one for one in callbacks
        ]
        return trainer

    def start_run(self, resume: Path | None) -> Path:
        """Make (or take up) the run folder and attach what a training writes to it."""
        given = os.environ.get(RUN_VARIABLE)
        if given is not None and "LOCAL_RANK" in os.environ:
            run = Path(given)  # Lightning started this process for one that made the folder
        elif resume is not None:
            run = resume
            remove_rubbish(run)
        elif self.trainer.is_global_zero:
            run = new_run(self.config.experiment, self.root)
        else:
            run = Path(self.root)  # torchrun or SLURM: rank 0 tells once they are connected
        os.environ[RUN_VARIABLE] = str(run)
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
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [
            one for one in callbacks if not (isinstance(one, ModelCheckpoint) and not one.dirpath)
        ]
        folder = run / "checkpoints"
        callbacks += [
            SaveInterrupted(folder),
            StepTimer(run),
            # One file each, always of the same name: a resumed run overwrites, never adds.
            ModelCheckpoint(
                folder, "best", monitor="val/miou", mode="max", enable_version_counter=False
            ),
            # Lightning's own save_last only follows the best one.
            ModelCheckpoint(
                folder, "last", save_on_train_epoch_end=True, enable_version_counter=False
            ),
        ]
        if self.config.trainer.logger in (True, None):
            trainer.loggers = [Tracker(project="segment")]
        for logger in trainer.loggers:
            if isinstance(logger, Tracker) and trainer.is_global_zero:
                logger.follow(run, self.config.experiment, self.resolved())
        if trainer.loggers:
            callbacks += [LearningRateMonitor("step"), LogPredictions(self.crf)]
        # Lightning wants checkpoint callbacks last, so that they see what the others logged.
        callbacks.sort(key=lambda callback: isinstance(callback, ModelCheckpoint))


def named_run(args: Sequence[str]) -> Path | None:
    """The run that a command line names, before it is parsed: its settings are the defaults."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("--run")
    known.add_argument("--resume")
    found, _ = known.parse_known_args(args)
    run = found.run or found.resume
    return None if run is None else Path(run)


def _check_files(args: Sequence[str]) -> None:
    """Say which configuration file is missing, before the parser says it at length."""
    named = [args[place + 1] for place, word in enumerate(args[:-1]) if word in ("-c", "--config")]
    named += [word.split("=", 1)[1] for word in args if re.match(r"(-c|--config)=", word)]
    for path in map(Path, named):
        if not path.is_file():
            near = sorted(str(other) for other in path.parent.glob("*.yaml"))
            hint = f"; there are {', '.join(near)}" if near else ""
            stop(f"{path}: no such configuration file{hint}.")
        try:
            read_yaml(path)
        except ValueError as error:
            stop(str(error))


def stop(message: str) -> NoReturn:
    """Tell the user and exit with 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def user_errors(function: Callable[[], None]) -> None:
    """Run a verb; a ValueError of ours is the user's to mend, so it comes without a traceback."""
    try:
        function()
    except MisconfigurationException as error:  # what Lightning says of trainer settings
        stop(f"trainer: {str(error).splitlines()[0]}")
    except OSError as error:
        if error.filename is None:
            raise
        stop(f"{error.filename}: {error.strerror}.")
    except (ValueError, ImportError) as error:
        message = _message_for_users(error)
        if message is None:
            raise
        stop(message)


def _message_for_users(error: Exception) -> str | None:
    """The sentence of an error that this package raised, also in a loader's worker process."""
    text = str(error)
    here = str(Path(__file__).parent)
    if "Original Traceback" in text:  # how DataLoader hands on what a worker raised
        raised_here = [line for line in text.splitlines() if line.strip().startswith("File ")]
        if raised_here and here in raised_here[-1]:
            return text.rsplit("ValueError: ", 1)[-1].strip()
        return None
    if text.startswith("Does not validate"):  # a dataclass refused its values
        return explain(text)
    frames = traceback.extract_tb(error.__traceback__)
    if any("accelerator_connector" in frame.filename for frame in frames):
        return f"trainer: {text}"  # Lightning's word on accelerator, strategy, devices, precision
    return text if frames and frames[-1].filename.startswith(here) else None
