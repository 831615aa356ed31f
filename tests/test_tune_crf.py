"""`python -m segment.tune_crf` from a run to a CRF that the other verbs take."""

import fcntl
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tuning_examples import write_example

from segment import evaluate, runs, tune_crf
from segment.crf import DenseCRF
from segment.data.dataset import CocoSegmentation
from segment.modules.loading import load_checkpoint
from segment.tuning import gradient, search
from segment.tuning.cache import Cache, Example


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of four points and one step around the best."""
    monkeypatch.setattr(search, "COARSE", ((3.0,), (30.0, 100.0), (3.0, 12.0)))
    monkeypatch.setattr(search, "STEPS", (2.0,))


def tune(run: Path, out: Path, *words: object) -> str:
    try:
        tune_crf.main(["--run", str(run), "--out", str(out), *map(str, words)])
    finally:  # the folder stays this process's
        while runs._HELD:
            runs._HELD.pop().close()
    return (out / "tuning.md").read_text()


def scores(text: str) -> str:
    """Of a tuning.md, all but the seconds, which differ from run to run."""
    return re.sub(r"\d+\.\d\d \|$", "|", text, flags=re.MULTILINE)


def test_a_run_gets_a_crf_a_table_a_picture_and_a_verdict(
    tiny_run: Path, few: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tune(tiny_run, tmp_path / "crf", "--score_workers", 2)
    assert text in capsys.readouterr().out
    assert "Verdict: " in text
    for row in (
        "| raw |",
        "| as given |",
        "| published for DeepLab v2 (ResNet-101) |",
        "| tuned by grid |",
        "| control: another photo's edges |",
    ):
        assert row in text
    assert (tmp_path / "crf" / "landscape.png").read_bytes()[1:4] == b"PNG"
    settings = yaml.safe_load((tmp_path / "crf" / "crf.yaml").read_text())
    crf = DenseCRF(**settings)
    assert crf.reference_size == 64
    assert crf.iterations == 2  # the run's own, which nothing searched

    # The same command again has nothing left to try and comes to the same.
    (trials,) = (tmp_path / "crf").glob("trials.*.jsonl")
    before = trials.read_bytes()
    assert re.search(r"^\| as given \|( \d\.\d{3} \|){3} \d+\.\d\d \|$", text, re.MULTILINE)
    assert scores(tune(tiny_run, tmp_path / "crf", "--score_workers", 0)) == scores(text)
    assert trials.read_bytes() == before

    # What was found goes into another verb, which says that these photos tuned it.
    out = tmp_path / "evaluation"
    found = str(tmp_path / "crf" / "crf.yaml")
    evaluate.main(["--run", str(tiny_run), "--crf", found, "--out", str(out)])
    assert "the same photos tuned the CRF" in capsys.readouterr().out
    told = json.loads((out / "evaluation.json").read_text())
    assert told["crf"]["parameters"]["bilateral_width_px"] == crf.bilateral_width_px


def test_classes_that_fall_are_gated_and_judged_so_on_the_other_half(
    tiny_run: Path,
    few: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network that is right, and a position kernel that smears small things away."""

    def right(cache: Cache, module: object, dataset: CocoSegmentation, photo, crf) -> None:
        item = dataset[dataset.coco.photos.index(photo)]
        truth = item["mask"].numpy().astype(np.uint8)
        known = np.where(truth == 255, 0, truth)
        maps = np.where(np.arange(11)[:, None, None] == known, 0.8, 0.02).astype(np.float32)
        image = item["image"].permute(1, 2, 0).numpy()
        write_example(cache.path(photo), Example(image, maps, truth, truth.shape))

    monkeypatch.setattr(Cache, "_ask", right)
    smeared = ["--crf.position_width_px", 40, "--crf.position_weight", 60, "--crf.iterations", 5]
    text = tune(tiny_run, tmp_path, "--score_workers", 0, *smeared)
    kept = DenseCRF(**yaml.safe_load((tmp_path / "crf.yaml").read_text())).keep_classes
    assert kept
    classes = load_checkpoint(runs.checkpoint_of(tiny_run)).taxonomy.classes
    (told,) = re.findall(r"keep their pixels, since that served the tuning half: (.*)\.\n", text)
    (ungated,) = tmp_path.glob("tuned.grid.*.yaml")
    listed = ", ".join(classes[train_id] for train_id in kept)
    assert told == f"{listed} ({ungated.name} is without that)"
    assert DenseCRF(**yaml.safe_load(ungated.read_text())).keep_classes is None
    assert "Tuned by grid and gated against tuned by grid: mean IoU +" in text
    rows = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+) \|", text, re.MULTILINE))
    # Kept classes keep their IoU on the half that was not asked, so the mean falls less.
    assert float(rows["tuned by grid"]) < float(rows["tuned by grid and gated"])
    by_class = text.split("| IoU | raw | tuned by grid and gated |")[1]
    for train_id in kept:
        (line,) = re.findall(rf"^\| {re.escape(classes[train_id])} \| (.*)$", by_class, re.M)
        raw, gated, difference = line.rstrip(" |").split(" | ")
        assert raw == gated
        assert difference.startswith(("+0.000", "not seen"))
    assert "nothing here shows that --crf" in capsys.readouterr().out  # of two photos


