import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from segment.data.transforms import ElasticDeformation, evaluation_image, training_transform


def item(height: int, width: int) -> dict:
    ids = torch.arange(height * width).reshape(height, width) % 200
    image = torch.stack([ids.to(torch.uint8)] * 3)
    return {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(ids), "image_id": 7}


def test_mask_moves_with_the_image() -> None:
    # Without scaling and colour, every pixel's grey level is its label, wherever it ends up.
    transform = training_transform(40, None, (1.0, 1.0), flip=0.5, colour_jitter=0)
    flips = 0
    for seed in range(20):
        torch.manual_seed(seed)
        before = item(64, 50)
        out = transform(before)
        assert torch.equal(out["image"][0].long(), out["mask"])
        steps = (out["mask"][:, 1:] - out["mask"][:, :-1]) % 200
        flips += int((steps == 199).float().mean() > 0.9)  # labels fall from left to right
    assert 4 <= flips <= 16


def test_a_photo_smaller_than_the_crop_is_padded_with_black_and_unlabelled() -> None:
    out = training_transform(32, None, (1.0, 1.0), flip=0, colour_jitter=0)(item(20, 10))
    assert out["image"].shape == (3, 32, 32)
    outside = out["mask"] == 255
    assert int((~outside).sum()) == 200
    assert out["image"][:, outside].max() == 0


def quadrants(side: int) -> dict:
    """A photo whose four quarters have colours and labels of their own."""
    labels = torch.tensor([[1, 2], [3, 4]]).repeat_interleave(side // 2, 0)
    labels = labels.repeat_interleave(side // 2, 1)
    colours = torch.tensor([[0, 0, 0], [200, 40, 40], [40, 200, 40], [40, 40, 200], [150, 150, 90]])
    image = colours[labels].permute(2, 0, 1).to(torch.uint8)
    return {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(labels), "image_id": 7}


def test_scales_spread_evenly_over_the_given_range_and_take_image_and_mask_along() -> None:
    transform = training_transform(128, None, (0.5, 2.0), flip=0, colour_jitter=0)
    colours = {1: (200, 40, 40), 2: (40, 200, 40), 3: (40, 40, 200), 4: (150, 150, 90)}
    sizes = []
    for seed in range(200):
        torch.manual_seed(seed)
        out = transform(quadrants(64))
        height, width = (int((out["mask"] != 255).any(side).sum()) for side in (1, 0))
        assert abs(height - width) <= 1
        sizes.append(height)
        for label, colour in colours.items():
            where = out["mask"] == label
            assert int(where.sum()) == pytest.approx(height * width / 4, rel=0.15)
            inside = (out["image"] == torch.tensor(colour)[:, None, None]).all(0)[where]
            assert inside.float().mean() > 0.75  # all but where quarters meet
    assert len(set(sizes)) > 70
    assert 32 <= min(sizes) < 37
    assert 123 < max(sizes) <= 128
    assert sum(sizes) / len(sizes) == pytest.approx(1.25 * 64, rel=0.06)


def test_scale_is_relative_to_the_short_side() -> None:
    # 100 x 50 at short side 20 and factor 1 is 40 x 20: the crop of 40 pads the width alone.
    out = training_transform(40, 20, (1.0, 1.0), flip=0, colour_jitter=0)(item(100, 50))
    inside = out["mask"] != 255
    assert int(inside.any(1).sum()) == 40
    assert int(inside.any(0).sum()) == 20


def test_jitter_changes_brightness_contrast_saturation_and_hue_and_never_the_mask() -> None:
    transform = training_transform(40, None, (1.0, 1.0), flip=0, colour_jitter=0.3)
    image = torch.full((3, 40, 40), 80, dtype=torch.uint8)
    image[:, :, 20:] = 160
    image[:, :2, :2] = torch.tensor([160, 110, 80])[:, None, None]  # too small for the mean
    mask = torch.arange(1600).reshape(40, 40) % 7
    found: dict[str, list[float]] = {"bright": [], "contrast": [], "saturation": [], "hue": []}
    for seed in range(100):
        torch.manual_seed(seed)
        before = {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask), "image_id": 7}
        out = transform(before)
        assert torch.equal(out["mask"], mask)
        assert (out["image"].dtype, out["image_id"]) == (torch.uint8, 7)
        dark, light = out["image"][0, 30, 10].item(), out["image"][0, 30, 30].item()
        red, green, blue = out["image"][:, 0, 0].tolist()
        # Each is what it does to the photo alone: the others leave these proportions as they are.
        found["bright"].append((dark + light) / 240)
        found["contrast"].append(3 * (light - dark) / (dark + light))
        found["saturation"].append((red - min(green, blue)) / (light - dark))
        found["hue"].append(1 + ((green - blue) / (red - min(green, blue)) - 30 / 80) / 6)
    for name, factors in found.items():
        reach = 0.03 if name == "hue" else 0.3  # of the turn, a tenth of the others
        assert 1 - 1.2 * reach < min(factors) < 1 - 0.8 * reach, name
        assert 1 + 0.8 * reach < max(factors) < 1 + 1.2 * reach, name


def test_without_jitter_colours_stay() -> None:
    transform = training_transform(40, None, (1.0, 1.0), flip=0, colour_jitter=0)
    assert torch.equal(transform(quadrants(40))["image"], quadrants(40)["image"])


def test_evaluation_size() -> None:
    image = torch.zeros(1, 3, 600, 400, dtype=torch.uint8)
    assert evaluation_image(image, 100).shape[-2:] == (150, 100)
    assert evaluation_image(image, None) is image
    # A strip is not blown up to the end of memory.
    strip = torch.zeros(1, 3, 4, 2000, dtype=torch.uint8)
    assert evaluation_image(strip, 100).shape[-2:] == (3, 1600)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (3, 40)])
