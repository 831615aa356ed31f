"""The cache, the search and the halves, on photos whose edges tell their labels."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from tuning_examples import write_example

from segment.bootstrap import measures, summed
from segment.crf import DenseCRF
from segment.tuning import gradient
from segment.tuning import search as module
from segment.tuning.cache import Cache, Example, Grid, compact, read_example, restored
from segment.tuning.gradient import Learning
from segment.tuning.search import Search, around, pool_for
from segment.tuning.verdict import Held, falling, halves

CRF = DenseCRF(iterations=3, reference_size=60)


def count_all(paths, crf, num_classes, workers, guides=None):
    pool = pool_for(CRF, workers)
    try:
        return module.count_all(paths, crf, num_classes, pool, guides)
    finally:
        pool.close()


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six photos of a bright disc, which the network has seen through noise."""
    root = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:50, :60]
    paths = []
    for number in range(6):
        cy, cx = rng.uniform(15, 35, 2)
        truth = ((y - cy) ** 2 + (x - cx) ** 2 < 144).astype(np.uint8)
        photo = (60 + 120 * truth[..., None] + rng.normal(0, 6, (50, 60, 3))).clip(0, 255)
        blurred = F.avg_pool2d(torch.from_numpy(truth)[None].float(), 9, 1, 4)[0].numpy()
        score = 4 * (blurred - 0.5) + rng.normal(0, 1, truth.shape)
        inside = 1 / (1 + np.exp(-score))
        maps = np.stack([1 - inside, inside]).astype(np.float32)
        paths.append(root / f"{number}.npz")
        write_example(paths[-1], Example(photo.astype(np.uint8), maps, truth, (50, 60)))
    return paths


