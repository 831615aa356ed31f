"""What the page and report.md say in sentences."""

from dataclasses import replace
from pathlib import Path

import pytest
from making import make_set, write_run

from segment.comparison import Comparison, compare, load_runs
from segment.comparison.words import MIOU, figure, findings
from segment.data.coco import CocoFile
from segment.report import main


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> CocoFile:
    return make_set(tmp_path_factory.mktemp("set") / "set", photos=24)


def raw_pair(found: list[Comparison], *names: str) -> Comparison:
    (only,) = [o for o in found if o.kind == "raw" and {o.first.name, o.second.name} == set(names)]
    return only


def test_few_runs_have_every_difference_with_its_interval(coco: CocoFile, tmp_path: Path) -> None:
    shares = {"good": (0.1, 0.05), "twin": (0.11, 0.4), "bad": (0.4, 0.41)}
    runs = [write_run(tmp_path / n, coco, *s, experiment=n) for n, s in shares.items()]
    found = compare(load_runs(runs)[0], draws=300)
    leader, refined, refining, *_ = findings(found)
    assert leader.startswith("Highest mean IoU of raw labels: good (0.")
    apart = raw_pair(found, "good", "bad")
    assert f"good beats bad: {figure(apart, MIOU)}." in leader
    close = raw_pair(found, "good", "twin")
    assert close.verdict(MIOU) == 0
    assert figure(close, MIOU).count("+") + figure(close, MIOU).count("-") == 3
    assert f": {figure(close, MIOU)}" in leader.partition("twin")[2]
    # Refined, the second on raw labels may lead another one's pair: all is told from the best.
    assert "good beats twin: +0." in refined
    (gain,) = [o for o in found if o.kind == "refining" and o.first.name == "good"]
    assert f"helps good ({figure(gain, MIOU)})" in refining
    assert findings(found)[-1] == (
        "One seed each: this speaks of these checkpoints, not of their architectures."
    )


def test_a_lead_on_refined_labels_is_told_from_the_best(coco: CocoFile, tmp_path: Path) -> None:
    shares = {"first": (0.1, 0.4), "second": (0.3, 0.05)}
    runs = [write_run(tmp_path / n, coco, *s, experiment=n) for n, s in shares.items()]
    raw, refined, *_ = findings(compare(load_runs(runs)[0], draws=300))
    assert "first beats second: +0." in raw
    assert "second beats first: +0." in refined
    assert ", 95 % interval +0." in refined


def test_what_is_not_beyond_chance_among_many_is_perhaps_chance(
    coco: CocoFile, tmp_path: Path
) -> None:
    shares = {"a": (0.1, 0.2), "b": (0.3, 0.31)}
    runs = [write_run(tmp_path / n, coco, *s, experiment=n) for n, s in shares.items()]
    found = compare(load_runs(runs)[0], draws=300)
    half = [replace(one, p=one.p * 0 + 0.02, holm=one.p * 0 + 0.3) for one in found]
    raw, _, refining, *_ = findings(half)
    assert "Perhaps chance is its lead over b: +0." in raw
    assert "which among 4 comparisons is not beyond chance (Holm's p 0.30)." in raw
    assert "is perhaps chance in a (-0." in refining


def test_many_runs_have_the_least_lead_and_what_is_undecided(
    coco: CocoFile, tmp_path: Path
) -> None:
    shares = (0.1, 0.101, 0.3, 0.4, 0.5)
    runs = [write_run(tmp_path / f"n{s}", coco, s, experiment=f"n{s}") for s in shares]
    found = compare(load_runs(runs)[0], draws=300)
    leader = findings(found)[0]
    close = raw_pair(found, "n0.1", "n0.101")
    name = close.second.name
    least = figure(raw_pair(found, close.first.name, "n0.3"), MIOU)
    assert "Better beyond chance than n0.3, n0.4 and n0.5 (the least: +0." in leader
    assert least in leader
    assert f"do not show it to be better than {name} ({figure(close, MIOU)})." in leader


def test_many_runs_tell_perhaps_chance_from_no_difference(coco: CocoFile, tmp_path: Path) -> None:
    shares = (0.1, 0.101, 0.3, 0.4, 0.5)
    runs = [write_run(tmp_path / f"n{s}", coco, s, experiment=f"n{s}") for s in shares]
    found = compare(load_runs(runs)[0], draws=300)
    close = raw_pair(found, "n0.1", "n0.101")
    p, corrected = close.p.copy(), close.holm.copy()
    p[MIOU], corrected[MIOU] = 0.01, 0.1  # alone it would count, among so many not
    doubtful = replace(close, p=p, holm=corrected)
    leader = findings([doubtful if one is close else one for one in found])[0]
    name = f"{close.second.name} ({figure(close, MIOU)})"
    assert f"Perhaps chance, among {close.tests[MIOU]} comparisons: over {name}." in leader
    assert "do not show it" not in leader


def test_one_checkpoint_among_several_seeds_is_spoken_of_as_one(
    coco: CocoFile, tmp_path: Path
) -> None:
    folders = [write_run(tmp_path / f"w{s}", coco, 0.4, None, "worst", s) for s in range(3)]
    folders.append(write_run(tmp_path / "c", coco, 0.1, None, "single_c"))
    said = findings(compare(load_runs(folders)[0], draws=300))
    assert "single_c beats worst (3 seeds): +0." in said[0]
    assert said[-1] == ("One seed of single_c: what is said of it speaks of that checkpoint alone.")
    folders[-1:] = [write_run(tmp_path / f"b{n}", coco, 0.1, None, "b", n) for n in range(2)]
    several = findings(compare(load_runs(folders)[0], draws=300))
    assert not any(text.startswith("One seed") for text in several)


def test_the_page_counts_the_comparisons_of_its_headline(coco: CocoFile, tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / f"{name}{seed}", coco, wrong, None, name, seed)
        for name, wrong in (("a", 0.1), ("b", 0.2), ("c", 0.3))
        for seed in range(2)
    ]
    main([*map(str, folders), "--out", str(tmp_path / "out"), "--draws", "100"])
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    # Three experiments are three pairs, six runs fifteen.
    assert "3 comparisons were made of each measure of experiments, and 15 run by run" in page
    assert "for each measure by itself" in page


def test_one_block_is_one_and_no_p_value_is_none(
    coco: CocoFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / n, coco, w, 0.1, n) for n, w in (("a", 0.1), ("b", 0.2))]
    out = tmp_path / "out"
    main([*map(str, runs), "--out", str(out), "--draws", "100", "--group", "^d"])
    printed = capsys.readouterr().out
    text = (out / "report.md").read_text()
    assert "24 photos in 1 block are too few for intervals" in printed
    assert "1 blocks" not in printed + text + (out / "index.html").read_text(encoding="utf-8")
    assert "nan" not in text
    assert "Too few blocks of photos to say how sure its lead over b is: +0." in printed
