"""Checkpoints from disk: a whole module, or weights to start another training from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import segment.modules
from segment.architectures.pretrained import unpack
from segment.modules.base import SegmentationModule


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A file of tensors and plain values; nothing in it is executed.

    Raises:
        ValueError: The file is missing, broken, or holds more than that.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such checkpoint; give the path of a .ckpt file.") from error
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError ...
        raise ValueError(
            f"{path}: not a checkpoint that can be read safely "
            f"({str(error).splitlines()[0][:120]}); give a file that `segment.fit` wrote."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: holds a {type(content).__name__}, not a checkpoint; give a file that "
            f"`segment.fit` wrote."
        )
    return content


def load_checkpoint(
    path: str | Path, init_args: Mapping[str, Any] | None = None
) -> SegmentationModule:
    """The module that a run saved, with its weights; needs neither its YAML nor its data.

    Args:
        path: The checkpoint.
        init_args: Arguments of the module that replace those it was trained with, such as
            `output_stride`, `test_scales` and `test_flip`; the weights must fit as they are.

    Raises:
        ValueError: The file is not such a checkpoint, or of a module this version does not have;
            or the module has no such argument, or another network with it.
    """
    checkpoint = read_checkpoint(path)
    name = _saved_by(path, checkpoint)
    kind = getattr(segment.modules, name, None)
    if name not in segment.modules.__all__ or kind is None:
        raise ValueError(
            f"{path}: was saved by {name}, which segment.modules does not have; "
            f"it has {', '.join(segment.modules.__all__)}."
        )
    settings = dict(checkpoint["hyper_parameters"])
    given = dict(init_args or {})
    if unknown := sorted(given.keys() - settings.keys()):
        raise ValueError(
            f"--init_args: {name} has no {unknown[0]}; it has {', '.join(sorted(settings))}."
        )
    settings.update(given)
    # The checkpoint's own weights replace what these would fetch.
    nothing = {"pretrained": False, "weights": None}
    settings.update({key: value for key, value in nothing.items() if key in settings})
    module: SegmentationModule = kind(**settings)
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        if not given:
            raise
        raise ValueError(
            f"--init_args: with {given} the network has other weights than {path}; change what "
            f"leaves them as they are, such as output_stride, test_scales or test_flip."
        ) from error
    module.on_load_checkpoint(checkpoint)
    return module.eval()


def read_weights(path: str | Path, architecture: str) -> dict[str, Tensor]:
    """The network's weights from a run's checkpoint, or from a plain state dict.

    Args:
        path: The file.
        architecture: Name of the network class that will take them.

    Raises:
        ValueError: The file cannot be read, or is a checkpoint of another architecture.
    """
    weights, saved = unpack(path, read_checkpoint(path))
    if saved not in (None, architecture):
        raise ValueError(
            f"{path}: is a checkpoint of {saved}, not of {architecture}; give one of the same "
            f"architecture."
        )
    return weights


def check_resumable(path: Path, checkpoint: dict[str, Any], module: SegmentationModule) -> None:
    """Refuse a checkpoint with which the training of `module` cannot go on.

    Raises:
        ValueError: It is of another class, of other tensors, or of other groups of rates.
    """
    remedy = (
        f"resume with the config.yaml and the version it was trained with, or start a new run with "
        f"--model.init_args.weights {path}"
    )
    name = _saved_by(path, checkpoint)
    if name != type(module).__name__:
        raise ValueError(
            f"{path}: is of {name}, config.yaml has {type(module).__name__}; {remedy}."
        )
    had = {key: tuple(value.shape) for key, value in checkpoint["state_dict"].items()}
    has = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    if had != has:
        key = min(had.items() ^ has.items())[0]
        raise ValueError(
            f"{path}: {key} is {had.get(key, 'missing')}, config.yaml makes it "
            f"{has.get(key, 'missing')}; {remedy}."
        )
    groups = [len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"]]
    wanted = [len(group["params"]) for group in module.parameter_groups()]
    if groups != wanted:
        raise ValueError(
            f"{path}: trained {len(groups)} groups of {groups} parameters, each at its own rate, "
            f"where there are now {wanted}; {remedy}."
        )


def _saved_by(path: str | Path, checkpoint: dict[str, Any]) -> str:
    """The class of the module that saved a checkpoint."""
    saved = checkpoint.get("segment")
    name = saved.get("class_name") if isinstance(saved, dict) else None
    if name is None:
        raise ValueError(f"{path}: not a checkpoint of this framework; give one of `segment.fit`.")
    return str(name)
