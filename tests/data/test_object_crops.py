import json
from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors

from segment.data.coco import CocoFile
from segment.data.datamodule import TrashDataModule
from segment.data.object_crops import ObjectCrop, enlarged, overlap, proposal
from segment.data.taxonomy import Taxonomy

HEIGHT, WIDTH = 100, 80


def rectangle(top: int, left: int, bottom: int, right: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture
def coco(tmp_path: Path) -> CocoFile:
    """Photo 1 with a bottle and a can that overlap; photo 2 with nothing."""
    outlines = {1: rectangle(20, 30, 40, 50), 2: rectangle(36, 44, 76, 74)}
    content = {
        "images": [
            {"id": id_, "file_name": f"{id_}.png", "height": HEIGHT, "width": WIDTH}
            for id_ in (1, 2)
        ],
        "categories": [{"id": 1, "name": "Bottle"}, {"id": 2, "name": "Can"}],
        "annotations": [
            {"id": id_, "image_id": 1, "category_id": id_, "segmentation": outline, "iscrowd": 0}
            for id_, outline in outlines.items()
        ],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    return CocoFile(path, tmp_path, check_photos=False)


def item(coco: CocoFile, image_id: int) -> dict:
    """Red is a pixel's row, green its column."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    image = torch.stack([rows, columns, 0 * rows]).to(torch.uint8)
    mask = torch.from_numpy(coco.paint(coco.photos[image_id - 1])).long()
    return {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask), "image_id": image_id}


def draws(coco: CocoFile, kind: str, number: int = 40) -> list[dict]:
    transform = ObjectCrop(coco, kind, 48, flip=0.5)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return [transform(item(coco, 1)) for _ in range(number)]


def test_stage_1_shows_one_object_and_makes_the_other_background(coco: CocoFile) -> None:
    # The boxes, 1.2 times as large: 18 to 42, 28 to 52; and 32 to 80, 41 to 77.
    reach = {1: (18, 42, 28, 52), 2: (32, 80, 41, 77)}
    seen = []
    for out in draws(coco, "object"):
        (shown,) = set(out["mask"].unique().tolist()) - {0}
        seen.append(shown)
        assert out["image"].shape == (3, 48, 48)
        top, bottom, left, right = reach[shown]
        rows, columns = out["image"][0], out["image"][1]
        assert top <= rows.min() < rows.max() < bottom
        assert left <= columns.min() < columns.max() < right
        # 224 of every 250 pixels of it.
        assert int(rows.max()) - int(rows.min()) >= 0.85 * (bottom - top) - 3
    assert 10 < seen.count(1) < 30


def test_stage_2_keeps_every_class(coco: CocoFile) -> None:
    shown = [frozenset(out["mask"].unique().tolist()) for out in draws(coco, "proposal")]
    assert frozenset({0, 1, 2}) in shown
    assert len(set(shown)) > 1


def test_a_crop_may_be_a_single_pixel(coco: CocoFile) -> None:
    assert ObjectCrop(coco, "proposal", 1, flip=0)(item(coco, 2))["image"].shape == (3, 1, 1)


@pytest.mark.parametrize("kind", ["object", "proposal"])
def test_mask_moves_with_the_image(coco: CocoFile, kind: str) -> None:
    whole = item(coco, 1)["mask"]
    for out in draws(coco, kind, 10):
        rows, columns = out["image"][0].long(), out["image"][1].long()
        there = whole[rows, columns]
        inner = (out["mask"] == 1) | (out["mask"] == 2)
        # Colours are rounded between pixels, labels are the nearest: edges may differ by one.
        assert (there[inner] == out["mask"][inner]).float().mean() > 0.85


def test_unlabelled_pixels_stay_unlabelled(coco: CocoFile) -> None:
    before = item(coco, 1)
    before["mask"][:30] = 255
    torch.manual_seed(0)
    transform = ObjectCrop(coco, "object", 48, flip=0)
    for _ in range(10):
        out = transform(before)
        rows = out["image"][0]
        assert (out["mask"][rows < 29] == 255).all()
        assert (out["mask"][rows > 31] != 255).all()


def test_a_photo_without_objects_is_taken_whole(coco: CocoFile) -> None:
    for kind in ("object", "proposal"):
        out = ObjectCrop(coco, kind, 48, flip=0)(item(coco, 2))  # type: ignore[arg-type]
        assert not out["mask"].any()
        rows = out["image"][0]
        assert int(rows.max()) - int(rows.min()) > 0.8 * HEIGHT


def test_boxes_by_hand() -> None:
    assert enlarged((20, 30, 40, 50), 1.2, (100, 80)) == (18, 28, 42, 52)
    assert enlarged((1, 30, 41, 78), 1.2, (100, 80)) == (0, 25, 45, 80)
    assert overlap((0, 0, 10, 10), (0, 5, 10, 15)) == pytest.approx(50 / 150)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0


@pytest.mark.parametrize("box", [(20, 30, 40, 50), (0, 0, 100, 80), (99, 79, 100, 80)])
def test_proposals_differ_and_overlap_their_object_by_half_or_more(box) -> None:
    torch.manual_seed(0)
    drawn = [proposal(box, (100, 80)) for _ in range(200)]
    for top, left, bottom, right in drawn:
        assert 0 <= top < bottom <= 100
        assert 0 <= left < right <= 80
        assert overlap(box, (top, left, bottom, right)) >= 0.5
    if box == (20, 30, 40, 50):
        assert len(set(drawn)) > 100
        assert min(overlap(box, one) for one in drawn) < 0.6


def test_needs_a_background(coco: CocoFile) -> None:
    taxonomy = Taxonomy.load("camvid11")
    assert taxonomy.background is None
    coco.taxonomy = taxonomy
    with pytest.raises(ValueError, match="makes all but one object background, and the taxonomy"):
        ObjectCrop(coco, "object", 48, flip=0)


@pytest.mark.parametrize("crop", ["object", "proposal"])
def test_batches_do_not_depend_on_the_number_of_workers(sample: Path, crop: str) -> None:
    def batches(workers: int) -> list:
        data = TrashDataModule(
            str(sample),
            taxonomy="trash10",
            crop=crop,  # type: ignore[arg-type]
            crop_size=32,
            batch_size=3,
            workers=workers,
            seed=4,
        )
        return list(data.train_dataloader())

    inline, parallel = batches(0), batches(1)
    assert len(inline) == 3
    for one, other in zip(inline, parallel, strict=True):
        assert one["image"].shape == (3, 3, 32, 32)
        assert one["mask"].shape == (3, 32, 32)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_refuses_a_crop_it_does_not_have(sample: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.crop is 'centre'; write 'random', 'object' or"):
        TrashDataModule(str(sample), crop="centre")  # type: ignore[arg-type]
