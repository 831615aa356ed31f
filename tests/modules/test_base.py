import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import segment.modules
from segment.modules import DeepLabV1Module, DeepLabV2Module, SegmentationModule
from segment.modules.loading import load_checkpoint


def tiny(**settings: object) -> DeepLabV2Module:
    options = {"backbone": "tf_efficientnet_lite0", "pretrained": False, "output_stride": 16}
    return DeepLabV2Module(3, **{**options, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def module() -> DeepLabV2Module:
    torch.manual_seed(0)
    return tiny().eval()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (75, 100), (33, 1), (97, 65)])
def test_any_photo_size_works(module: DeepLabV2Module, height: int, width: int) -> None:
    image = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    assert module(image).shape == (1, 3, height, width)


def test_normalization_is_the_backbone_s(module: DeepLabV2Module) -> None:
    image = torch.full((1, 3, 33, 33), 255, dtype=torch.uint8)
    # (255 / 255 - 0.5) / 0.5 for the Lite weights, which have mean and std 0.5.
    assert torch.allclose(module.pad(image), torch.ones(1, 3, 33, 33))


def test_padding_is_zero_after_normalization_and_at_the_bottom_right(
    module: DeepLabV2Module,
) -> None:
    padded = module.pad(torch.full((1, 3, 40, 40), 255, dtype=torch.uint8))
    assert padded.shape[-2:] == (65, 65)
    assert padded[..., 40:, :].abs().max() == 0
    assert padded[..., :, 40:].abs().max() == 0
    assert padded[..., :40, :40].min() == 1


def test_probabilities_are_the_softmax_of_the_logits(module: DeepLabV2Module) -> None:
    image = torch.randint(0, 256, (1, 3, 50, 60), dtype=torch.uint8)
    with torch.no_grad():
        expected = module(image).softmax(1)
        assert torch.allclose(module.probabilities(image), expected, atol=1e-6)


def test_cross_entropy_is_torch_s_over_labelled_pixels(module: DeepLabV2Module) -> None:
    logits = torch.randn(2, 3, 8, 8)
    mask = torch.randint(0, 3, (2, 8, 8))
    mask[0, :4] = 255
    expected = F.cross_entropy(logits, mask, ignore_index=255)
    assert torch.allclose(module.cross_entropy(logits, mask), expected)
    weighted = tiny(class_weights=[0.2, 1.0, 3.0])
    expected = F.cross_entropy(logits, mask, torch.tensor([0.2, 1.0, 3.0]), ignore_index=255)
    assert torch.allclose(weighted.cross_entropy(logits, mask), expected)


def test_a_crop_without_labels_costs_nothing_and_moves_nothing(module: DeepLabV2Module) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = module.cross_entropy(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def optimizers(module: SegmentationModule, steps: int = 100) -> tuple:
    module._trainer = SimpleNamespace(estimated_stepping_batches=steps)  # type: ignore[assignment]
    made = module.configure_optimizers()
    return made["optimizer"], made["lr_scheduler"]["scheduler"]


def test_rates_and_schedule_are_deeplab_s() -> None:
    # Backbone 1x, score weights 10x, score biases 20x without decay; (1 - step / steps) ** 0.9.
    module = DeepLabV2Module(21, "resnet18", pretrained=False, lr=2.5e-4)
    optimizer, scheduler = optimizers(module, steps=20_000)
    rates = {
        group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups
    }
    assert rates == {
        "backbone": (2.5e-4, 5e-4),
        "head": (2.5e-3, 5e-4),
        "head_bias": (5e-3, 0.0),
    }
    counts = [len(group["params"]) for group in optimizer.param_groups]
    assert counts[1:] == [4, 4]  # four branches, a weight and a bias each
    assert sum(counts) == len(list(module.parameters()))
    for _ in range(5000):
        optimizer.step()
        scheduler.step()
    assert math.isclose(scheduler.get_last_lr()[0], 2.5e-4 * 0.75**0.9, rel_tol=1e-9)


def test_warmup_rises_linearly() -> None:
    optimizer, scheduler = optimizers(tiny(warmup_steps=4, schedule="constant", lr=1.0))
    rates = []
    for _ in range(6):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_frozen_batch_norm_neither_learns_nor_counts() -> None:
    frozen, free = tiny(freeze_batch_norm=True).train(), tiny(freeze_batch_norm=False).train()
    for module, moves in ((frozen, False), (free, True)):
        norm = next(m for m in module.network.modules() if isinstance(m, nn.BatchNorm2d))
        before = norm.running_mean.clone()
        module(torch.randint(0, 256, (2, 3, 33, 33), dtype=torch.uint8))
        assert (not torch.equal(before, norm.running_mean)) == moves
        assert norm.weight.requires_grad == moves
    free.eval()
    assert not any(m.training for m in free.modules())


def test_starts_from_a_checkpoint_with_other_classes(
    tiny_run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What Lightning's loggers show goes to the terminal and no further.
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    checkpoint = tiny_run / "checkpoints" / "best.ckpt"
    source = load_checkpoint(checkpoint)
    start = tiny(weights=str(checkpoint), aspp="small")  # 3 classes from a run with 11
    ours, theirs = start.network.state_dict(), source.network.state_dict()
    shared = [key for key in ours if not key.startswith("aspp.")]
    assert shared
    assert all(torch.equal(ours[key], theirs[key]) for key in shared)
    assert ours["aspp.0.weight"].shape[0] == 3
    anew = "aspp.0, aspp.1, aspp.2, aspp.3"
    assert f"{checkpoint}: fits all but {anew}, which start anew." in caplog.messages


def test_a_module_without_starting_weights_is_loaded_too(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a user's own, which takes no `**training`."""

    class Plain(DeepLabV2Module):
        def __init__(self, num_classes: int) -> None:
            form = {"backbone": "tf_efficientnet_lite0", "output_stride": 16, "aspp": "small"}
            super().__init__(num_classes, **form, pretrained=False)

    monkeypatch.setattr(segment.modules, "DeepLabV2Module", Plain)
    checkpoint = tiny_run / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"] = {"num_classes": 11}
    torch.save(content, tmp_path / "plain.ckpt")
    loaded = load_checkpoint(tmp_path / "plain.ckpt")
    weights = loaded.network.state_dict()
    assert all(
        torch.equal(value, content["state_dict"][f"network.{key}"])
        for key, value in weights.items()
    )


def test_weights_of_another_architecture_are_refused(tiny_run: Path) -> None:
    with pytest.raises(ValueError, match=r"is a checkpoint of DeepLabV2, not of DeepLabV1"):
        DeepLabV1Module(3, pretrained=False, weights=str(tiny_run / "checkpoints" / "best.ckpt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such checkpoint"),
        (b"not a checkpoint", "cannot be read safely|be read safely"),
        ({"a": torch.zeros(1)}, "not a checkpoint of this framework"),
        (
            {"segment": {"class_name": "Unknown"}, "state_dict": {}},
            "does not have; it has CRFRNNModule",
        ),
    ],
)
def test_files_that_are_no_checkpoints(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


def test_a_checkpoint_cannot_execute_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"segment": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="read safely"):
        load_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": [1.0]}, r"class_weights has 1 numbers for 3 classes"),
        ({"lr": 0.0}, r"model\.lr is 0\.0"),
    ],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)
