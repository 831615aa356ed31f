import pytest
import torch
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import DeepLabV1


def test_multi_scale_branches_are_the_released_ones() -> None:
    network = DeepLabV1(21, "msc_largefov")
    found = []
    for branch in network.branches:
        kinds = [type(layer).__name__ for layer in branch]
        assert kinds == ["Conv2d", "ReLU", "Dropout", "Conv2d", "ReLU", "Dropout", "Conv2d"]
        first, second, score = (layer for layer in branch if isinstance(layer, nn.Conv2d))
        found.append((first.in_channels, first.stride[0]))
        assert (first.kernel_size, first.padding, first.out_channels) == ((3, 3), (1, 1), 128)
        assert (second.weight.shape, score.weight.shape) == ((128, 128, 1, 1), (21, 128, 1, 1))
        assert [layer.p for layer in branch if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
        assert first.weight.std().item() == pytest.approx(0.001, rel=0.06)
        assert score.weight.std().item() == pytest.approx(0.01, rel=0.06)
        assert not any(layer.bias.any() for layer in (first, second, score))
    assert found == [(3, 8), (64, 4), (128, 2), (256, 1), (512, 1)]
    spreads = [branch.conv2.weight.std().item() for branch in network.branches]
    assert spreads == pytest.approx([0.001] * 4 + [0.005], rel=0.05)
    head = {id(p) for p in network.head_parameters()}
    assert head == {
        id(p) for part in (network.branches, network.head.fc8) for p in part.parameters()
    }


def test_multi_scale_adds_the_scores_of_the_photo_and_four_pools() -> None:
    torch.manual_seed(0)
    network = DeepLabV1(3, "msc_largefov").eval()
    for parameter in network.branches.parameters():
        nn.init.normal_(parameter, std=0.05)
    plain = DeepLabV1(3).eval()
    plain.backbone, plain.head = network.backbone, network.head
    image = torch.randn(1, 3, 65, 49)

    def branch(place, x, stride):
        one = network.branches[place]
        x = F.conv2d(x, one.conv1.weight, one.conv1.bias, stride, padding=1).relu()
        x = F.conv2d(x, one.conv2.weight, one.conv2.bias).relu()
        return F.conv2d(x, one.score.weight, one.score.bias)

    with torch.no_grad():
        layers = list(network.backbone)
        pools = [i for i, m in enumerate(layers) if isinstance(m, nn.MaxPool2d)]
        parts = [branch(0, image, 8)]
        for place, stride in [(1, 4), (2, 2), (3, 1), (4, 1)]:
            pooled = nn.Sequential(*layers[: pools[place - 1] + 1])(image)
            parts.append(branch(place, pooled, stride))
        assert {part.shape for part in parts} == {(1, 3, 9, 7)}
        main = plain.score_scales(image)[0]
        whole = network.score_scales(image)[0]
        torch.testing.assert_close(whole, main + sum(parts))
        for place, part in enumerate(parts):
            kept = {k: v.clone() for k, v in network.branches[place].state_dict().items()}
            for parameter in network.branches[place].parameters():
                parameter.zero_()
            torch.testing.assert_close(network.score_scales(image)[0], whole - part)
            network.branches[place].load_state_dict(kept)
        for parameter in network.branches.parameters():
            parameter.zero_()
        assert torch.equal(network.score_scales(image)[0], main)
        assert torch.equal(network(image), plain(image))


def test_multi_scale_scores_are_centred_on_their_pixel() -> None:
    network = averaging(DeepLabV1(2, "msc_largefov"))
    image = torch.zeros(1, 3, 297, 297, requires_grad=True)
    rows, columns = torch.arange(130, 162), torch.arange(100, 132)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert (row, column) == pytest.approx((145.5, 115.5), abs=0.1)


def test_multi_scale_starts_from_a_run_without_its_branches(tmp_path) -> None:
    earlier = DeepLabV1(7)
    torch.save(earlier.state_dict(), tmp_path / "run.pth")
    network = DeepLabV1(7, "msc_largefov", pretrained=str(tmp_path / "run.pth"))
    assert torch.equal(network.head.fc6.weight, earlier.head.fc6.weight)
    assert torch.equal(network.backbone[28].weight, earlier.backbone[28].weight)
    with pytest.raises(ValueError, match=r"fc6.weight' is 1024x512x3x3, but .* 4096x512x4x4"):
        DeepLabV1(7, "4x4", pretrained=str(tmp_path / "run.pth"))
