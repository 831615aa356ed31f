import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from segment.data.coco import CocoFile
from segment.data.dataset import CocoSegmentation, Draw
from segment.data.taxonomy import IGNORE


@pytest.fixture
def coco(tmp_path: Path) -> CocoFile:
    """Two photos of 6x9 pixels, each with a 2x3 bottle."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, name in [(40, "a.png"), (0, "b.png")]:
        pixels = rng.integers(1, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        images.append({"id": number, "file_name": name, "height": 6, "width": 9})
        square = [[1, 1, 4, 1, 4, 3, 1, 3]]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 0, "segmentation": square}
        )
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 0, "name": "Bottle"}]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return CocoFile(tmp_path / "coco.json", tmp_path)


AUGMENT = v2.Compose([v2.RandomCrop(4), v2.RandomHorizontalFlip(0.5), v2.ColorJitter(0.5)])


def same(left: dict, right: dict) -> bool:
    return all(bool((left[key] == right[key]).all()) for key in ("image", "mask"))


def test_an_item_has_three_keys_with_their_types(coco: CocoFile) -> None:
    dataset = CocoSegmentation(coco)
    assert len(dataset) == 2
    item = dataset[0]
    assert sorted(item) == ["image", "image_id", "mask"]
    assert isinstance(item["image"], tv_tensors.Image)
    assert isinstance(item["mask"], tv_tensors.Mask)
    assert (item["image"].shape, item["image"].dtype) == ((3, 6, 9), torch.uint8)
    assert (item["mask"].shape, item["mask"].dtype) == ((6, 9), torch.int64)
    assert (item["mask"].sum().item(), item["image_id"]) == (6, 40)
    pixels = np.asarray(Image.open(coco.photo_path(coco.photos[0])))
    assert (item["image"].permute(1, 2, 0).numpy() == pixels).all()


def test_a_draws_seed_decides_and_the_global_generator_is_untouched(coco: CocoFile) -> None:
    dataset = CocoSegmentation(coco, AUGMENT)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = dataset[Draw(0, seed=7, counted=True)]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert same(first, dataset[Draw(0, 7, True)])
    assert not all(same(first, dataset[Draw(0, seed, True)]) for seed in range(8, 12))
    assert first["image"].shape == (3, 4, 4)


def test_without_a_seed_the_global_generator_decides(coco: CocoFile) -> None:
    dataset = CocoSegmentation(coco, AUGMENT)
    torch.manual_seed(3)
    first = dataset[0]
    torch.manual_seed(3)
    assert same(first, dataset[Draw(0, None, True)])


def test_a_photo_that_does_not_count_comes_back_unlabelled(coco: CocoFile) -> None:
    item = CocoSegmentation(coco, AUGMENT)[Draw(1, 5, counted=False)]
    assert isinstance(item["mask"], tv_tensors.Mask)
    assert (item["mask"] == IGNORE).all()
    assert (item["mask"].dtype, item["mask"].shape) == (torch.int64, (4, 4))
    assert item["image_id"] == -1


@pytest.mark.parametrize("workers", [0, 2])
def test_draws_pass_through_a_loader(coco: CocoFile, workers: int) -> None:
    draws = [Draw(1, 5, True), Draw(0, 6, False)]
    loader = DataLoader(
        CocoSegmentation(coco, AUGMENT),
        sampler=draws,  # type: ignore[arg-type]
        batch_size=2,
        num_workers=workers,
    )
    batch = next(iter(loader))
    assert batch["image_id"].tolist() == [0, -1]
    assert batch["image_id"].dtype == torch.int64
    alone = CocoSegmentation(coco, AUGMENT)[Draw(1, 5, True)]
    assert (batch["image"][0] == alone["image"]).all()


def skipping(coco: CocoFile) -> CocoFile:
    return CocoFile(coco.path, coco.root, on_bad_photo="skip")


def test_a_photo_that_cannot_be_read_stops_by_name(coco: CocoFile) -> None:
    coco.photo_path(coco.photos[1]).write_bytes(b"gone")
    with pytest.raises(ValueError, match=r"b.png: not a photo"):
        CocoSegmentation(coco)[1]


def test_or_is_skipped_black_and_unlabelled_with_one_warning(
    coco: CocoFile, caplog: pytest.LogCaptureFixture
) -> None:
    coco.photo_path(coco.photos[1]).unlink()
    told = (
        f"{coco.photo_path(coco.photos[1])}: no such photo; restore the file or correct the path."
    )
    assert skipping(coco).warnings == [f"{coco.path}: {told}"]
    dataset = CocoSegmentation(skipping(coco))
    dataset.instances = True
    with caplog.at_level(logging.WARNING):
        items = [dataset[1], dataset[1]]
    assert items[0].keys() == dataset[0].keys()
    assert items[0]["instances"].shape == (6, 9)
    assert (items[0]["image"] == 0).all()
    assert (items[0]["mask"] == IGNORE).all()
    assert (items[0]["image"].shape, items[0]["mask"].shape) == ((3, 6, 9), (6, 9))
    assert (items[0]["image"].dtype, items[0]["mask"].dtype) == (torch.uint8, torch.int64)
    assert (items[0]["image_id"], int(dataset.skipped.sum())) == (0, 1)
    assert [record.message for record in caplog.records] == [f"skipping a photo: {told}"]


def test_a_photo_changed_since_the_check_is_refused_even_when_skipping(coco: CocoFile) -> None:
    changed = skipping(coco)
    Image.new("RGB", (6, 9)).save(coco.photo_path(coco.photos[0]))
    with pytest.raises(ValueError, match=r"a.png: is 9x6 \(height x width\), and 6x9 in"):
        CocoSegmentation(changed)[0]


def test_on_bad_photo_is_one_of_two_words(coco: CocoFile) -> None:
    with pytest.raises(ValueError, match=r"on_bad_photo is 'ignore'; write 'stop' or 'skip'"):
        CocoFile(coco.path, coco.root, on_bad_photo="ignore")  # type: ignore[arg-type]
