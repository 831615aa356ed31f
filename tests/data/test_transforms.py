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


def test_scale_is_relative_to_the_short_side() -> None:
    # 100 x 50 at short side 20 and factor 1 is 40 x 20: the crop of 40 pads the width alone.
    out = training_transform(40, 20, (1.0, 1.0), flip=0, colour_jitter=0)(item(100, 50))
    inside = out["mask"] != 255
    assert int(inside.any(1).sum()) == 40
    assert int(inside.any(0).sum()) == 20


def test_images_stay_8_bit_and_colour_leaves_labels_alone() -> None:
    torch.manual_seed(0)
    before = item(40, 40)
    labels = before["mask"].clone()
    out = training_transform(40, None, (1.0, 1.0), flip=0, colour_jitter=0.5)(before)
    assert out["image"].dtype == torch.uint8
    assert torch.equal(out["mask"], labels)
    assert out["image_id"] == 7


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


def test_elastic_deformation_marks_what_lies_outside_as_unlabelled() -> None:
    torch.manual_seed(0)
    out = training_transform(64, None, (1.0, 1.0), 0, 0, elastic=10.0)(item(64, 64))
    assert (out["mask"] == 255).any()
    assert out["image"][:, out["mask"] == 255].float().mean() < 40
