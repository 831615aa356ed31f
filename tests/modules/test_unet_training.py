import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch.nn import functional as F

from segment.data.datamodule import TrashDataModule
from segment.modules import UNetModule
from segment.modules.unet import border_weights


def by_hand(owner: np.ndarray) -> np.ndarray:
    """Equation 2's second term, pixel by pixel, w0 = 10 and sigma = 5; 0 owns nothing."""
    height, width = owner.shape
    borders: dict[int, list[tuple[int, int]]] = {}
    for y, x in np.ndindex(owner.shape):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        around = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width]
        if owner[y, x] and any(owner[v, u] != owner[y, x] for v, u in around):
            borders.setdefault(int(owner[y, x]), []).append((y, x))
    out = np.zeros(owner.shape)
    for y, x in np.ndindex(owner.shape):
        d = sorted(min(np.hypot(y - v, x - u) for v, u in border) for border in borders.values())
        if len(d) > 1:
            out[y, x] = 10 * np.exp(-((d[0] + d[1]) ** 2) / 50)
    return out


def test_border_weights_are_equation_2_pixel_by_pixel() -> None:
    owner = np.zeros((21, 26), np.int64)
    owner[2:9, 3:10] = 1
    owner[2:9, 10:14] = 300  # touches it
    owner[4:7, 17:20] = 4
    owner[14, 3] = 4  # the same object, in two parts
    owner[15:, 20:] = 3  # cut by the crop
    found = border_weights(owner, 10.0, 5.0)
    np.testing.assert_allclose(found, by_hand(owner), atol=1e-4)
    assert found.dtype == np.float32
    # 1 + w0 = 11 bounds what a pixel can weigh; a pixel from touching objects comes close.
    assert 9.5 < found.max() <= 10


def test_one_object_weighs_nothing_on_top() -> None:
    owner = np.zeros((12, 12), np.int64)
    assert not border_weights(owner, 10.0, 5.0).any()
    owner[3:6, 3:6] = 1
    assert not border_weights(owner, 10.0, 5.0).any()
    assert not border_weights(np.ones_like(owner), 10.0, 5.0).any()


HEIGHT, WIDTH = 40, 48


def rectangle(top: int, left: int, bottom: int, right: int) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.fixture
def touching(tmp_path: Path) -> Path:
    """Two bottles that touch, one in two parts and in front of the other, beside a crowd."""
    outlines = [
        ([rectangle(5, 4, 20, 14), rectangle(28, 4, 32, 9)], 0),
        ([rectangle(5, 12, 20, 24)], 0),  # larger, so it lies behind
        ({"size": [HEIGHT, WIDTH], "counts": [35 * HEIGHT, 5 * HEIGHT, 8 * HEIGHT]}, 1),
    ]
    annotations = [
        {"id": id_, "image_id": 1, "category_id": 1, "segmentation": outline, "iscrowd": crowd}
        for id_, (outline, crowd) in enumerate(outlines)
    ]
    image = {"id": 1, "file_name": "photo.png", "height": HEIGHT, "width": WIDTH}
    content = {"images": [image], "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "Bottle"}]
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "photo.png")
    return tmp_path


def fitted_batch(
    root: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[UNetModule, dict]:
    """The only batch of a training on the photo as it is, with 8 rows of padding."""
    data = TrashDataModule(
        str(root), crop_size=48, scale=(1, 1), flip=0, colour_jitter=0, batch_size=1, workers=0
    )
    module = UNetModule(2, padded=True, width=2, **settings)
    step, seen = module.training_step, []
    monkeypatch.setattr(module, "training_step", lambda *a: seen.append(a[0]) or step(*a))
    Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        limit_val_batches=0,
    ).fit(module, datamodule=data)  # fmt: skip
    return module, seen[0]


def test_touching_objects_of_one_class_are_kept_apart(
    touching: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = fitted_batch(touching, monkeypatch)
    owner = np.zeros((48, 48), np.int64)
    owner[5:20, 4:14] = owner[28:32, 4:9] = 1
    owner[5:20, 14:24] = 2
    top = int((batch["mask"][0] != 255).any(1).nonzero()[0])
    owner = np.roll(owner, top, axis=0)  # padding lies above or below
    assert ((batch["mask"][0].numpy() == 1) == (owner > 0)).all()
    weights = module.border_map(batch["mask"], batch["instances"])[0].numpy()
    np.testing.assert_allclose(weights, by_hand(owner), atol=1e-4)
    # Of the pixels at their border one is on it, the other's is one pixel away.
    assert weights[top + 10, 13:15] == pytest.approx(10 * np.exp(-1 / 50), rel=1e-5)
    assert weights[top + 10, 40] < 0.1  # not from the crowd


def test_without_border_weights_no_instances_are_painted(
    touching: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, batch = fitted_batch(touching, monkeypatch, border_weight=0.0)
    assert batch.keys() == {"image", "mask", "image_id"}


def small(**settings) -> UNetModule:
    torch.manual_seed(0)
    return UNetModule(3, width=2, **settings).eval()


def photo(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    image = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    coarse = torch.randint(0, 3, (2, -(-height // 8), -(-width // 8)))
    numbers = torch.randint(1, 6, coarse.shape)
    mask, instances = (
        one.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].contiguous()
        for one in (coarse, numbers)
    )
    mask[:, :5, 7:20] = 255
    return image, mask, instances


@pytest.mark.parametrize("class_weights", [None, [0.5, 1.0, 4.0]])
def test_every_pixel_s_term_is_weighted_before_the_mean(class_weights) -> None:
    module = small(padded=True, class_weights=class_weights)
    image, mask, instances = photo(32, 48)
    logits = module(image).double()
    top = bottom = 0.0
    # An object is where the mask shows one, whatever the instances say elsewhere.
    maps = [by_hand(owner.numpy()) for owner in instances * ((mask > 0) & (mask < 255))]
    for n, y, x in np.ndindex(*mask.shape):
        label = int(mask[n, y, x])
        if label != 255:
            weight = (class_weights or [1, 1, 1])[label] + maps[n][y, x]
            top += weight * -logits[n, :, y, x].log_softmax(0)[label].item()
            bottom += weight
    assert module.loss(image, mask, instances).item() == pytest.approx(top / bottom, rel=1e-4)


def test_without_padding_only_the_inside_of_a_crop_counts() -> None:
    module = small(border_weight=0)
    image, mask, _ = photo(204, 188)
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
    assert small().loss(image, near, near) != small().loss(image, far, far)


def test_a_crop_without_labels_has_no_loss() -> None:
    module = small(padded=True)
    image, mask, instances = photo(32, 32)
    loss = module.loss(image, torch.full_like(mask, 255), instances)
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in module.parameters())


def test_refuses_a_crop_that_has_no_inside() -> None:
    with pytest.raises(ValueError, match=r"16k \+ 12 pixels from 188 on; got 96x64; set data.crop"):
        small().loss(*photo(96, 64))


def test_refuses_to_weigh_borders_without_instances() -> None:
    message = r"model.border_weight is 10.0, and the batch has no `instances` .*; set it to 0, or"
    with pytest.raises(ValueError, match=message):
        small(padded=True).loss(*photo(32, 32)[:2])


def test_builds_the_released_network_where_that_is_asked_for() -> None:
    with torch.device("meta"):
        module = UNetModule(21, release=True)
    assert sum(p.numel() for p in module.parameters()) == 31_102_741


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
