"""The run folder: where a run lives, what is in it, and writing to it without half files.

runs/<experiment>/<time>/
    config.yaml              everything, resolved: enough to run it again
    checkpoints/best.ckpt    highest validation mIoU
    checkpoints/last.ckpt    the end of the last finished epoch: `--resume` starts there
    checkpoints/interrupted.ckpt   where Ctrl-C, SIGTERM or an error stopped it
    cost.json                seconds per training step
    evaluation.json, per_photo.jsonl.gz, labels/     the scores of best.ckpt
    wandb/                   the W&B run
"""

import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from segment.files import read_yaml, write_atomically
from segment.modules.loading import read_checkpoint

_HELD: list[IO[str]] = []


def new_run(experiment: str, root: str | Path) -> Path:
    """Make the folder of a new run, `<root>/<experiment>/<time>`."""
    return fresh_folder(Path(root) / experiment)


def fresh_folder(parent: Path) -> Path:
    """Make `<parent>/<time>`, unique also within a second and between processes."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1000):
        path = parent / (stamp if attempt == 0 else f"{stamp}_{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError(f"a thousand folders of {parent} were made in one second")


def hold(run: Path) -> None:
    """Keep other processes from writing to a folder for as long as this one lives; make it if new.

    Raises:
        ValueError: Another process does so already.
    """
    run.mkdir(parents=True, exist_ok=True)
    file = (run / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ValueError(
            f"{run}: another process is writing there; wait until it ends, or stop it."
        ) from error
    _HELD.append(file)  # the lock goes with the open file
    # Loader processes outlive a killed parent for seconds, and would hold the lock as long.
    os.register_at_fork(after_in_child=file.close)


def checkpoint_of(run: Path, name: str = "best") -> Path:
    """A run's checkpoint: `best`, `last` or `interrupted`, or the path of any other of its class.

    Raises:
        ValueError: The run has no such checkpoint, or the path's is of another class.
    """
    own = run / "checkpoints" / f"{name}.ckpt"
    if own.is_file():
        return own
    if Path(name).is_file():
        saved = read_checkpoint(name).get("segment", {}).get("class_name")
        trained = str((read_config(run)["model"] or {}).get("class_path")).rpartition(".")[2]
        # What names no class at all is refused by `load_checkpoint`.
        if saved is not None and saved != trained:
            raise ValueError(
                f"{name}: is a checkpoint of {saved}, but {run} trains {trained}; give one of "
                f"that class, or --run the folder that this one is of."
            )
        return Path(name)
    found = sorted(path.stem for path in (run / "checkpoints").glob("*.ckpt"))
    raise ValueError(
        f"{run}: no checkpoint {name!r}; "
        + (f"choose one of {', '.join(found)}." if found else "the run has not written one yet.")
    )


def config_of(run: Path) -> Path:
    """A run's resolved configuration.

    Raises:
        ValueError: The folder is not that of a run.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise ValueError(
            f"{run} is not the folder of a run: it has no config.yaml; "
            f"give one such as runs/deeplab_crf/2026-01-31_12-00-00."
        )
    return path


def read_config(run: Path) -> dict[str, Any]:
    """A run's resolved configuration, as plain values.

    Raises:
        ValueError: The folder is not that of a run, or its config.yaml is broken.
    """
    config = read_yaml(config_of(run))
    if "data" not in config or "model" not in config:
        raise ValueError(f"{config_of(run)}: lacks `data` or `model`; it is not a run's own.")
    return config


def validations(trainer: Any) -> int | None:
    """How often a training with these settings is validated at the most; None: they do not tell."""
    if not isinstance(trainer, dict):
        return None
    epochs, every = trainer.get("max_epochs"), trainer.get("check_val_every_n_epoch")
    if not isinstance(epochs, int) or not isinstance(every, int) or epochs < 1 or every < 1:
        return None
    return None if trainer.get("val_check_interval") is not None else epochs // every


def remove_rubbish(run: Path) -> None:
    """Delete what a killed process had begun to write."""
    for pattern in ("checkpoints/.*.tmp", ".*.tmp", ".per_photo.*.part"):
        for path in run.glob(pattern):
            path.unlink(missing_ok=True)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent, whatever kills the process while one is written.

    Lightning writes to the temporary folder and moves: across file systems that is a copy, and
    a kill during it leaves a broken file in place of the good one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write beside `path`, flush to disk, rename."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError when a disk is full
            raise ValueError(
                f"{target}: cannot be written ({str(error).splitlines()[0]}); make room or allow "
                f"writing there, then go on with `--resume {target.parents[1]}`."
            ) from error


class RunCheckpoint(ModelCheckpoint):
    """Lightning's, but a run folder may be moved: what it knew of its files is still true."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the scores of checkpoints, wherever the folder was when they were saved."""
        folder = str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(folder) / Path(path).name) if path else path

        state = {**state_dict, "dirpath": folder}
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = moved(state.get(key, ""))
        best = state.get("best_k_models", {})
        state["best_k_models"] = {moved(path): score for path, score in best.items()}
        super().load_state_dict(state)


class KeepConfig(Callback):
    """Writes `config.yaml` once training starts: settings that are refused replace none that work.

    Args:
        run: The run folder.
        config: The resolved configuration, as YAML.
    """

    def __init__(self, run: Path, config: str) -> None:
        self.run, self.config = run, config

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write: the data are read, and a checkpoint that is gone on from is restored."""
        if trainer.is_global_zero:
            write_atomically(self.run / "config.yaml", self.config.encode())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write also where all epochs were trained before, and scoring alone is left."""
        self.on_train_start(trainer, pl_module)


class SaveInterrupted(Callback):
    """Leaves `interrupted.ckpt` where Ctrl-C, SIGTERM or an error stops a training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save, unless this process cannot (another one died) or has nothing to save."""
        # Saving is collective under some strategies; after an error in one process it would hang.
        alone = trainer.world_size == 1 or isinstance(exception, KeyboardInterrupt)
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and trainer.global_step > 0 and alone:
            path = self.folder / "interrupted.ckpt"
            trainer.save_checkpoint(path)
            whole = (self.folder / "last.ckpt").is_file()
            where = "goes on from the end of the last whole epoch" if whole else "starts over"
            rank_zero_info(
                f"Stopped in epoch {trainer.current_epoch}; its weights are in {path}. "
                f"`python -m segment.fit --resume {self.folder.parent}` {where}."
            )
