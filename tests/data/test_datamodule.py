import json
import logging
import math
import shutil
from pathlib import Path

import pytest
import torch

from segment.data.datamodule import TrashDataModule
from segment.data.sampler import PhotoSampler
from segment.data.stats import count


def draws(world: int, **settings: object) -> list[list]:
    return [
        list(PhotoSampler(10, 5, rank=rank, world_size=world, **settings))  # type: ignore[arg-type]
        for rank in range(world)
    ]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 10, 16])
def test_evaluation_counts_every_photo_once(world: int) -> None:
    shares = draws(world, shuffle=False)
    assert len({len(share) for share in shares}) == 1  # collectives wait for all processes
    counted = [draw.index for share in shares for draw in share if draw.counted]
    assert sorted(counted) == list(range(10))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_training_misses_no_photo(world: int) -> None:
    shares = draws(world, shuffle=True)
    assert {draw.index for share in shares for draw in share} == set(range(10))
    seeds = [draw.seed for share in shares for draw in share]
    assert len(set(seeds)) == len(seeds)


def test_every_epoch_and_seed_has_its_own_order_and_draws() -> None:
    def order(seed: int, epoch: int) -> tuple:
        sampler = PhotoSampler(50, seed, shuffle=True)
        sampler.set_epoch(epoch)
        return tuple(sampler)

    assert order(0, 3) == order(0, 3)
    assert len({order(0, 0), order(0, 1), order(1, 0)}) == 3


def batches(sample: Path, workers: int) -> list[dict[str, torch.Tensor]]:
    data = TrashDataModule(
        str(sample), taxonomy="trash10", crop_size=48, batch_size=3, workers=workers, seed=4
    )
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
    return list(loader)


def test_batches_do_not_depend_on_the_number_of_workers(sample: Path) -> None:
    torch.manual_seed(0)
    inline = batches(sample, 0)
    torch.manual_seed(1)
    parallel = batches(sample, 2)
    assert len(inline) == len(parallel) == 3
    for one, other in zip(inline, parallel, strict=True):
        assert one.keys() == {"image", "mask", "image_id"}
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_batch_is_what_the_conventions_say(sample: Path) -> None:
    batch = batches(sample, 0)[0]
    assert type(batch["image"]) is torch.Tensor
    assert (batch["image"].dtype, batch["image"].shape) == (torch.uint8, (3, 3, 48, 48))
    assert (batch["mask"].dtype, batch["mask"].shape) == (torch.int64, (3, 48, 48))
    assert set(batch["mask"].unique().tolist()) <= {*range(11), 255}


@pytest.mark.parametrize("crop", ["random", "object", "proposal"])
def test_instances_move_as_the_mask_does(sample: Path, crop: str) -> None:
    data = TrashDataModule(
        str(sample), taxonomy="trash10", crop_size=48, elastic=10, workers=0, seed=4, crop=crop
    )
    data.instances = True
    (batch,) = data.train_dataloader()
    classes: dict[tuple[int, int], set[int]] = {}
    for n, (mask, instances) in enumerate(zip(batch["mask"], batch["instances"], strict=True)):
        shown = (mask != 0) & (mask != 255)
        for number, class_id in zip(instances[shown].tolist(), mask[shown].tolist(), strict=True):
            classes.setdefault((n, number), set()).add(class_id)
        if crop != "object":  # which makes all others background
            assert not instances[mask == 0].any()
    assert len(classes) > len(batch["mask"]) / 2
    assert all(len(one) == 1 for one in classes.values())
    assert all(number > 0 for _, number in classes)


def test_one_taxonomy_for_all_splits(sample: Path) -> None:
    data = TrashDataModule(str(sample), workers=0)
    data.setup("fit")
    assert data.taxonomy == data.read("val").taxonomy
    own = json.loads((sample / "train.json").read_text())["categories"]
    names = tuple(category["name"] for category in sorted(own, key=lambda c: c["id"]))
    assert data.taxonomy.classes == ("Background", *names)


def test_says_which_classes_no_training_photo_shows(
    sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(sample, tmp_path / "set")
    train = tmp_path / "set" / "train.json"
    coco = json.loads(train.read_text())
    battery = next(c["id"] for c in coco["categories"] if c["name"] == "Battery")
    for annotation in coco["annotations"]:
        if annotation["category_id"] == battery:  # annotated still, but no pixel's centre is inside
            annotation["segmentation"] = [[9, 9.2, 9.4, 9.2, 9.4, 9.4]]
    train.write_text(json.dumps(coco))
    data = TrashDataModule(str(tmp_path / "set"), taxonomy="trash10")
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    pixels = count(data.read("train")).pixels
    absent = [name for name, n in zip(data.taxonomy.classes, pixels, strict=True) if n == 0]
    assert "Battery" in absent
    assert f"no training photo shows {', '.join(absent)};" in caplog.text


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", r"train.json: no photo shows a pixel of any object, .*; add `annotations`"),
        ("val", r"val.json: no photo has an annotation, .*; add `annotations`"),
    ],
)
@pytest.mark.parametrize("annotations", [None, []])
def test_refuses_to_train_without_a_label(
    sample: Path, tmp_path: Path, split: str, message: str, annotations: list | None
) -> None:
    shutil.copytree(sample, tmp_path / "set")
    path = tmp_path / "set" / f"{split}.json"
    content = json.loads(path.read_text())
    labels = {} if annotations is None else {"annotations": annotations}
    path.write_text(json.dumps({"images": content["images"], **labels}))
    with pytest.raises(ValueError, match=message):
        TrashDataModule(str(tmp_path / "set"), taxonomy="trash10").setup("fit")


@pytest.mark.parametrize("split", ["train", "val"])
def test_refuses_to_skip_every_photo(sample: Path, tmp_path: Path, split: str) -> None:
    root = tmp_path / "set"
    shutil.copytree(sample, root)
    *others, last = sorted((root / split).iterdir())
    data = TrashDataModule(str(root), taxonomy="trash10", on_bad_photo="skip")
    for path in others:
        path.write_bytes(path.read_bytes()[:1000])
    data.setup("fit")
    last.unlink()
    data = TrashDataModule(str(root), taxonomy="trash10", on_bad_photo="skip")
    with pytest.raises(ValueError, match=rf"{split}.json: not one of its \d photos can be read"):
        data.setup("fit")


def test_a_split_without_a_file_says_how_to_name_one(sample: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.test names no annotation file; .*--data\.test"):
        TrashDataModule(str(sample)).read("test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": 0}, r"data\.crop_size is 0"),
        ({"scale": (1.5, 0.5)}, r"data\.scale is \(1\.5, 0\.5\)"),
        ({"flip": 1.5}, r"data\.flip is 1\.5"),
        ({"colour_jitter": -1}, r"data\.colour_jitter is -1"),
        ({"batch_size": 0}, r"data\.batch_size is 0"),
        ({"workers": -1}, r"data\.workers is -1"),
        ({"short_side": 1}, r"data\.short_side is 1; give at least 2 pixels, or null"),
        ({"elastic": math.nan}, r"data\.elastic is nan; give 0 pixels or more"),
        ({"elastic": -1}, r"data\.elastic is -1"),
        ({"scale": (0.5, math.inf)}, r"data\.scale is \(0\.5, inf\)"),
    ],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrashDataModule("nowhere", **settings)
