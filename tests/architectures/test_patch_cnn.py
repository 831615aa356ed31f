import numpy as np
import pytest
import torch
from alignment import averaging, centroid
from torch import nn

from segment.architectures import PatchCNN
from segment.architectures.patch_cnn import mirror_pad


def test_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        network = PatchCNN(21)
    assert sum(p.numel() for p in network.parameters()) == 224_645


def test_a_window_shrinks_as_published() -> None:
    with torch.device("meta"):
        network = PatchCNN(21)
        sizes = []
        for layer in network.layers:
            if not isinstance(layer, nn.ReLU):
                layer.register_forward_hook(
                    lambda _, __, out: sizes.append((out.shape[1], out.shape[-1]))
                )
        assert network.classify(torch.zeros(5, 3, 95, 95)).shape == (5, 21)
    assert sizes == [
        *[(48, 92), (48, 46), (48, 42), (48, 21), (48, 18), (48, 9), (48, 6), (48, 3)],
        *[(200, 1), (21, 1)],
    ]


@pytest.mark.parametrize("mode", ["fully_convolutional", "shift_and_stitch", "dense"])
@pytest.mark.parametrize("size", [(512, 512), (375, 500)])
def test_scores_are_as_large_as_the_photo(mode, size) -> None:
    with torch.device("meta"):
        network = PatchCNN(21, mode)
        assert network.valid_size(*size) == size
        assert network(torch.zeros(1, 3, *size)).shape == (1, 21, *size)


def small(mode: str) -> PatchCNN:
    torch.manual_seed(0)
    network = PatchCNN(3, mode, width=4).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize("size", [(1, 17, 18), (2, 7, 3), (1, 1, 2)])
def test_scores_are_those_of_every_window_by_itself(size) -> None:
    network = small("naive")
    photos, height, width = size
    image = torch.randn(photos, 3, height, width).double()
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (47, 47), (47, 47)), mode="reflect")
    with torch.no_grad():
        rows = []
        for y in range(height):
            windows = np.stack([padded[..., y : y + 95, x : x + 95] for x in range(width)])
            scores = network.classify(torch.from_numpy(windows).flatten(0, 1))
            rows.append(scores.view(width, photos, 3).permute(1, 2, 0))
        expected = torch.stack(rows, dim=2)
        assert expected.std() > 0.01
        for mode in ("naive", "shift_and_stitch", "dense"):
            network.mode = mode
            torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-12)


def test_every_sixteenth_score_is_that_of_its_window_and_between_them_a_line() -> None:
    network = small("fully_convolutional")
    image = torch.randn(1, 3, 37, 40).double()
    with torch.no_grad():
        coarse = network(image)
        network.mode = "dense"
        exact = network(image)
    torch.testing.assert_close(coarse[..., ::16, ::16], exact[..., ::16, ::16])
    assert not torch.allclose(coarse, exact, atol=1e-3)
    for i in range(17):
        line = exact[..., 16, 0] + (exact[..., 16, 16] - exact[..., 16, 0]) * i / 16
        torch.testing.assert_close(coarse[..., 16, i], line)
    assert coarse.shape == (1, 3, 37, 40)


def test_a_pixel_is_in_the_middle_of_its_window() -> None:
    image = torch.randn(2, 3, 6, 9)
    windows = PatchCNN(2, width=4).windows(image)
    assert windows.shape == (2, 3, 6, 9, 95, 95)
    assert torch.equal(windows[..., 47, 47], image)
    assert torch.equal(windows[:, :, 2, 3, 47, 48], image[:, :, 2, 4])


def test_a_window_s_score_is_centred_on_its_middle() -> None:
    network = averaging(PatchCNN(2, width=2))
    window = torch.zeros(1, 3, 95, 95, requires_grad=True)
    assert centroid(network.classify(window)[:, 0], window) == pytest.approx((47, 47), abs=0.1)


def test_between_them_a_pixel_s_score_is_centred_on_that_pixel() -> None:
    network = averaging(PatchCNN(2, "fully_convolutional", width=2))
    image = torch.zeros(1, 3, 225, 225, requires_grad=True)
    rows, columns = torch.arange(130, 162), torch.arange(100, 132)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert row == pytest.approx(145.5, abs=0.1)
    assert column == pytest.approx(115.5, abs=0.1)


def test_refuses_a_mode_it_does_not_have() -> None:
    with pytest.raises(ValueError, match="mode is 'fast'; it can be one of 'naive', 'fully_conv"):
        PatchCNN(2, "fast")


@pytest.mark.parametrize("mode", ["naive", "fully_convolutional", "shift_and_stitch", "dense"])
def test_every_parameter_learns_from_a_batch_of_one(mode) -> None:
    torch.manual_seed(0)
    network = PatchCNN(3, mode, width=4).train()
    scores = network(torch.randn(1, 3, 5, 6))
    (scores * torch.randn_like(scores)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert torch.equal(network(torch.ones(1, 3, 4, 4)), network(torch.ones(1, 3, 4, 4)))


def test_only_the_scores_start_anew() -> None:
    with torch.device("meta"):
        network = PatchCNN(5)
    assert [p.shape[0] for p in network.head_parameters()] == [5, 5]


@pytest.mark.parametrize(("height", "width"), [(40, 33), (5, 2), (1, 7)])
def test_mirrors_as_numpy_does(height, width) -> None:
    image = torch.randn(2, 3, height, width)
    pads = ((0, 0), (0, 0), (92, 101), (7, 92))
    expected = np.pad(image.numpy(), pads, mode="reflect")
    assert np.array_equal(mirror_pad(image, 92, 101, 7, 92).numpy(), expected)
