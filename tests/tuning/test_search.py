"""The cache, the search and the halves, on photos whose edges tell their labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segment.bootstrap import measures, summed
from segment.crf import DenseCRF
from segment.tuning import search as module
from segment.tuning.cache import Cache, Example, compact, read_example, restored
from segment.tuning.gradient import learn
from segment.tuning.search import Search, count_all
from segment.tuning.verdict import falling, halves

CRF = DenseCRF(iterations=3, reference_size=60)


def write_example(path: Path, example: Example) -> None:
    np.savez(
        path,
        scores=torch.from_numpy(example.probabilities).log().half().numpy(),
        size=np.array(example.truth.shape),
        photo=example.photo,
        truth=example.truth,
    )


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
        write_example(paths[-1], Example(photo.astype(np.uint8), maps, truth))
    return paths


def test_scores_on_a_coarse_grid_are_kept_as_such() -> None:
    logits = 3 * torch.randn(5, 9, 12, generator=torch.Generator().manual_seed(0))
    fine = F.interpolate(logits[None], (72, 96), mode="bilinear", align_corners=False)[0]
    kept = compact(fine.softmax(0))
    assert kept.shape == (5, 9, 12)
    assert kept.dtype == torch.float16
    again = restored(kept.float(), (72, 96))
    torch.testing.assert_close(again, fine.softmax(0), atol=0.02, rtol=0)
    assert (again.argmax(0) == fine.argmax(0)).float().mean() >= 0.999


def test_scores_that_a_coarse_grid_would_lose_are_kept_whole() -> None:
    noise = torch.randn(5, 72, 96, generator=torch.Generator().manual_seed(1)).softmax(0)
    kept = compact(noise)
    assert kept.shape == (5, 72, 96)
    torch.testing.assert_close(restored(kept.float(), (72, 96)), noise, atol=2e-3, rtol=0)


def test_a_cache_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    Cache(tmp_path, {"checkpoint": "a"})
    Cache(tmp_path, {"checkpoint": "a"})
    with pytest.raises(ValueError, match="holds the answers of another checkpoint"):
        Cache(tmp_path, {"checkpoint": "b"})


def test_a_damaged_answer_is_refused(examples: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "1.npz"
    path.write_bytes(examples[0].read_bytes()[:200])
    with pytest.raises(ValueError, match="is damaged; delete it"):
        read_example(path)


def test_the_grid_finds_what_helps_and_never_tries_twice(
    examples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "trials.jsonl"
    search = Search(CRF, examples, 2, 0, known, "miou", workers=0)
    raw = search.score(None)
    told = []
    search.told = lambda trial, best: told.append((trial, best))
    search.grid(60)
    assert search.best.scores["miou"] > raw.scores["miou"] + 0.1
    assert len(known.read_text().splitlines()) == len(search.trials) == len(set(search.trials))
    coarse = [t for t in search.trials.values() if t.point and t.point[0] in (3, 5, 10)][:27]
    assert search.best.scores["miou"] >= max(t.scores["miou"] for t in coarse)
    # Neighbours at the finest step are no better: that is when it stops.
    best = search.best
    assert all(trial.scores["miou"] <= best.scores["miou"] for trial, _ in told)

    # As after a kill: half a line at the end, and one trial lost.
    lines = known.read_text().splitlines()
    known.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:9])
    counted = []
    real = module.count_all
    monkeypatch.setattr(module, "count_all", lambda *a: counted.append(a[1]) or real(*a))
    again = Search(CRF, examples, 2, 0, known, "miou", workers=0)
    again.score(None)
    again.grid(60)
    assert len(counted) == 1
    assert again.best == best


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
    found = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        known = tmp_path / folder / "trials.jsonl"
        search = Search(CRF, examples[:2], 2, 0, known, "miou", workers=0)
        search.optuna(60, trials=6, seed=1)
        found.append([json.loads(line)["point"] for line in known.read_text().splitlines()])
    assert found[0] == found[1]
    assert len(found[0]) == 6


def test_learnt_weights_beat_those_it_started_from(examples: list[Path]) -> None:
    weak = DenseCRF(iterations=3, position_weight=0.1, bilateral_weight=0.1, reference_size=60)
    losses: list[float] = []
    learnt = learn(weak, examples, 2, epochs=4, lr=0.1, seed=0, told=losses.append)
    assert len(losses) == 24
    before, after = (
        measures(summed(count_all(examples, crf, 2, 0)), 0)["miou"] for crf in (weak, learnt)
    )
    assert after > before + 0.05
    assert learnt.reference_size == 60
    assert learnt.bilateral_width_px == weak.bilateral_width_px


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
