"""What charts and CSV files of a report must not get wrong."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from making import HEIGHT, NAMES, WIDTH, make_set, write_run

from segment.chart_style import log_axis, name_points, shorts
from segment.comparison import charts, load_runs
from segment.comparison.curves import reliability
from segment.comparison.runs import Run
from segment.comparison.tables import best_in, scores_table
from segment.comparison.writing import unit_of
from segment.report import main

SECONDS = {"seconds_per_photo_forward": 0.5, "multiply_adds_512": 5_600_000, "parameters": 1}
PHOTOS = 6


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("charts")
    coco = make_set(root / "set", photos=PHOTOS)
    return [
        write_run(root / f"run{n}", coco, wrong, wrong / 2, experiment=f"net{n}", cost=cost)
        for n, (wrong, cost) in enumerate(((0.1, SECONDS), (0.3, SECONDS | {"parameters": 2})))
    ]


@pytest.fixture(scope="module")
def runs(folders: list[Path]) -> list[Run]:
    return load_runs(folders)[0]


def test_long_names_of_runs_are_told_apart() -> None:
    names = [
        f"deeplab_v3plus_resnet{depth}_stride16 seed {seed}"
        for depth in (18, 34, 50, 101)
        for seed in range(12)
    ]
    cut = shorts(names)
    assert len(set(cut)) == len(names)
    assert cut[0] == "\N{HORIZONTAL ELLIPSIS}resnet18_stride16 seed 0"
    middle = [f"{'a' * 40}{number}{'b' * 40}" for number in range(9)]  # no word to leave out
    assert len(set(shorts(middle))) == 9
    assert shorts(["one", "two <b>"]) == ["one", "two &lt;b&gt;"]
    assert len(shorts(["same " * 20] * 2)[0]) <= 30


def test_every_tick_of_a_logarithmic_axis_is_written_in_full() -> None:
    axis = log_axis([0.6, 18], "px")
    assert axis["ticktext"][1:6] == ["0.2", "0.5", "1", "2", "5"]
    assert axis["tickvals"][1:6] == [0.2, 0.5, 1, 2, 5]


def test_bins_of_a_few_pixels_are_no_point_of_the_reliability_curve(runs: list[Run]) -> None:
    evaluation = copy.deepcopy(runs[0].evaluation)
    for kind in ("raw", "refined"):
        evaluation[kind]["calibration"]["bins"] = [
            {"pixels": pixels, "confidence": confidence, "accuracy": accuracy}
            for pixels, confidence, accuracy in (
                (0, None, None),
                (1, 0.2, 1.0),
                (500, 0.5, 0.4),
                (5000, 0.9, 0.8),
            )
        ]
    figure = reliability([replace(runs[0], evaluation=evaluation)])
    curve = figure.data[0]
    assert list(curve.x) == [0.5, 0.9]
    assert curve.marker.size[0] < curve.marker.size[1]
    assert "500 pixels" in curve.hovertext[0]
    titles = figure.layout.xaxis.title.text, figure.layout.xaxis2.title.text
    assert titles == ("confidence of the network", "confidence after the CRF")


def test_runs_are_named_where_they_stand_in_the_chart_of_costs(runs: list[Run]) -> None:
    written = [note.text for note in charts.cost_against_score(runs).layout.annotations]
    assert sorted(written) == ["net0", "net0", "net1", "net1"]  # against adds, and seconds


def test_the_line_to_a_name_runs_through_no_other_point() -> None:
    figure = go.Figure()
    points = [(0.0, 0.0, ""), (0.30, 0.5, "left"), (0.31, 0.5, "right"), (1.0, 1.0, "")]
    name_points(figure, points, (400, 200))
    sides = {note.text: note.ax for note in figure.layout.annotations}
    assert sides["left"] < 0 < sides["right"]


def test_long_names_below_bars_slant_into_the_chart(runs: list[Run]) -> None:
    names = [f"Plastic bottle number {n} of the set" for n in range(10)]
    assert charts.class_bars(runs[0], names).layout.xaxis.tickangle < 0
    assert charts.class_bars(runs[0], NAMES).layout.xaxis.tickangle is None


def test_seconds_are_never_the_best(runs: list[Run]) -> None:
    best = best_in(scores_table(runs))
    assert best["parameters"] == 1
    assert not [column for column in best if "seconds" in column]


def test_curves_and_sizes_are_in_csv_files(folders: list[Path], tmp_path: Path) -> None:
    main([*map(str, folders), "--out", str(tmp_path / "report"), "--draws", "100"])
    tables = {
        name: pd.read_csv(tmp_path / "report" / f"{name}.csv")
        for name in ("trimap", "calibration", "sizes")
    }
    evaluation = json.loads((folders[1] / "evaluation.json").read_text())
    ours = {name: table[table["run"] == "net1"] for name, table in tables.items()}
    trimap = ours["trimap"][ours["trimap"]["kind"] == "refined"]
    found = dict(zip(trimap["half_width_px"].astype(str), trimap["miou"], strict=True))
    assert found == pytest.approx(evaluation["refined"]["trimap_miou"])
    raw = ours["calibration"][ours["calibration"]["kind"] == "raw"]
    assert raw["pixels"].sum() == PHOTOS * HEIGHT * WIDTH
    full = raw[raw["pixels"] > 0]
    assert full["confidence"].tolist() == pytest.approx([0.9])  # all that write_run gives
    assert full["accuracy"].tolist() == pytest.approx([evaluation["raw"]["pixel_accuracy"]])
    # Squares of 20 and of 8 pixels, one of each in every photo, of two classes.
    sizes = ours["sizes"].set_index("size_bin")
    assert sizes["objects"].to_dict() == {"8 to 16": PHOTOS, "16 to 32": PHOTOS}
    assert set(sizes["unit"]) == {"region"}
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "root of the region's visible pixels" in page
    assert all(f'href="{name}.csv"' in page for name in tables)


def test_two_annotations_of_a_class_in_a_photo_are_objects(tmp_path: Path) -> None:
    assert unit_of(make_set(tmp_path / "one", photos=2, names=NAMES[:1])) == "object"
    assert unit_of(make_set(tmp_path / "three", photos=2)) == "region"