def test_each_half_has_its_part(
    tiny_run: Path, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is scored with what: the held-out half decides nothing, gating included."""
    calls: list[tuple[list[str], DenseCRF | None, list[str]]] = []

    def spy(paths, crf, classes, pool, guides=None):
        calls.append(([p.name for p in paths], crf, [p.name for p in guides or paths]))
        return search_count(paths, crf, classes, pool, guides)

    search_count = search.count_all
    monkeypatch.setattr(search, "count_all", spy)
    monkeypatch.setattr(tune_crf, "count_all", spy)
    monkeypatch.setattr(tune_crf, "falling", lambda raw, refined, background: [])
    text = tune(tiny_run, tmp_path, "--score_workers", 0, "--photos", 4)
    assert "2 photos tuned" in text
    assert "2 others are scored" in text
    tuning, rows = calls[0][0], calls[-5:]  # raw, as given, published, tuned, and the control
    held = rows[0][0]
    assert len(tuning) == len(held) == 2
    assert not set(tuning) & set(held)
    assert all(names == tuning for names, _, _ in calls[:-5])
    assert all(names == held for names, _, _ in rows)
    assert [guides == names for names, _, guides in calls] == [True] * (len(calls) - 1) + [False]
    control = rows[-1]
    assert control[2] == held[::-1]  # of two photos, the other one
    assert replace(control[1], tuned_on=None) == rows[-2][1]  # the CRF that is judged
    assert rows[2][1] == DenseCRF(
        iterations=10,
        bilateral_weight=4,
        bilateral_width_px=67,
        bilateral_width_levels=3,
        position_weight=3,
        position_width_px=1,
        normalization="after",
        reference_size=500,  # photos of PASCAL VOC
    )


@pytest.mark.parametrize(("with_kept", "kept"), [(0.4, None), (0.5, None), (0.6, [0])])
def test_a_class_is_gated_where_that_serves_the_objective(
    tiny_run: Path, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_kept, kept
) -> None:
    monkeypatch.setattr(tune_crf, "falling", lambda raw, refined, background: [0])
    guided = []
    real = tune_crf.count_all
    monkeypatch.setattr(
        tune_crf, "count_all", lambda *given: guided.append(given[1]) or real(*given)
    )
    values = itertools.cycle([{"miou": 0.9, "boundary_f1": v} for v in (0.5, with_kept)])
    monkeypatch.setattr(tune_crf, "measures", lambda totals, background: next(values))
    words = ["--score_workers", 0, "--photos", 2, "--objective", "boundary_f1"]
    text = tune(tiny_run, tmp_path, *words)
    assert DenseCRF(**yaml.safe_load((tmp_path / "crf.yaml").read_text())).keep_classes == kept
    assert ("| tuned by grid and gated |" in text) == bool(kept)
    assert guided[-1].keep_classes == kept  # the control's, too
    # A run that is gated already is searched without: what falls is found anew.
    again = tune(tiny_run, tmp_path / "again", *words[:4], "--crf.keep_classes", "[0]")
    (found,) = (tmp_path / "again").glob("tuned.grid.*.yaml")
    assert DenseCRF(**yaml.safe_load(found.read_text())).keep_classes is None
    assert "| as given |" in again


def test_another_working_size_needs_another_folder_and_two_at_once_one_each(
    tiny_run: Path, few: None, tmp_path: Path
) -> None:
    tune(tiny_run, tmp_path, "--score_workers", 0, "--photos", 2)
    with pytest.raises(ValueError, match="holds the answers of another checkpoint"):
        tune(tiny_run, tmp_path, "--photos", 2, "--crf.max_side", 32)
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is writing there"):
            tune(tiny_run, tmp_path, "--photos", 2)
    (found,) = tmp_path.glob("tuned.grid.*.yaml")
    found.write_text("iterations: many")
    with pytest.raises(ValueError, match=r"tuned\.grid.*is damaged; delete it"):
        tune(tiny_run, tmp_path, "--photos", 2, "--method", "gradient")


def test_an_answer_that_is_missing_is_asked_for_again(
    tiny_run: Path, few: None, tmp_path: Path
) -> None:
    text = tune(tiny_run, tmp_path, "--score_workers", 0)
    answers = sorted((tmp_path / "cache").glob("*.npz"))
    assert len(answers) == 5
    kept = answers[1].stat().st_mtime_ns
    answers[0].unlink()
    assert scores(tune(tiny_run, tmp_path, "--score_workers", 0)) == scores(text)
    assert answers[0].exists()
    assert answers[1].stat().st_mtime_ns == kept


def test_processes_share_the_asking(
    tiny_run: Path, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    tune_crf.main(["--run", str(tiny_run), "--out", str(tmp_path)])
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2  # of five photos every second
    assert not (tmp_path / "crf.yaml").exists()
    monkeypatch.setenv("RANK", "0")
    tune(tiny_run, tmp_path)
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 5


def test_optuna_ends_with_a_verdict_too(tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    words = ["--method", "optuna", "--trials", 3, "--objective", "boundary_f1"]
    text = tune(tiny_run, tmp_path, *words)
    assert "by optuna for boundary F1" in text
    assert re.search(r"Verdict: .* \(boundary F1 [+-]", text)


def test_the_gradient_goes_on_from_the_grid_and_from_where_it_was_stopped(
    tiny_run: Path, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(tiny_run, tmp_path, "--score_workers", 0)
    grid = DenseCRF(**yaml.safe_load((tmp_path / "crf.yaml").read_text()))
    seen: list[Path] = []
    real = gradient.Learning._loss

    def stopped_once(learning: gradient.Learning, path: Path) -> torch.Tensor:
        seen.append(path)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return real(learning, path)

    monkeypatch.setattr(gradient.Learning, "_loss", stopped_once)
    words = ["--method", "gradient", "--score_workers", 0]
    with pytest.raises(SystemExit) as ended:
        tune(tiny_run, tmp_path, *words)
    assert ended.value.code == 130
    text = tune(tiny_run, tmp_path, *words)
    assert len(seen) == 9 + 1  # three photos three times; the fifth step was begun twice
    assert seen[4] == seen[5]
    assert "by gradient of the cross-entropy" in text
    assert "| tuned by grid |" in text
    assert "| tuned by gradient |" in text
    assert "Tuned by gradient against tuned by grid: mean IoU " in text
    assert (tmp_path / "curves.png").read_bytes()[1:4] == b"PNG"
    crf = DenseCRF(**yaml.safe_load((tmp_path / "crf.yaml").read_text()))
    assert crf.bilateral_width_px == grid.bilateral_width_px
    assert crf.bilateral_width_levels == grid.bilateral_width_levels
    assert crf.compatibility is not None
    assert "from what grid found for mean IoU" in text
    # Of another objective there is no grid to start from, and that is said.
    other = tune(tiny_run, tmp_path, *words, "--objective", "boundary_f1")
    assert "since no grid for boundary F1 was run here" in other
    assert "| tuned by grid |" not in other


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--photos", "9", "--block_size", "5"], "two blocks of 5 photos are 10"),
        (["--photos", "10", "--block_size", "5"], "make 1 blocks"),
        (["--split", "test"], "data.test names no annotation file"),
        (["--checkpoint", "worst"], "no checkpoint 'worst'"),
    ],
)
def test_refuses(tiny_run: Path, tmp_path: Path, words: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        tune(tiny_run, tmp_path, *words)


def test_the_last_answer_is_the_network_s_own(tiny_run: Path, few: None, tmp_path: Path) -> None:
    """Cached answers score as evaluation does: 64-pixel photos are refined at their own size."""
    tune(tiny_run, tmp_path, "--score_workers", 0)
    own = json.loads((tiny_run / "evaluation.json").read_text())["raw"]["confusion"]
    paths = sorted((tmp_path / "cache").glob("*.npz"))
    pool = search.pool_for(DenseCRF(), 0)
    cached = torch.from_numpy(search.count_all(paths, None, 11, pool).confusion.sum(0))
    assert (cached - torch.tensor(own)).abs().sum() <= 2 * 0.001 * cached.sum()


def test_photos_that_cannot_be_read_are_skipped_and_counted(
    tiny_run: Path, few: None, sample: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(sample, tmp_path / "copied"))
    photo = root / json.loads((root / "val.json").read_text())["images"][2]["file_name"]
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    words = ["--data.root", root, "--data.on_bad_photo", "skip", "--score_workers", 0]
    text = tune(tiny_run, tmp_path / "crf", *words)
    assert "1 photos could not be read and are in neither half" in text
    (sizes,) = re.findall(r"(\d) photos tuned.* (\d) others", text)
    assert sum(map(int, sizes)) == 4
    assert len(list((tmp_path / "crf" / "cache").glob("*.npz"))) == 4
    with pytest.raises(ValueError, match=re.escape(photo.name)):  # unless the data say `stop`
        tune(tiny_run, tmp_path / "other", "--data.root", root)

    photo.write_bytes(whole)  # mended, it is taken up
    assert "could not be read" not in tune(tiny_run, tmp_path / "crf", *words)
    assert len(list((tmp_path / "crf" / "cache").glob("*.npz"))) == 5


def test_a_half_without_a_readable_photo_is_refused(
    tiny_run: Path, sample: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(sample, tmp_path / "copied"))
    for image in json.loads((root / "val.json").read_text())["images"][1:]:
        (root / image["file_name"]).write_bytes(b"")
    with pytest.raises(ValueError, match="of one half of the 5 photos not one can be read"):
        tune(tiny_run, tmp_path / "crf", "--data.root", root, "--data.on_bad_photo", "skip")
