from pathlib import Path

import pytest
import torch
from torch import nn

from segment.modules import DeconvNetModule, EDeconvNetModule, FCNModule
from segment.modules.loading import load_checkpoint


def randomize(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.normal_(parameter, 0.5, 0.2)
    return module.eval()


def save(module, path: Path) -> str:
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("parts")
    deconvnet = randomize(DeconvNetModule(3, pretrained=False, width=1))
    fcn8s = randomize(FCNModule(3, stride=8, pretrained=False, width=1))
    return {
        "deconvnet": deconvnet,
        "fcn8s": fcn8s,
        "deconvnet_weights": save(deconvnet, folder / "deconvnet.ckpt"),
        "fcn8s_weights": save(fcn8s, folder / "fcn8s.ckpt"),
    }


def joined(parts: dict, **settings: object) -> EDeconvNetModule:
    paths = {key: parts[key] for key in ("deconvnet_weights", "fcn8s_weights")}
    return EDeconvNetModule(3, width=1, **{**paths, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("inference", ["whole", "patches"])
def test_joins_what_both_runs_say(parts: dict, inference: str) -> None:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (1, 3, 225, 240), dtype=torch.uint8)
    parts["deconvnet"].inference = inference
    with torch.no_grad():
        expected = parts["deconvnet"].probabilities(image) + parts["fcn8s"].probabilities(image)
        found = joined(parts, inference=inference).probabilities(image)
    torch.testing.assert_close(found, expected / 2)


def test_a_step_moves_nothing_and_its_checkpoint_needs_no_other(parts: dict, tmp_path) -> None:
    module = joined(parts).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    optimizer = module.optimization.optimizer(module.parameter_groups())
    module.loss(image, torch.zeros(1, 224, 224, dtype=torch.long)).backward()
    optimizer.step()
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    path = save(module, tmp_path / "joined.ckpt")
    assert "weights" not in str(dict(module.hparams))
    loaded = load_checkpoint(path).state_dict()
    assert all(torch.equal(before[key], value) for key, value in loaded.items())


def test_refuses_runs_that_do_not_fit(parts: dict, tmp_path) -> None:
    with pytest.raises(ValueError, match="is a checkpoint of DeconvNet, not of FCN"):
        joined(parts, fcn8s_weights=parts["deconvnet_weights"])
    coarse = save(FCNModule(3, pretrained=False, width=1), tmp_path / "32s.ckpt")
    with pytest.raises(ValueError, match="has nothing for score_pool4, score_pool3 of these"):
        joined(parts, fcn8s_weights=coarse)
