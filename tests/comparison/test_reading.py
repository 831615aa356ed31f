"""Run folders as users have them: whole, half-written, damaged, or of other photos."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from making import make_set, write_run

from segment.comparison import Run, Unfinished, load_runs
from segment.data.coco import CocoFile
from segment.report import main


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> CocoFile:
    return make_set(tmp_path_factory.mktemp("set") / "set")


@pytest.fixture
def run(coco: CocoFile, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", coco, 0.2, 0.1)


def refused(*args: object) -> str:
    with pytest.raises(ValueError, match=r"[.;)]$") as said:
        main([str(arg) for arg in args])
    assert len(str(said.value).splitlines()) == 1
    return str(said.value)


def test_photo_scores_by_hand(run: Path) -> None:
    (read,), _ = load_runs([run])
    packed = (run / "per_photo.jsonl.gz").read_bytes()
    lines = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    ious = {}
    for truth, predicted, pixels in lines[3]["raw"]["confusion"]:
        for name in {truth, predicted}:
            both, union = ious.get(name, (0, 0))
            ious[name] = both + pixels * (truth == predicted), union + pixels
    shown = {truth for truth, *_ in lines[3]["raw"]["confusion"]}
    assert read.photo_scores("raw")[3] == pytest.approx(
        sum(both / union for name, (both, union) in ious.items() if name in shown) / len(shown)
    )


def test_runs_get_names_that_differ(coco: CocoFile, tmp_path: Path) -> None:
    for name, seed in (("x", 0), ("y", 1), ("z", 1)):
        write_run(tmp_path / name, coco, 0.2, experiment="net", seed=seed)
    write_run(tmp_path / "other", coco, 0.2, experiment="alone")
    runs, _ = load_runs([tmp_path / name for name in ("x", "y", "z", "other")])
    assert [one.name for one in runs] == ["net seed 0", "net seed 1 y", "net seed 1 z", "alone"]


def test_a_half_written_run_says_what_it_lacks(run: Path) -> None:
    (run / "per_photo.jsonl.gz").unlink()
    found = load_runs([run])[1][0]
    assert found == Unfinished(run, "no per_photo.jsonl.gz; copy it from where the run was made")
    (run / "evaluation.json").unlink()
    assert "still training?" in load_runs([run])[1][0].reason
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").touch()
    assert f"`python -m segment.evaluate --run {run}`" in load_runs([run])[1][0].reason
    assert "no run has scores yet" in refused(run, "--out", run.parent / "out")
    assert not (run.parent / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "is no evaluation"),
        ("{}", "is not what segment.evaluate writes (KeyError: 'classes')"),
        ({"schema": 99}, "schema 99, not 1"),
        ({"classes": ["one"]}, "the confusion matrix of 1 classes"),
        ({"classes": [1, 2, 3, 4]}, "1 is no text"),
        ({"raw": {"confusion": 3}}, "the confusion matrix of 4 classes"),
    ],
)
def test_a_damaged_evaluation_is_refused(run: Path, text: Any, said: str) -> None:
    path = run / "evaluation.json"
    if isinstance(text, dict):
        text = json.dumps(json.loads(path.read_text()) | text)
    path.write_text(text)
    answer = refused(run, "--out", run.parent / "out")
    assert answer.startswith(f"{path}: ")
    assert said in answer


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("crf", 3, "3 is no group of values"),
        ("crf.parameters", "many", "'many' is no group of values"),
        ("crf.seconds_per_photo", "long", "'long' is no number"),
        ("cost", None, "None is no group of values"),
        ("cost.parameters", "many", "'many' is no number"),
        ("cost.parameters", float("nan"), "nan is no number"),
        ("raw.miou", "high", "'high' is no number"),
        ("raw.iou", [None, True, 0.5, 0.5], "True is no number"),
        ("raw.boundary_f1_by_class", [0.5], "the scores by class"),
        ("raw.confusion", [["a"] * 4] * 4, "holds something else than whole numbers"),
        ("refined.trimap_miou", {"wide": 0.5}, "'wide'"),
        ("refined.calibration.bins", [{"pixels": 3}], "KeyError: 'confidence'"),
        ("refined.calibration.ece", [], "[] is no number"),
        (
            "raw.calibration.bins",
            [{"pixels": None, "confidence": 0.5, "accuracy": 0.5}],
            "the calibration's pixels",
        ),
        ("colors", [[0, 0]] * 4, "the colours"),
        ("seed", "one", "the seed or the background"),
        ("background", 9, "the seed or the background"),
        ("split", None, "None is no text"),
        ("annotations.path", 3, "3 is no text"),
        ("starts_from", [3], "3 is no text"),
    ],
)
def test_a_value_of_another_kind_is_refused(run: Path, place: str, value: Any, said: str) -> None:
    path = run / "evaluation.json"
    evaluation = json.loads(path.read_text())
    *above, last = place.split(".")
    part = evaluation
    for key in above:
        part = part[key]
    part[last] = value
    path.write_text(json.dumps(evaluation))
    answer = refused(run, "--out", run.parent / "out")
    assert answer.startswith(f"{path}: is not what segment.evaluate writes (")
    assert said in answer


def test_damaged_photos_are_refused(run: Path, coco: CocoFile) -> None:
    path = run / "per_photo.jsonl.gz"
    whole = path.read_bytes()
    for content in (whole[:200], b"no gzip", gzip.compress(b"{}\n"), gzip.compress(b"")):
        path.write_bytes(content)
        answer = refused(run, "--out", run.parent / "out")
        assert answer.startswith(f"{path}: cannot be read")
    lines = gzip.decompress(whole).splitlines()
    path.write_bytes(gzip.compress(b"\n".join(lines[:-1])))
    assert "do not add up to evaluation.json" in refused(run, "--out", run.parent / "out")


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    assert "is not the folder of a run" in refused(tmp_path, "--out", tmp_path / "out")
    assert "is named 2 times" in refused(run, run, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "test"}, "split: val against test"),
        ({"classes": ["Background", "Glass", "Paper", "Tin"]}, "Metal against Background, Glass"),
        ({"background": None}, "background: Background against none"),
    ],
)
def test_runs_that_do_not_belong_side_by_side(
    run: Path, coco: CocoFile, changes: dict[str, Any], said: str
) -> None:
    other = write_run(run.parent / "other", coco, 0.2, **changes)
    answer = refused(run, other, "--out", run.parent / "out")
    assert answer.startswith(f"{run} and {other} do not belong side by side (")
    assert said in answer
    assert answer.endswith("leave one out, or give --anyway.")


def test_other_annotations_are_refused_and_shown_anyway_without_a_test(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(tmp_path / "other", make_set(tmp_path / "set", photos=6), 0.3, 0.2)
    assert "annotation file: " in refused(run, other, "--out", tmp_path / "out")
    main([str(run), str(other), "--out", str(tmp_path / "out"), "--anyway", "--draws", "100"])
    rows = (tmp_path / "out" / "differences.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 10  # each refined against raw: six measures and four classes
    assert "Written to" in capsys.readouterr().out


def test_an_evaluation_of_its_own_finds_the_run_s_settings(run: Path) -> None:
    again = run / "evaluations" / "2026-01-31_12-00-00"
    again.mkdir(parents=True)
    for name in ("evaluation.json", "per_photo.jsonl.gz"):
        (run / name).rename(again / name)
    (found,), _ = load_runs([again])
    assert isinstance(found, Run)
    assert found.weights == "ImageNet"
    assert found.roles("refined") == ["chose the checkpoint"]


def test_only_an_earlier_report_is_replaced(run: Path) -> None:
    out = run.parent / "out"
    args = [str(run), "--out", str(out), "--draws", "100"]
    main(args)
    (out / "scores.csv").write_text("old")
    main(args)
    assert (out / "scores.csv").read_text().startswith("run,")
    (out / "mine.txt").write_text("mine")
    assert "holds mine.txt, which no earlier report wrote" in refused(*args)
    assert (out / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in run.parent.iterdir()) == ["out", "run"]
