"""Holm by hand, blocks, seeds, and what is said of a difference."""

from pathlib import Path

import numpy as np
import pytest
from making import make_set, write_run

from segment.comparison import Comparison, compare, load_runs
from segment.comparison.differences import holm
from segment.comparison.sides import block_numbers
from segment.comparison.words import MIOU, findings, sentence
from segment.data.coco import CocoFile


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> CocoFile:
    return make_set(tmp_path_factory.mktemp("set") / "set", photos=24)


@pytest.fixture(scope="module")
def found(coco: CocoFile, tmp_path_factory: pytest.TempPathFactory) -> list[Comparison]:
    """A good network of three seeds, a bad one of two, and twins that are wrong equally often."""
    root = tmp_path_factory.mktemp("runs")
    folders = [write_run(root / f"g{s}", coco, 0.1, 0.05, "good", s) for s in range(3)]
    folders += [write_run(root / f"b{s}", coco, 0.4, 0.4, "bad", s) for s in range(2)]
    folders += [write_run(root / f"t{n}", coco, 0.2, 0.25, f"twin{n}") for n in range(2)]
    return compare(load_runs(folders)[0])


def one(found: list[Comparison], level: str, kind: str, first: str, second: str) -> Comparison:
    (only,) = [
        c
        for c in found
        if (c.level, c.kind) == (level, kind) and {c.first.name, c.second.name} == {first, second}
    ]
    return only


def test_holm_by_hand() -> None:
    # Sorted: .01 x 4, .02 x 3, .03 x 2, .04 x 1; none may be below the one before it.
    np.testing.assert_allclose(
        holm(np.array([0.03, 0.01, np.nan, 0.04, 0.02])), [0.06, 0.04, np.nan, 0.06, 0.06]
    )
    np.testing.assert_allclose(holm(np.array([0.7, 0.6])), [1, 1])


def test_every_pair_and_every_refinement_is_compared_once(found: list[Comparison]) -> None:
    checkpoints = [c for c in found if c.level == "checkpoints"]
    assert len(checkpoints) == 7 * 6 // 2 * 2 + 7
    # The twins' settings are alike, and so is their seed: they are two sides, not one of two seeds.
    assert len([c for c in found if c.level == "experiments"]) == 4 * 3 // 2 * 2 + 4
    assert all(c.tests[MIOU] == len(checkpoints) for c in checkpoints)


def test_a_real_difference_is_shown_and_twins_are_not_told_apart(found: list[Comparison]) -> None:
    pair = one(found, "checkpoints", "raw", "good seed 0", "bad seed 1")
    assert pair.verdict(MIOU) == 1
    said = sentence(pair, MIOU)
    assert said.startswith("good seed 0 beats bad seed 1 on mean IoU (raw labels): +0.")
    assert said.endswith("these two checkpoints, not of the architectures: one seed each.")
    twins = sentence(one(found, "checkpoints", "raw", "twin0", "twin1"), MIOU)
    assert twins.startswith("No difference that 24 photos could show between twin")


def test_seeds_are_spoken_of(found: list[Comparison]) -> None:
    apart = one(found, "experiments", "raw", "good (3 seeds)", "bad (2 seeds)")
    assert sentence(apart, MIOU).endswith(
        "This speaks of trainings like these 3 of good (3 seeds) and of trainings like these 2 of "
        "bad (2 seeds)."
    )
    mixed = one(found, "experiments", "raw", "twin0", "bad (2 seeds)")
    assert "of one checkpoint of twin0" in sentence(mixed, MIOU)


def test_refining_helps_one_and_hurts_another(found: list[Comparison]) -> None:
    good = "good (3 seeds)"
    refining = one(found, "experiments", "refining", good, good)
    assert sentence(refining, MIOU).startswith("Refining helps good (3 seeds) on mean IoU: +0.")
    assert sentence(refining, MIOU).endswith("This speaks of trainings like these 3.")
    twin = one(found, "experiments", "refining", "twin0", "twin0")
    assert twin.verdict(MIOU) == -1
    assert sentence(twin, MIOU).endswith("this checkpoint, not of the architecture: one seed.")
    same = one(found, "experiments", "refining", "bad (2 seeds)", "bad (2 seeds)")
    assert same.value[MIOU] == 0
    assert same.verdict(MIOU) == 0
    said = " ".join(findings(found))
    assert "Highest mean IoU of raw labels: good (3 seeds) (0." in said
    assert "makes no difference that 24 photos and 2 seeds could show to bad (2 seeds)" in said


def test_frames_of_a_drive_are_one_block(coco: CocoFile, tmp_path: Path) -> None:
    runs, _ = load_runs([write_run(tmp_path / n, coco, 0.2, experiment=n) for n in "ab"])
    alone, drives = (compare(runs, group)[0] for group in (None, r"^drive(\d+)_"))
    assert (alone.blocks, drives.blocks, drives.photos) == (24, 12, 24)
    np.testing.assert_array_equal(alone.value, drives.value)
    few = compare(runs, r"(\d)\.png")  # the last digit: ten blocks; the first of two: fewer
    assert few[0].blocks == 10
    lone = compare(runs, "^d")[0]
    assert lone.blocks == 1
    assert np.isnan(lone.low).all()
    assert sentence(lone, MIOU).startswith("Too few blocks of photos to say how sure")


def test_block_numbers_by_hand() -> None:
    assert block_numbers(["a_1", "b_1", "a_2"], "^[^_]+").tolist() == [0, 1, 0]
    assert block_numbers(["a_1", "b_1", "a_2"], r"_(\d)").tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=r"--group \(: is no regular expression .*; write one"):
        block_numbers(["a"], "(")
    with pytest.raises(ValueError, match=r"--group z: does not match the photo a; every photo"):
        block_numbers(["a"], "z")
