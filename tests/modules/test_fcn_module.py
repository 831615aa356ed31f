from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from segment.modules import FCNModule
from segment.modules.loading import load_checkpoint


def tiny(**settings) -> FCNModule:
    return FCNModule(**{"num_classes": 3, "pretrained": False, "width": 1, **settings})


def save(module: FCNModule, path: Path) -> Path:
    """As Lightning does."""
    checkpoint = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
    }
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def test_rates_are_the_release_s() -> None:
    module = tiny(stride=32)
    module._trainer = SimpleNamespace(estimated_stepping_batches=100)
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    groups = {g["name"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    # Biases at twice the rate and without decay; 1e-10 times the pixels of a VOC photo.
    assert groups == {
        "backbone": (1.9e-5, 5e-4),
        "backbone_bias": (3.8e-5, 0.0),
        "head": (1.9e-5, 5e-4),
        "head_bias": (3.8e-5, 0.0),
    }
    assert module.optimization.lr == pytest.approx(1e-10 * 375 * 500, rel=0.02)
    assert {g["momentum"] for g in optimizer.param_groups} == {0.99}
    for _ in range(50):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr()[0] == 1.9e-5


@pytest.mark.parametrize(("height", "width"), [(75, 100), (33, 1)])
@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 16},
        {"stride": 8, "padding": "same"},
        {"width": 64, "stride": 8, "padding": "same", "backbone": "tf_efficientnet_lite0"},
    ],
)
def test_any_photo_size_works(settings, height, width) -> None:
    image = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    with torch.no_grad():
        assert tiny(**settings).eval()(image).shape == (1, 3, height, width)


def test_loss_is_the_mean_over_labelled_pixels() -> None:
    torch.manual_seed(0)
    module = tiny().eval()
    torch.nn.init.normal_(module.network.score_fr.bias)
    image = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    mask = torch.randint(0, 3, (1, 40, 50))
    mask[:, :7] = 255
    with torch.no_grad():
        expected = F.cross_entropy(module(image)[..., 7:, :], mask[:, 7:])
        torch.testing.assert_close(module.loss(image, mask), expected)


def test_a_stage_starts_from_the_run_before_it(tmp_path) -> None:
    torch.manual_seed(0)
    first = tiny(stride=32)
    torch.nn.init.normal_(first.network.score_fr.weight)
    path = save(first, tmp_path / "32s.ckpt")
    second = tiny(stride=16, weights=str(path))
    own, before = second.network.state_dict(), first.network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in before.items())
    assert not own["score_pool4.weight"].any()
    torch.nn.init.normal_(second.network.score_pool4.weight)
    path = save(second, tmp_path / "16s.ckpt")
    third = tiny(stride=8, weights=str(path))
    own, before = third.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in before.items())
    assert not own["score_pool3.weight"].any()
    with pytest.raises(ValueError, match=r"16s\.ckpt: 'score_pool4\.\w+' is no part of this"):
        tiny(stride=32, weights=str(path))


def test_a_checkpoint_alone_gives_the_module_back(tmp_path) -> None:
    module = tiny(stride=8, at_once=True, padding="same").eval()
    torch.nn.init.normal_(module.network.score_pool4.weight)
    loaded = load_checkpoint(save(module, tmp_path / "run.ckpt"))
    image = torch.randint(0, 256, (1, 3, 32, 40), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded(image), module(image))


def test_learns_one_picture_by_heart_a_photo_at_a_time() -> None:
    torch.manual_seed(0)
    module = FCNModule(
        2, 8, backbone="tf_efficientnet_lite0", padding="same", pretrained=False
    ).train()
    image = torch.randint(0, 60, (1, 3, 65, 65), dtype=torch.uint8)
    image[:, :, :, 32:] += 150
    mask = torch.zeros(1, 65, 65, dtype=torch.long)
    mask[:, :, 32:] = 1
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(15):
        optimizer.zero_grad()
        module.loss(image, mask).backward()
        optimizer.step()
    assert (module(image).argmax(1) == mask).float().mean() > 0.9
