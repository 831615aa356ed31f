import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

from segment.modules import DeepLabV3Module, DeepLabV3PlusModule

pytestmark = pytest.mark.filterwarnings("ignore:The feature map has")


def small(**settings) -> DeepLabV3Module:
    options = {"backbone": "resnet26", "multi_grid": (1, 2), "width": 16, "pretrained": False}
    return DeepLabV3Module(3, **{**options, **settings})


def photo(*size: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)


def loud(module: DeepLabV3Module) -> DeepLabV3Module:
    """As after some training: scores far enough apart to tell a mean of probabilities."""
    nn.init.normal_(module.network.score.weight, std=30)
    return module.eval()


def test_takes_its_loss_at_full_size() -> None:
    torch.manual_seed(0)
    module = loud(small())
    image, mask = photo(65, 70), torch.randint(0, 3, (1, 65, 70))
    expected = F.cross_entropy(module(image), mask)
    assert torch.allclose(module.loss(image, mask), expected)


def test_recipe_is_the_paper_s() -> None:
    module = small()
    assert (module.optimization.lr, module.optimization.power) == (0.007, 0.9)
    assert module.optimization.schedule == "poly"
    momenta = {m.momentum for m in module.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.0003}  # TensorFlow's decay of 0.9997


@pytest.mark.parametrize("flip", [False, True])
def test_averages_probabilities_over_scales_and_mirror_images(flip) -> None:
    torch.manual_seed(0)
    module = loud(small(test_scales=(0.5, 1.0, 1.5), test_flip=flip))
    image = photo(64, 90)
    parts = []
    with torch.no_grad():
        for size in [(32, 45), (64, 90), (96, 135)]:
            scaled = V.resize(image, list(size), antialias=True)
            parts.append(F.interpolate(module(scaled).softmax(1), (64, 90), mode="bilinear"))
            if flip:
                mirrored = module(scaled.flip(-1)).softmax(1).flip(-1)
                parts.append(F.interpolate(mirrored, (64, 90), mode="bilinear"))
        found = module.probabilities(image)
    torch.testing.assert_close(found, torch.stack(parts).mean(0))
    torch.testing.assert_close(found.sum(1), torch.ones(1, 64, 90))
    logits = torch.stack([part.log() for part in parts]).mean(0).softmax(1)
    assert not torch.allclose(found, logits, atol=1e-3)


def test_with_mirror_images_a_mirrored_photo_gives_the_mirrored_result() -> None:
    torch.manual_seed(0)
    image = photo(65, 80)
    with torch.no_grad():
        module = loud(small(test_flip=True))
        mirrored = module.probabilities(image.flip(-1)).flip(-1)
        torch.testing.assert_close(module.probabilities(image), mirrored)
        module.test_flip = False
        mirrored = module.probabilities(image.flip(-1)).flip(-1)
        assert not torch.allclose(module.probabilities(image), mirrored, atol=1e-3)


def test_by_default_probabilities_are_the_softmax_at_the_short_side() -> None:
    torch.manual_seed(0)
    module = loud(small())
    module.short_side = 48
    image = photo(64, 96)
    with torch.no_grad():
        expected = module(V.resize(image, [48, 72], antialias=True)).softmax(1)
        torch.testing.assert_close(module.probabilities(image), expected)
        module.test_flip = True
        assert module.probabilities(image).shape == (1, 3, 48, 72)


def test_the_second_stage_takes_the_first_s_weights_and_freezes_all_its_norms(tmp_path) -> None:
    torch.manual_seed(0)
    first = small(output_stride=16)
    path = tmp_path / "first.pt"
    torch.save(first.network.state_dict(), path)
    second = small(output_stride=8, weights=str(path), freeze_batch_norm=True).train()
    for name, value in second.network.state_dict().items():
        assert torch.equal(value, first.network.state_dict()[name]), name
    norms = [m for m in second.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    before = {k: v.clone() for k, v in second.network.named_buffers()}
    second.loss(photo(65, 65), torch.ones(1, 65, 65, dtype=torch.long)).backward()  # a batch of one
    assert all(torch.equal(v, before[k]) for k, v in second.network.named_buffers())
    assert second.network.aspp.pool[0].weight.grad is not None


def test_without_a_first_stage_only_the_backbone_s_norms_are_frozen() -> None:
    module = small(freeze_batch_norm=True).train()
    backbone = [m for m in module.network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    head = [m for m in module.network.aspp.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in backbone)
    assert all(norm.training for norm in head)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_scales": ()}, r"test_scales is \[\]; give at least one factor above 0"),
        ({"test_scales": (1.0, 0.0)}, r"test_scales is \[1.0, 0.0\]"),
        ({"bn_momentum": 0.0}, "bn_momentum is 0.0; give more than 0, at most 1"),
    ],
)
def test_refuses_settings_that_make_no_sense(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_v3plus_trains_depthwise_convolutions_without_decay() -> None:
    module = DeepLabV3PlusModule(
        3, "resnet26", width=8, pretrained=False, head_lr_factor=10.0, weight_decay=0.01
    )
    groups = {group["name"]: group for group in module.parameter_groups()}
    assert set(groups) == {"backbone", "head", "head_depthwise"}
    apart = groups["head_depthwise"]
    assert [tuple(p.shape[1:]) for p in apart["params"]] == [(1, 3, 3)] * 5  # 3 in ASPP, 2 behind
    assert (apart["weight_decay"], apart["lr"]) == (0.0, 10 * 0.007)
    assert groups["head"]["weight_decay"] == groups["backbone"]["weight_decay"] == 0.01
    count = sum(len(group["params"]) for group in groups.values())
    assert count == len(list(module.network.parameters()))


def test_v3plus_recipe_is_the_release_s() -> None:
    with torch.device("meta"):
        module = DeepLabV3PlusModule(21, pretrained=False)
    assert (module.optimization.lr, module.optimization.weight_decay) == (0.007, 4e-5)
    momenta = {m.momentum for m in module.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.0003}
    assert module.parameter_groups()[1]["name"] == "backbone_depthwise"
    assert len(module.parameter_groups()[1]["params"]) == 21 * 3
