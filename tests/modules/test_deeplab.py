import pytest
import torch
from torch.nn import functional as F

from segment.architectures.deeplab_v1 import Variant
from segment.modules import DeepLabV1Module, DeepLabV2Module, SegmentationModule
from segment.modules.deeplab import label_on_grid


def test_the_label_under_a_corner_aligned_grid_is_every_eighth_pixel() -> None:
    label = torch.arange(321 * 321).reshape(1, 321, 321)
    assert torch.equal(label_on_grid(label, (41, 41), corners=True), label[:, ::8, ::8])


def test_the_label_under_other_grids_is_the_nearest() -> None:
    label = torch.arange(8).repeat(8, 1)[None]
    assert label_on_grid(label, (2, 2), corners=False)[0, 0].tolist() == [2, 6]
    assert label_on_grid(label, (8, 3), corners=True)[0, 0].tolist() == [0, 4, 7]
    assert label_on_grid(label, (1, 1), corners=True).shape == (1, 1, 1)


def test_v1_takes_its_loss_on_the_coarse_map() -> None:
    torch.manual_seed(0)
    module = DeepLabV1Module(4, pretrained=False).eval()
    image = torch.randint(0, 256, (1, 3, 33, 41), dtype=torch.uint8)
    mask = torch.randint(0, 4, (1, 33, 41))
    coarse = module.network.score_scales(module.pad(image))[0]
    assert coarse.shape[-2:] == (5, 6)
    expected = F.cross_entropy(coarse, mask[:, ::8, ::8])
    assert torch.allclose(module.loss(image, mask), expected)


def test_multi_scale_sums_the_losses_of_three_scales_and_their_maximum() -> None:
    torch.manual_seed(0)
    module = DeepLabV2Module(
        3, "tf_efficientnet_lite0", multi_scale=True, pretrained=False, output_stride=16
    ).eval()
    image = torch.randint(0, 256, (1, 3, 65, 65), dtype=torch.uint8)
    mask = torch.zeros(1, 65, 65, dtype=torch.long)
    mask[:, 32:] = 1
    maps = module.network.score_scales(module.pad(image))
    assert len(maps) == 4
    terms = [
        F.cross_entropy(scores, label_on_grid(mask, scores.shape[-2:], corners=True))
        for scores in maps
    ]
    assert torch.allclose(module.loss(image, mask), torch.stack(terms).sum(), atol=1e-5)


def test_learns_one_picture_by_heart() -> None:
    torch.manual_seed(0)
    module = DeepLabV2Module(
        2, "tf_efficientnet_lite0", pretrained=False, freeze_batch_norm=False, output_stride=16
    )
    module.loss_size = "full"
    image = torch.randint(0, 60, (2, 3, 65, 65), dtype=torch.uint8)
    image[:, :, :, 32:] += 150
    mask = torch.zeros(2, 65, 65, dtype=torch.long)
    mask[:, :, 32:] = 1
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(12):
        optimizer.zero_grad()
        module.loss(image, mask).backward()
        optimizer.step()
    right = (module(image).argmax(1) == mask).float().mean()
    assert right > 0.9


def rates(module: SegmentationModule) -> dict[str, tuple[float, float]]:
    """Of every parameter: its rate over `lr`, and its decay."""
    names = {id(parameter): name for name, parameter in module.network.named_parameters()}
    found = [
        (names[id(parameter)], (group["lr"] / module.optimization.lr, group["weight_decay"]))
        for group in module.parameter_groups()
        for parameter in group["params"]
    ]
    assert sorted(name for name, _ in found) == sorted(names.values())
    return dict(found)


# Multipliers of the releases' prototxts: weights and biases of the layers that VGG fills, then of
# the scores (v1: and the branches). A decay of 5e-4, none on biases.
FILLED, ANEW = {"weight": (1, 5e-4), "bias": (2, 0)}, {"weight": (10, 5e-4), "bias": (20, 0)}


@pytest.mark.parametrize("variant", ["largefov", "4x4", "7x7", "msc_largefov"])
def test_v1_s_rates_are_the_release_s(variant: Variant) -> None:
    with torch.device("meta"):
        found = rates(DeepLabV1Module(4, variant=variant, pretrained=False))
    branches = 5 if variant == "msc_largefov" else 0
    assert len(found) == 2 * (13 + 3 + 3 * branches)
    for name, (rate, decay) in found.items():
        anew = name.startswith(("head.fc8.", "branches."))
        expected = (ANEW if anew else FILLED)[name.rsplit(".", 1)[1]]
        assert (rate, decay) == pytest.approx(expected), name


def test_v2_s_rates_on_vgg_are_the_release_s() -> None:
    with torch.device("meta"):
        found = rates(DeepLabV2Module(4, "vgg16", pretrained=False, lr=1e-3))
    assert len(found) == 2 * (13 + 4 * 3)
    for name, (rate, decay) in found.items():
        expected = (ANEW if ".fc8." in name else FILLED)[name.rsplit(".", 1)[1]]
        assert (rate, decay) == pytest.approx(expected), name


def test_v2_s_rates_on_resnet_are_1_10_and_20_norms_included() -> None:
    with torch.device("meta"):
        found = rates(DeepLabV2Module(4, "resnet18", pretrained=False, freeze_batch_norm=False))
    assert "backbone.features.bn1.bias" in found
    for name, (rate, decay) in found.items():
        expected = ANEW[name.rsplit(".", 1)[1]] if name.startswith("aspp.") else (1, 5e-4)
        assert (rate, decay) == pytest.approx(expected), name


def test_biases_of_a_convnext_train_at_twice_the_rate_and_those_of_its_norms_do_not() -> None:
    with torch.device("meta"):
        found = rates(
            DeepLabV2Module(4, "convnext_tiny", output_stride=16, pretrained=False, lr=1.0)
        )
    blocks = [name for name in found if name.endswith(".conv_dw.weight")]
    assert len(blocks) == 3 + 3 + 9 + 3  # ConvNeXt-T's depths
    for name in blocks:
        block = name.removesuffix("conv_dw.weight")
        assert (
            found[name] == found[block + "norm.bias"] == found[block + "norm.weight"] == (1, 5e-4)
        )
        assert found[block + "conv_dw.bias"] == found[block + "mlp.fc1.bias"] == (2, 0)


def test_refuses_another_rate_for_all_biases() -> None:
    with torch.device("meta"):
        module = DeepLabV1Module(3, pretrained=False, bias_lr_factor=2.0)
    with pytest.raises(ValueError, match=r"bias_lr_factor is 2.0; DeepLab v1 and v2 train"):
        module.parameter_groups()
