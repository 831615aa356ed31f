import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segment.modules import UNetModule
from segment.modules.unet import border_weights, instances


def by_hand(ids: np.ndarray, background: int | None) -> np.ndarray:
    """Equation 2's second term, pixel by pixel, w0 = 10 and sigma = 5."""
    height, width = ids.shape
    owner = np.full(ids.shape, -1)
    count = 0
    for start in np.ndindex(ids.shape):
        if ids[start] in (background, 255) or owner[start] >= 0:
            continue
        owner[start], waiting = count, [start]
        while waiting:
            y, x = waiting.pop()
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    if ids[v, u] == ids[start] and owner[v, u] < 0:
                        owner[v, u] = count
                        waiting.append((v, u))
        count += 1
    borders: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for y, x in np.ndindex(ids.shape):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        around = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width]
        if owner[y, x] >= 0 and any(owner[v, u] != owner[y, x] for v, u in around):
            borders[owner[y, x]].append((y, x))
    out = np.zeros(ids.shape)
    for y, x in np.ndindex(ids.shape):
        d = sorted(min(np.hypot(y - v, x - u) for v, u in border) for border in borders if border)
        if len(d) > 1:
            out[y, x] = 10 * np.exp(-((d[0] + d[1]) ** 2) / 50)
    return out


@pytest.mark.parametrize("background", [0, None])
def test_border_weights_are_equation_2_pixel_by_pixel(background) -> None:
    ids = np.zeros((21, 26), np.int64)
    ids[2:9, 3:10] = 1
    ids[2:9, 10:14] = 2  # touches it
    ids[9, 14] = 2  # belongs to it by a corner
    ids[4:7, 17:20] = 1
    ids[15:, 20:] = 3  # cut by the crop
    ids[12:18, 2:8] = 255
    found = border_weights(ids, background)
    np.testing.assert_allclose(found, by_hand(ids, background), atol=1e-4)
    assert found.dtype == np.float32
    # 1 + w0 = 11 bounds what a pixel can weigh; a pixel from touching objects comes close.
    assert 9.5 < found.max() <= 10


def test_objects_are_components_of_one_class() -> None:
    ids = np.array([[1, 0, 2, 2], [0, 1, 2, 255], [3, 0, 0, 1]])
    assert sorted(found.sum() for found in instances(ids, 0)) == [1, 1, 2, 3]
    assert sorted(found.sum() for found in instances(ids, None)) == [1, 1, 2, 3, 4]


def test_one_object_weighs_nothing_on_top() -> None:
    ids = np.zeros((12, 12), np.int64)
    assert not border_weights(ids, 0).any()
    ids[3:6, 3:6] = 1
    assert not border_weights(ids, 0).any()
    assert not border_weights(np.ones_like(ids), 0).any()


def small(**settings) -> UNetModule:
    torch.manual_seed(0)
    return UNetModule(3, width=2, **settings).eval()


def photo(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    image = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    coarse = torch.randint(0, 3, (2, -(-height // 8), -(-width // 8)))
    mask = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].contiguous()
    mask[:, :5, 7:20] = 255
    return image, mask


@pytest.mark.parametrize("class_weights", [None, [0.5, 1.0, 4.0]])
def test_every_pixel_s_term_is_weighted_before_the_mean(class_weights) -> None:
    module = small(padded=True, class_weights=class_weights)
    image, mask = photo(32, 48)
    logits = module(image).double()
    top = bottom = 0.0
    maps = [by_hand(ids.numpy(), 0) for ids in mask]
    for n, y, x in np.ndindex(*mask.shape):
        label = int(mask[n, y, x])
        if label != 255:
            weight = (class_weights or [1, 1, 1])[label] + maps[n][y, x]
            top += weight * -logits[n, :, y, x].log_softmax(0)[label].item()
            bottom += weight
    assert module.loss(image, mask).item() == pytest.approx(top / bottom, rel=1e-4)


def test_without_padding_only_the_inside_of_a_crop_counts() -> None:
    module = small(border_weight=0)
    image, mask = photo(204, 188)
    logits = module.network.score_inside(module.pad(image))
    inside = mask[:, 92:112, 92:96]
    expected = F.cross_entropy(logits, inside)
    assert module.loss(image, mask).item() == pytest.approx(expected.item(), rel=1e-5)
    mask[:, :92] = 255
    assert module.loss(image, mask).item() == pytest.approx(expected.item(), rel=1e-5)
    # With border weights an object beyond the inside counts as one to keep apart from.
    near = torch.zeros_like(mask)
    near[:, 92:100, 92:96] = 1
    far = near.clone()
    far[:, 88:91, 92:96] = 2
    assert small().loss(image, near) != small().loss(image, far)


def test_a_crop_without_labels_has_no_loss() -> None:
    module = small(padded=True)
    image, mask = photo(32, 32)
    loss = module.loss(image, torch.full_like(mask, 255))
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in module.parameters())


def test_refuses_a_crop_that_has_no_inside() -> None:
    with pytest.raises(ValueError, match=r"16k \+ 12 pixels from 188 on; got 96x64; set data.crop"):
        small().loss(*photo(96, 64))


def test_trains_as_the_paper_says() -> None:
    optimizer = small().optimization.optimizer(small().parameter_groups())
    assert isinstance(optimizer, torch.optim.SGD)
    assert [group["momentum"] for group in optimizer.param_groups] == [0.99, 0.99]


def test_scores_a_photo_of_any_size_in_tiles_or_at_once() -> None:
    image = photo(75, 101)[0]
    whole = small()(image)
    assert whole.shape == (2, 3, 75, 101)
    torch.testing.assert_close(small(tile=52)(image), whole, atol=1e-4, rtol=1e-4)
    assert small(padded=True, batch_norm=True)(image).shape == (2, 3, 75, 101)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 512}, r"model.tile is 512; give 16k \+ 4 pixels"),
        ({"tile": 388, "padded": True}, "and padded: false"),
        ({"border_sigma": 0.0}, "model.border_sigma 0.0; give 0 or more, and more than 0 pixels"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        small(**settings)