@pytest.mark.parametrize(
    ("size", "corner"), [((72, 96), 0), ((65, 97), 1), ((70, 91), 0), ((60, 91), 1)]
)
def test_scores_on_a_coarse_grid_are_kept_as_such(size: tuple[int, int], corner: int) -> None:
    """Networks of stride 8 pad photos, interpolate as torch does, and crop."""
    grid = [-(-(side - corner) // 8) + corner for side in size]
    logits = 3 * torch.randn(5, *grid, generator=torch.Generator().manual_seed(0))
    padded = [8 * (n - corner) + corner for n in grid]
    fine = F.interpolate(logits[None], padded, mode="bilinear", align_corners=bool(corner))[0]
    fine = fine[:, : size[0], : size[1]].softmax(0)
    kept, found = compact(fine)
    assert found == Grid(8, corner)
    assert kept.shape == (5, *grid)
    assert kept.dtype == torch.float16
    torch.testing.assert_close(restored(kept, found, size), fine, atol=0.02, rtol=0)


def test_scores_that_a_coarse_grid_would_lose_are_kept_whole() -> None:
    noise = torch.randn(5, 72, 96, generator=torch.Generator().manual_seed(1)).softmax(0)
    kept, grid = compact(noise)
    assert grid == Grid(1, 1)
    torch.testing.assert_close(restored(kept, grid, (72, 96)), noise, atol=2e-3, rtol=0)


def test_a_cache_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    Cache(tmp_path, {"checkpoint": "a"})
    Cache(tmp_path, {"checkpoint": "a"})
    with pytest.raises(ValueError, match="holds the answers of another checkpoint"):
        Cache(tmp_path, {"checkpoint": "b"})


@pytest.mark.parametrize("content", [b"", b'{"checkpoint": ', b"\xff\xfe"])
def test_a_cache_that_does_not_say_whose_it_is_is_refused(tmp_path: Path, content: bytes) -> None:
    Cache(tmp_path, {"checkpoint": "a"})
    (tmp_path / "identity.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"identity\.json: is damaged.*; delete "):
        Cache(tmp_path, {"checkpoint": "a"})


@pytest.mark.parametrize("line", [b"12", b"[]", b'{"point": [1, 2, 3]}', b"\x80\x81",
                                  b'{"point": [1], "scores": {}}'])  # fmt: skip
def test_trials_that_are_none_are_refused(tmp_path: Path, line: bytes) -> None:
    known = tmp_path / "trials.jsonl"
    scores = dict.fromkeys(module.OBJECTIVES, 0.5)
    good = json.dumps({"point": [1, 2, 3], "scores": scores}).encode()
    known.write_bytes(good + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=r"trials\.jsonl: line 2 is no trial; delete the file"):
        Search(CRF, [], 2, 0, known, "miou", pool_for(CRF, 0))


def test_the_best_is_that_of_the_objective(tmp_path: Path) -> None:
    known = tmp_path / "trials.jsonl"
    points = {"miou": (1.0, 2.0, 3.0), "boundary_f1": (4.0, 5.0, 6.0), "trimap_miou": (7.0,) * 3}
    lines = [
        {"point": point, "scores": {name: float(name == best) for name in points}}
        for best, point in points.items()
    ]
    known.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for objective, point in points.items():
        search = Search(CRF, [], 2, 0, known, objective, pool_for(CRF, 0))
        for each in points.values():
            search.score(each)
        assert search.best is not None
        assert search.best.point == point


def test_a_damaged_answer_is_refused(examples: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "1.npz"
    path.write_bytes(examples[0].read_bytes()[:200])
    with pytest.raises(ValueError, match="is damaged; delete it"):
        read_example(path)


def searched(paths: list[Path], known: Path) -> Search:
    search = Search(CRF, paths, 2, 0, known, "miou", pool_for(CRF, 0))
    search.score(None)
    search.grid(60)
    return search


def test_the_grid_finds_what_helps_and_stops_where_no_step_does(
    examples: list[Path], tmp_path: Path
) -> None:
    known = tmp_path / "trials.jsonl"
    search = searched(examples, known)
    raw, best = search.trials[None], search.best
    assert best is not None
    assert best.point is not None
    assert best.scores["miou"] > raw.scores["miou"] + 0.1
    assert len(known.read_text().splitlines()) == len(search.trials)
    for neighbour in around(best.point, module.STEPS[-1], (math.inf, 60, 255)):
        assert search.trials[neighbour].scores["miou"] <= best.scores["miou"]


@pytest.mark.parametrize("kept", [0, 1, 20, 30, -2])
def test_a_search_that_was_stopped_goes_the_same_way(
    examples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    known = tmp_path / "trials.jsonl"
    whole = searched(examples[:2], known)
    lines = known.read_text().splitlines()
    known.write_text("\n".join([*lines[:kept], lines[kept][:9]]))  # as after a kill
    counted = []
    real = module.count_all
    monkeypatch.setattr(module, "count_all", lambda *a: counted.append(a[1]) or real(*a))
    again = searched(examples[:2], known)
    assert len(counted) == len(lines) - len(lines[:kept])
    assert again.best == whole.best
    assert again.trials.keys() == whole.trials.keys()


def test_workers_change_nothing(examples: list[Path]) -> None:
    one, two = (count_all(examples, CRF, 2, workers) for workers in (0, 2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a, b)


def test_another_photo_s_edges_help_less(examples: list[Path]) -> None:
    own = count_all(examples, CRF, 2, 0)
    other = count_all(examples, CRF, 2, 0, examples[1:] + examples[:1])
    scores = [measures(summed(totals), 0)["miou"] for totals in (own, other)]
    assert scores[0] > scores[1] + 0.1


def test_optuna_is_seeded_and_resumes(examples: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("optuna")

    def points(known: Path, trials: int) -> list[list[float]]:
        search = Search(CRF, examples[:2], 2, 0, known, "miou", pool_for(CRF, 0))
        search.optuna(60, trials=trials, seed=1)
        return [json.loads(line)["point"] for line in known.read_text().splitlines()]

    whole = points(tmp_path / "whole.jsonl", 6)
    assert len(whole) == 6
    assert points(tmp_path / "stopped.jsonl", 4) == whole[:4]
    assert points(tmp_path / "stopped.jsonl", 6) == whole


WEAK = DenseCRF(iterations=3, position_weight=0.1, bilateral_weight=0.1, reference_size=60)


def test_learnt_weights_beat_those_it_started_from(
    examples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient, "LR", 0.1)
    learning = Learning(WEAK, examples, 2, tmp_path / "steps.pt", seed=0)
    assert len(list(learning.run())) == len(learning) == 18  # three times six photos
    learnt = learning.learnt()
    before, after = (
        measures(summed(count_all(examples, crf, 2, 0)), 0)["miou"] for crf in (WEAK, learnt)
    )
    assert after > before + 0.05
    assert learnt.reference_size == 60
    assert learnt.bilateral_width_px == WEAK.bilateral_width_px


def test_a_learning_that_was_stopped_ends_where_one_never_stopped_does(
    examples: list[Path], tmp_path: Path
) -> None:
    def learning(name: str) -> Learning:
        return Learning(WEAK, examples[:2], 2, tmp_path / name, seed=1)

    whole = learning("whole.pt")
    assert len(list(whole.run())) == 6
    for _ in range(2):  # stopped in the middle of an epoch, then again
        steps = learning("cut.pt").run()
        for _ in range(2):
            next(steps)
    again = learning("cut.pt")
    assert len(again.steps) == 4
    assert len(list(again.run())) == 2
    assert again.steps == whole.steps
    assert again.learnt() == whole.learnt()
    assert list(learning("cut.pt").run()) == []  # nothing is left to do


def test_learning_shrinks_widths_with_the_photo(
    examples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 pixels are learnt from at 30: a kernel of 8 px is one of 4 there."""
    monkeypatch.setattr(gradient, "SIDE", 30)
    crf = replace(WEAK, bilateral_width_px=8.0, position_width_px=3.0)
    learning = Learning(crf, examples[:1], 2, tmp_path / "steps.pt", seed=0)
    next(learning.run())
    assert learning.layer.crf.bilateral_width_px == pytest.approx(4.0)
    assert learning.layer.crf.position_width_px == pytest.approx(1.5)


def test_a_damaged_learning_is_refused(examples: list[Path], tmp_path: Path) -> None:
    (tmp_path / "steps.pt").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is damaged; delete it, and learning starts over"):
        Learning(WEAK, examples, 2, tmp_path / "steps.pt", seed=0)


def test_widths_stay_within_the_photo_and_8_bits() -> None:
    most = (math.inf, 640.0, 255.0)
    assert [p[1] for p in around((3.0, 500.0, 200.0), 2.0, most)][2:4] == [250.0, 640.0]
    assert [p[2] for p in around((3.0, 500.0, 200.0), 2.0, most)][4:] == [100.0, 255.0]
    assert len(list(around((3.0, 640.0, 255.0), 2.0, most))) == 4  # wider ones are left out


def test_a_search_that_would_widen_for_ever_stops_at_the_photo(
    examples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "trials.jsonl"
    search = Search(CRF, examples[:2], 2, 0, known, "miou", pool_for(CRF, 0))

    def wider_is_better(point: module.Point) -> module.Trial:
        trial = module.Trial(point, {"miou": math.log(point[1] * point[2])})
        if search.best is None or trial.scores["miou"] > search.best.scores["miou"]:
            search.best = trial
        return trial

    monkeypatch.setattr(search, "score", wider_is_better)
    search.grid(60)
    assert search.best is not None
    assert search.best.point is not None
    assert search.best.point[1:] == (60.0, 255.0)


def test_widths_are_those_of_the_photo_s_own_size(tmp_path: Path, examples: list[Path]) -> None:
    """A photo of twice the size was reduced to this one: its CRF's widths shrink along."""
    with np.load(examples[0]) as file:
        np.savez(tmp_path / "large.npz", **{**file, "size": np.array([100, 120])})
    crf = DenseCRF(iterations=2, bilateral_width_px=40.0, position_width_px=4.0, max_side=60)
    half = DenseCRF(iterations=2, bilateral_width_px=20.0, position_width_px=2.0, max_side=60)
    large = count_all([tmp_path / "large.npz"], crf, 2, 0).calibration  # has the probabilities
    assert np.array_equal(large, count_all(examples[:1], half, 2, 0).calibration)
    assert not np.array_equal(large, count_all(examples[:1], crf, 2, 0).calibration)


def test_the_verdict_counts_blocks_and_speaks_of_its_objective(examples: list[Path]) -> None:
    """Each photo eight times: 48 photos, but only six that say anything of their own."""
    raw, refined = (count_all(examples * 8, crf, 2, 0) for crf in (None, CRF))
    totals = {"raw": raw, "refined": refined}
    apart, together = (
        Held(totals, ("ground", "disc"), 0, blocks)
        for blocks in (np.arange(48), np.tile(np.arange(6), 8))
    )
    widths = []
    for held in (apart, together):
        found = held.differences("refined")["miou"]
        widths.append(found.high - found.low)
    assert widths[1] > 2 * widths[0]
    assert "48 photos that tuned" in apart.verdict("refined", "miou", 0)
    said = together.verdict("refined", "boundary_f1", 2)
    gain = together.differences("refined")["boundary_f1"].value
    assert said.startswith(f"Verdict: refine (boundary F1 {gain:+.3f} (")
    assert "48 photos in 6 blocks" in said
    assert "Of fewer than 20 blocks such an interval is too narrow" in said
    assert "too narrow" not in apart.verdict("refined", "miou", 0)
    few = Held(totals, ("ground", "disc"), 0, np.tile(np.arange(2), 24))
    assert "too few blocks for an interval), 48 photos in 2" in few.verdict("refined", "miou", 0)


def test_halves_share_no_block() -> None:
    tuning, held = halves(23, 4, seed=0)
    assert sorted(tuning + held) == list(range(23))
    assert not {n // 4 for n in tuning} & {n // 4 for n in held}
    assert abs(len(tuning) - len(held)) <= 4
    assert halves(23, 4, seed=1) != (tuning, held)
    with pytest.raises(ValueError, match="make 1 blocks"):
        halves(4, 4, seed=0)


def test_a_class_that_falls_is_told(examples: list[Path]) -> None:
    raw = count_all(examples, None, 2, 0)
    assert falling(raw, count_all(examples, CRF, 2, 0), 0) == []
    smeared = DenseCRF(iterations=10, position_weight=50.0, position_width_px=30.0)
    assert 1 in falling(raw, count_all(examples, smeared, 2, 0), 0)