def test_a_photo_may_shrink_to_next_to_nothing(height: int, width: int) -> None:
    out = training_transform(8, None, (0.2, 0.2), flip=0, colour_jitter=0)(item(height, width))
    assert out["image"].shape == (3, 8, 8)
    assert (out["mask"] != 255).any()


def test_elastic_deformation_shifts_its_nodes_by_the_given_pixels() -> None:
    # Every pixel's value is its place, so that the middle shows how far it came.
    ramp = torch.arange(201, dtype=torch.uint8)
    image = torch.stack(
        [ramp.expand(151, 201), ramp[:151, None].expand(151, 201), ramp.expand(151, 201)]
    )
    before = {
        "image": tv_tensors.Image(image),
        "mask": tv_tensors.Mask(image[0].long()),
        "image_id": 7,
    }
    torch.manual_seed(0)
    outs = [ElasticDeformation(10.0)(before) for _ in range(300)]
    shifts = torch.stack([out["image"][:2, 75, 100] for out in outs]).double()
    shifts -= torch.tensor([100.0, 75.0])
    assert torch.allclose(shifts.std(0), torch.tensor([10.0, 10.0]).double(), rtol=0.12)
    assert shifts.mean(0).abs().max() < 2
    for out in outs[:20]:
        inside = (out["mask"] != 255) & (out["mask"] > 0) & (out["image"][0] > 0)
        apart = (out["image"][0].long() - out["mask"])[inside].abs()
        assert apart.float().median() <= 1
        assert inside.float().mean() > 0.5
    assert out["image"].dtype == torch.uint8
    assert out["image_id"] == 7
    assert not torch.equal(outs[0]["mask"], outs[1]["mask"])


def bicubic(size: int, nodes: int = 3) -> np.ndarray:
    """What each of `size` pixels takes of the nodes, the outermost being the outermost pixels'."""
    weights = np.zeros((size, nodes))
    for pixel in range(size):
        place = pixel * (nodes - 1) / (size - 1)
        for node in range(int(place) - 1, int(place) + 3):
            t, a = abs(place - node), -0.75  # Keys' kernel, as torch has it
            near = (a + 2) * t**3 - (a + 3) * t**2 + 1
            far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
            tap = near if t <= 1 else far if t < 2 else 0.0
            weights[pixel, min(max(node, 0), nodes - 1)] += tap
    return weights


def test_elastic_deformation_is_a_bicubic_surface_over_three_by_three_nodes() -> None:
    height, width = 121, 201
    columns = torch.arange(width, dtype=torch.uint8).expand(height, width)
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    image = tv_tensors.Image(torch.stack([columns, rows, columns]))
    before = {"image": image, "mask": tv_tensors.Mask(columns.long()), "image_id": 7}
    torch.manual_seed(1)
    out = ElasticDeformation(10.0)(before)["image"][:2].numpy()
    torch.manual_seed(1)
    moves = 10 * torch.randn(1, 2, 3, 3)[0].double().numpy()  # pixels, to the right and down
    # Every pixel shows the column and the row that it came from.
    expected = bicubic(height) @ moves @ bicubic(width).T + np.stack([columns, rows])
    limits = np.array([width, height])[:, None, None] - 1
    inside = ((expected >= 0) & (expected <= limits)).all(0)
    assert inside.mean() > 0.5
    assert np.abs(out - expected)[:, inside].max() < 0.51  # 8 bits round


def test_elastic_deformation_marks_what_lies_outside_as_unlabelled() -> None:
    torch.manual_seed(0)
    out = training_transform(64, None, (1.0, 1.0), 0, 0, elastic=10.0)(item(64, 64))
    assert (out["mask"] == 255).any()
    assert out["image"][:, out["mask"] == 255].float().mean() < 40
