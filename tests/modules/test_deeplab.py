import pytest
import torch
from torch.nn import functional as F

from segment.modules import DeepLabV1Module, DeepLabV2Module
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


def test_v1_s_branches_train_at_the_classifier_s_rates() -> None:
    with torch.device("meta"):
        module = DeepLabV1Module(4, variant="msc_largefov", pretrained=False)
    groups = {group["name"]: group for group in module.parameter_groups()}
    assert len(groups["backbone"]["params"]) == 2 * 15
    assert len(groups["head"]["params"]) == len(groups["head_bias"]["params"]) == 1 + 5 * 3
    assert groups["head"]["lr"] == 10 * groups["backbone"]["lr"]
    assert groups["head_bias"]["lr"] == 20 * groups["backbone"]["lr"]
    assert groups["head_bias"]["weight_decay"] == 0


def test_refuses_another_rate_for_all_biases() -> None:
    with torch.device("meta"):
        module = DeepLabV1Module(3, pretrained=False, bias_lr_factor=2.0)
    with pytest.raises(ValueError, match=r"bias_lr_factor is 2.0; DeepLab v1 and v2 train"):
        module.parameter_groups()
