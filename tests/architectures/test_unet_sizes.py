"""Which photos U-Net takes, whole or in tiles, and what it refuses to be built of."""

import pytest
import torch

from segment.architectures import UNet
from segment.architectures.patch_cnn import mirror_pad


def whole_numbers(network: UNet) -> UNet:
    """With few weights of 1 and -1, so that float64 has nothing to round."""
    for parameter in network.parameters():
        chance = torch.rand_like(parameter)
        parameter.data = (chance < 0.2).double() - (chance > 0.85).double()
    return network.double().eval()


def test_tiles_are_exactly_one_pass() -> None:
    torch.manual_seed(0)
    network = whole_numbers(UNet(3, width=2))
    image = torch.randint(0, 4, (2, 3, 90, 61)).double()
    with torch.no_grad():
        whole = network(image)
        assert whole.shape == (2, 3, 90, 61)
        assert len(whole.unique()) > 100
        assert whole.abs().max() < 2**50
        for tile in (20, 52, 388):
            assert torch.equal(network.score_in_tiles(image, tile), whole)
        # One pass is the photo among its mirror images, nothing else.
        surroundings = mirror_pad(image, 92, 102, 92, 99)
        assert torch.equal(network.score_inside(surroundings)[..., :90, :61], whole)
        # Tiles that begin where the last one ends, 36 pixels on, pool other pixels together.
        other = network.score_inside(surroundings[..., 36:256, :220])
        assert not torch.equal(other[..., :36, :36], whole[..., 36:72, :36])


@pytest.mark.parametrize(
    ("arguments", "valid", "smallest"),
    [
        ({}, (375, 500), (1, 1)),
        ({"padded": True}, (384, 512), (16, 16)),
        ({"padded": True, "batch_norm": True}, (384, 512), (32, 32)),
        ({"padded": True, "backbone": "resnet18"}, (385, 513), (33, 33)),
        ({"padded": True, "backbone": "convnext_atto"}, (384, 512), (32, 32)),
    ],
)
def test_valid_sizes_depend_on_the_form(arguments, valid, smallest) -> None:
    with torch.device("meta"):
        network = UNet(2, width=4, **arguments)
    assert network.valid_size(375, 500) == valid
    assert network.valid_size(1, 1) == smallest


@pytest.mark.parametrize("size", [1, 6, 100, 203, 204, 205])
def test_the_paper_s_form_takes_any_photo(size) -> None:
    with torch.device("meta"):
        network = UNet(2, width=4)
        assert network(torch.zeros(1, 3, size, 30)).shape == (1, 2, size, 30)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet18"}, "backbone resnet18 pads its convolutions; set padded to true"),
        ({"pretrained": True}, "own encoder has no pretrained weights; .* name a timm backbone"),
        (
            {"backbone": "densenet121", "padded": True},
            "densenet121 has no form with an output stride of 32; EfficientNet",
        ),
    ],
)
def test_refuses_what_it_cannot_build(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(2, **arguments)


def test_refuses_sizes_and_names_those_it_takes() -> None:
    with torch.device("meta"):
        padded, inside = UNet(2, padded=True, width=4), UNet(2, width=4)
        image = torch.zeros(1, 3, 100, 64)
        with pytest.raises(ValueError, match=r"16k; got 100x64\. Pad it to 112x64"):
            padded(image)
        with pytest.raises(ValueError, match=r"16k \+ 12 from 188 on; got 512x508"):
            inside.score_inside(torch.zeros(1, 3, 512, 508))
        with pytest.raises(ValueError, match=r"from 188 on; got 172x188"):
            inside.score_inside(torch.zeros(1, 3, 172, 188))
        for call in (padded.score_inside, padded.score_in_tiles):
            with pytest.raises(ValueError, match="set padded to false for tiles"):
                call(image)
        for tile in (4, 384):
            with pytest.raises(ValueError, match=rf"tile is {tile}; it can be 16k \+ 4 pixels"):
                inside.score_in_tiles(image, tile)
