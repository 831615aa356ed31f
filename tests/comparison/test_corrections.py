"""What a report says is held to the runs themselves: corrections, blocks, bold, roles, charts."""

import json
from pathlib import Path

import numpy as np
import pytest
from making import NAMES, make_set, write_run
from test_coverage import run_of, sums_of

from segment.bootstrap import MEASURES
from segment.comparison import (
    Comparison,
    Run,
    charts,
    compare,
    curves,
    difference_charts,
    load_runs,
)
from segment.comparison.differences import holm
from segment.comparison.tables import scores_markdown, scores_table
from segment.evaluation import CHOSE, TUNED
from segment.report import main


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A good network that refining spoils, a bad one that it mends, and one in between."""
    root = tmp_path_factory.mktemp("corrections")
    coco = make_set(root / "set", photos=14)
    shares = {"good": (0.1, 0.2), "bad": (0.45, 0.3), "middle": (0.25, 0.25)}
    tuned = {"notes": [f"the same photos {CHOSE}", f"the same photos {TUNED}"]}
    return [write_run(root / n, coco, *pair, n, 0, **tuned) for n, pair in shares.items()]


@pytest.fixture(scope="module")
def runs(folders: list[Path]) -> list[Run]:
    return load_runs(folders)[0]


@pytest.fixture(scope="module")
def found(runs: list[Run]) -> list[Comparison]:
    return compare(runs, draws=300)


def test_every_comparison_of_a_measure_is_corrected_with_the_others(
    found: list[Comparison],
) -> None:
    assert len(found) == 3 * 2 + 3  # three pairs raw and refined, three refinements
    heads = len(MEASURES)
    together = np.stack([one.p for one in found])
    corrected = np.stack([one.holm for one in found])
    for measure in range(heads):
        np.testing.assert_allclose(corrected[:, measure], holm(together[:, measure]))
    # IoU by class is one question: 9 comparisons of 4 classes.
    by_class = holm(together[:, heads:].ravel())
    np.testing.assert_allclose(corrected[:, heads:].ravel(), by_class)
    assert (corrected[:, :heads] > together[:, :heads]).any()
    verdicts = [[one.verdict(measure) for measure in range(len(one.p))] for one in found]
    np.testing.assert_array_equal(np.array(verdicts) != 0, corrected < 0.05)


def test_photos_of_a_group_count_as_one() -> None:
    """Each of 20 photos twice says no more than once: the same interval, to the last digit."""
    rng = np.random.default_rng(4)
    size = rng.integers(500, 1500, (20, 3)).astype(float)
    once, twice = [], []
    for name, rate in (("a", 0.8), ("b", 0.75)):
        both = np.rint(size * rng.uniform(rate - 0.1, rate + 0.1, size.shape))
        pixels = np.stack([both, size, both + np.roll(size - both, 1, 1)], 1)
        sums = sums_of(pixels, rng.uniform(0.3, 0.7, 20))
        once.append(run_of(name, sums))
        twice.append(run_of(name, type(sums)(*(np.repeat(field, 2, axis=0) for field in sums))))
        twice[-1].__dict__["files"] = tuple(f"{n // 2}_{n}.png" for n in range(40))
    (alone,), (grouped,), (apart,) = compare(once), compare(twice, r"^\d+"), compare(twice)
    assert (grouped.photos, grouped.blocks, apart.blocks) == (40, 20, 40)
    for ours, theirs in ((grouped.low, alone.low), (grouped.high, alone.high)):
        np.testing.assert_allclose(ours, theirs)
    assert (apart.high - apart.low < 0.85 * (grouped.high - grouped.low)).all()


def test_the_best_is_bold_of_scores_the_highest(runs: list[Run]) -> None:
    lines = scores_markdown(scores_table(runs)).splitlines()
    heads = [cell.strip() for cell in lines[0].strip("|").split("|")]
    rows = {c[0].strip(): c[1:] for c in (line.strip("|").split("|") for line in lines[2:])}
    place = {head: number for number, head in enumerate(heads[1:])}
    for kind in ("raw", "refined"):
        values = {run.name: run.evaluation[kind]["miou"] for run in runs}
        bold = [name for name, cells in rows.items() if "**" in cells[place[f"mIoU, {kind}"]]]
        assert bold == [max(values, key=values.__getitem__)]


def test_the_page_marks_what_photos_had_decided(
    folders: list[Path], tmp_path: Path, browser
) -> None:
    main([*map(str, folders), "--out", str(tmp_path / "report"), "--draws", "100"])
    browser.get((tmp_path / "report" / "index.html").as_uri())
    heads = browser.execute_script(
        "return [...document.querySelectorAll('#scores-table thead th')].map(e => e.textContent)"
    )
    marks = browser.execute_script(
        "return [...document.querySelectorAll('#scores-table tbody tr')].map("
        "r => [...r.children].map(c => c.querySelectorAll('sup').length "
        "? [...c.querySelectorAll('sup')].map(s => s.textContent).join('') : ''))"
    )
    key = browser.execute_script("return document.body.textContent")
    (chose,) = {c for c in "†‡§" if f"{c} these photos {CHOSE}" in key}
    (tuned,) = {c for c in "†‡§" if f"{c} these photos {TUNED}" in key}
    assert len(marks) == 3
    for row in marks:
        figures = [mark for mark in row[1:] if mark]
        assert len(figures) == 10  # five scores raw and refined, no cost
        raw, refined = figures[::2], figures[1::2]
        assert all(chose in mark and tuned not in mark for mark in raw), heads
        assert all(chose in mark and tuned in mark for mark in refined)


def test_charts_show_the_numbers_of_evaluation_json(
    folders: list[Path], runs: list[Run], found: list[Comparison]
) -> None:
    own = {run.name: json.loads((run.folder / "evaluation.json").read_text()) for run in runs}
    names = charts.class_names(runs)
    assert tuple(names[1:]) == NAMES
    for trace, kind in zip(charts.class_heatmap(runs).data, ("raw", "refined"), strict=True):
        for run, row in zip(runs, trace.z, strict=True):
            assert list(row) == own[run.name][kind]["iou"]
    for trace in curves.trimap_curves(runs).data:
        (run,) = [r for r in runs if trace.hovertext[0].startswith(r.name)]
        kind = {"x": "raw", "x2": "refined"}[trace.xaxis]
        assert f", {kind}" in trace.hovertext[0]
        assert list(trace.y) == list(own[run.name][kind]["trimap_miou"].values())
    for trace in curves.reliability(runs).data:
        if not trace.hovertext:
            continue  # the dashed line
        (run,) = [r for r in runs if trace.hovertext[0].startswith(r.name)]
        kind = "refined" if ", refined" in trace.hovertext[0] else "raw"
        bins = own[run.name][kind]["calibration"]["bins"]
        right = {b["confidence"]: b["accuracy"] for b in bins if b["pixels"]}
        assert all(right[x] == y for x, y in zip(trace.x, trace.y, strict=True))

    undecided, shown = difference_charts.pairs_map(found, "raw").data
    sides = [side.name for side in difference_charts.sides_of(found)]
    for row, first in enumerate(sides):
        for column, second in enumerate(sides):
            if first == second:
                continue
            values = [chart.z[row][column] for chart in (undecided, shown)]
            (value,) = [v for v in values if v is not None]
            raw = [own[name]["raw"]["miou"] for name in (first, second)]
            assert value == pytest.approx(raw[0] - raw[1])
    for trace in difference_charts.refining_forest(found).data:
        for value, hover in zip(trace.x, trace.hovertext or (), strict=True):
            if trace.xaxis == "x2":
                continue
            (name,) = [n for n in own if n in hover.replace("<br>", " ")]
            refined, raw = (own[name][kind]["miou"] for kind in ("refined", "raw"))
            assert value == pytest.approx(refined - raw)


def test_confusions_go_from_the_true_class_to_the_one_it_was_taken_for(runs: list[Run]) -> None:
    chart = charts.confused_pairs(runs)
    words = list(chart.layout.yaxis.ticktext)
    true, predicted = words[0].split(" \N{RIGHTWARDS ARROW} ")
    run = runs[0]
    a, b = run.classes.index(true), run.classes.index(predicted)
    matrix = np.array(run.evaluation["raw"]["confusion"], float)
    share = 100 * matrix[a, b] / matrix[a].sum()
    (raw,) = [trace for trace in chart.data if trace.name == "raw"]
    first = [
        x
        for x, y, hover in zip(raw.x, raw.y, raw.hovertext, strict=True)
        if round(y) == 0 and hover.startswith(run.name)
    ]
    assert first == pytest.approx([share])
    assert share != pytest.approx(100 * matrix[b, a] / matrix[b].sum())
