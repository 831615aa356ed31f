import pytest
import torch
import torchvision
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import DeepContextualNetwork


@pytest.mark.parametrize(("num_classes", "count"), [(21, 10_788_267), (2, 7_934_410)])
def test_has_as_many_parameters_as_its_layers_add_up_to(num_classes, count) -> None:
    with torch.device("meta"):
        network = DeepContextualNetwork(num_classes)
    assert sum(p.numel() for p in network.parameters()) == count


def test_has_ten_convolutions_three_pools_and_three_branches() -> None:
    with torch.device("meta"):
        network = DeepContextualNetwork(21)
    convs = [m.out_channels for m in network.trunk if isinstance(m, nn.Conv2d)]
    assert convs == [64, 64, 128, 128, 256, 256, 256, 512, 512, 512]
    pools = [m for m in network.trunk if isinstance(m, nn.MaxPool2d)]
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [(2, 2)] * 3
    ups = [branch.up for branch in network.branches]
    assert [(u.in_channels, u.kernel_size[0], u.stride[0], u.padding[0]) for u in ups] == [
        (128, 4, 2, 1),
        (256, 8, 4, 2),
        (512, 16, 8, 4),
    ]


@pytest.mark.parametrize(("size", "valid"), [((512, 512), (512, 512)), ((375, 500), (376, 504))])
def test_every_branch_scores_every_pixel(size, valid) -> None:
    with torch.device("meta"):
        network = DeepContextualNetwork(21)
        assert network.valid_size(*size) == valid
        image = torch.zeros(1, 3, *valid)
        levels = []
        for branch in network.branches:
            branch.register_forward_pre_hook(lambda _, x: levels.append(x[0].shape[1:]))
        assert [s.shape for s in network.score_branches(image)] == [(1, 21, *valid)] * 3
        assert network(image).shape == (1, 21, *valid)
    height, width = valid
    assert levels[:3] == [
        (128, height // 2, width // 2),
        (256, height // 4, width // 4),
        (512, height // 8, width // 8),
    ]


def by_hand(w: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    def conv(x, name, padding):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)

    taps = []
    for stage in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21)):
        if stage[0]:
            x = F.max_pool2d(x, 2)
        for index in stage:
            x = conv(x, f"trunk.{index}", 1).relu()
        taps.append(x)
    scores = []
    for i, (tap, s) in enumerate(zip(taps[1:], (2, 4, 8), strict=True)):
        name = f"branches.{i}"
        up = F.conv_transpose2d(
            tap, w[f"{name}.up.weight"], w[f"{name}.up.bias"], stride=s, padding=s // 2
        )
        scores.append(conv(conv(up, f"{name}.conv", 1).relu(), f"{name}.score", 0))
    return scores


def test_is_the_table_made_by_hand_and_the_sum_of_its_branches() -> None:
    torch.manual_seed(0)
    network = DeepContextualNetwork(3, width=4).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    image = torch.randn(2, 3, 24, 40).double()
    with torch.no_grad():
        parts = by_hand(network.state_dict(), image)
        for found, part in zip(network.score_branches(image), parts, strict=True):
            torch.testing.assert_close(found, part)
        whole = network(image)
        torch.testing.assert_close(whole, parts[0] + parts[1] + parts[2])
        for branch, part in zip(network.branches, parts, strict=True):
            kept = {k: v.clone() for k, v in branch.state_dict().items()}
            for parameter in branch.parameters():
                parameter.zero_()
            torch.testing.assert_close(network(image), whole - part)
            branch.load_state_dict(kept)
        assert torch.equal(network(image), whole)


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_a_pixel_s_score_is_centred_on_that_pixel_in_every_branch(branch) -> None:
    network = averaging(DeepContextualNetwork(2, width=2))
    for layer in network.branches:
        nn.init.constant_(layer.up.weight, 0.1)
    image = torch.zeros(1, 3, 288, 288, requires_grad=True)
    rows, columns = torch.arange(130, 162), torch.arange(100, 132)
    row, column = centroid(network.score_branches(image)[branch][0, 0, rows, columns], image)
    assert row == pytest.approx(145.5, abs=0.1)
    assert column == pytest.approx(115.5, abs=0.1)


def vgg16_weights() -> dict[str, torch.Tensor]:
    """As torchvision publishes them; each row one number, so that a file of them is small."""
    torch.manual_seed(0)
    with torch.device("meta"):
        whole = torchvision.models.vgg16().state_dict()
    weights = {}
    for key, like in whole.items():
        row = torch.randn(like.shape[0], *[1] * (like.dim() - 1)) / like[0].numel()
        weights[key] = row.expand(like.shape)
    return weights


def test_takes_torchvision_s_vgg_up_to_its_tenth_convolution(tmp_path) -> None:
    weights = vgg16_weights()
    torch.save(weights, tmp_path / "vgg16.pth")
    network = DeepContextualNetwork(4, pretrained=str(tmp_path / "vgg16.pth"))
    with torch.device("meta"):
        theirs = torchvision.models.vgg16().features[:23]
    theirs.to_empty(device="cpu")
    theirs.load_state_dict(
        {k.removeprefix("features."): weights[k] for k in weights if k[9:] in theirs.state_dict()}
    )
    image = torch.randn(1, 3, 24, 16)
    found = network.trunk(image)
    assert found.shape == (1, 512, 3, 2)
    assert torch.equal(found, theirs(image))


def test_takes_the_trunk_of_an_earlier_run_but_never_its_branches(tmp_path) -> None:
    earlier = DeepContextualNetwork(7, width=4)
    torch.save(earlier.state_dict(), tmp_path / "run.pth")
    network = DeepContextualNetwork(5, str(tmp_path / "run.pth"), width=4)
    assert torch.equal(network.trunk[21].weight, earlier.trunk[21].weight)
    assert not torch.equal(
        network.branches[0].conv.weight[:, :1], earlier.branches[0].conv.weight[:5, :1]
    )


def test_refuses_weights_of_another_width(tmp_path) -> None:
    torch.save(vgg16_weights(), tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match=r"'features.0.weight' is 64x3x3x3, .* is 4x3x3x3"):
        DeepContextualNetwork(2, str(tmp_path / "vgg16.pth"), width=4)


def test_refuses_another_size_and_names_one_it_takes() -> None:
    with torch.device("meta"):
        network, image = DeepContextualNetwork(2, width=4), torch.zeros(1, 3, 375, 16)
    with pytest.raises(ValueError, match=r"of 8k; got 375x16\. Pad it to 376x16"):
        network(image)


def test_every_parameter_learns_from_a_batch_of_one() -> None:
    torch.manual_seed(0)
    network = DeepContextualNetwork(3, width=4).train()
    scores = network(torch.randn(1, 3, 16, 24))
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_only_the_branches_start_anew() -> None:
    with torch.device("meta"):
        network = DeepContextualNetwork(5, width=4)
    assert {id(p) for p in network.backbone_parameters()} == {
        id(p) for p in network.trunk.parameters()
    }
    assert len(network.head_parameters()) == 3 * 6
