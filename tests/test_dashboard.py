"""`python -m segment.dashboard`: a workspace whose every panel shows what a run really logs."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb_offline import read, table

from segment import dashboard

workspaces = pytest.importorskip("wandb_workspaces.workspaces.internal")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the verb writes where W&B is not to be reached."""
    out = tmp_path_factory.mktemp("dashboard") / "dashboard.json"
    dashboard.main(["--project", "p", "--taxonomy", "trash10", "--out", str(out)])
    return json.loads(out.read_text())


def sections(definition: dict[str, Any]) -> list[dict[str, Any]]:
    return definition["spec"]["section"]["panelBankConfig"]["sections"]


def values(node: Any, key: str) -> Iterator[Any]:
    """What stands under a key, anywhere in a panel."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        for inner in node.values():
            yield from values(inner, key)
    elif isinstance(node, list):
        for inner in node:
            yield from values(inner, key)


def named(panel: dict[str, Any]) -> Iterator[str]:
    """Every metric, table or media key that a panel draws."""
    config = panel["config"]
    yield from config.get("metrics", [])
    yield from config.get("mediaKeys", [])
    yield from (config[axis].removeprefix("summary:") for axis in ("xAxis", "yAxis")
                if axis in config)  # fmt: skip
    for argument in values(config, "args"):  # of a chart that is drawn from a table
        yield from (one["value"] for one in argument if one["name"] == "tableKey")
    if panel["viewType"] == "Weave":  # a table, by the name that the panel picks from the summary
        yield from (
            one["val"]
            for one in values(config, "key")
            if isinstance(one, dict) and one.get("nodeType") == "const"
        )


def test_no_panel_is_empty(written: dict[str, Any], tiny_run: Path) -> None:
    logged = read(tiny_run)
    history = {key for row in logged["history"] for key in row}
    known = history | set(logged["summary"])
    # Tables and pictures are several keys each, of which one says what they are.
    known |= {key.removesuffix("/_type") for key in known if key.endswith("/_type")}
    # The only bars without a score are those of classes that these few photos do not show.
    evaluation = json.loads((tiny_run / "evaluation.json").read_text())
    known |= {
        f"val/{kind}/iou/{name}"
        for kind in ("raw", "refined")
        for name, iou in zip(evaluation["classes"], evaluation[kind]["iou"], strict=True)
        if iou is None
    }
    assert evaluation["cost"]["seconds_per_training_step"] is None  # in three steps: none is timed
    known.add("cost/seconds_per_training_step")
    panels = [panel for section in sections(written) for panel in section["panels"]]
    assert len(panels) > 30
    for panel in panels:
        names = list(named(panel))
        assert names, panel
        assert set(names) <= known, panel
        if "groupBy" in panel["config"]:
            assert panel["config"]["groupBy"].removesuffix(".value") in logged["config"]
    for line in (panel for panel in panels if panel["viewType"] == "Run History Line Plot"):
        assert set(named(line)) <= history
    # What the bars are drawn from, and the columns beside the runs.
    assert table(tiny_run, "iou_per_class/final_table")["columns"] == ["class", "IoU"]
    (runset,) = written["spec"]["section"]["runSets"]
    for column in runset["runFeed"]["columnPinned"]:
        where, _, name = column.partition(":")
        assert where == "run" or name in logged[where], column


def test_compares_what_is_asked_for(written: dict[str, Any]) -> None:
    drawn = {
        section["name"]: {name for panel in section["panels"] for name in named(panel)}
        for section in sections(written)
    }
    assert {"val/raw/miou", "val/refined/boundary_f1"} <= drawn["Scores by architecture"]
    assert {"val/raw/miou", "val/refined/miou"} <= drawn["Raw against refined"]
    assert {"val/raw/iou/Paper", "val/refined/iou/Paper"} <= drawn["IoU by class"]
    assert {"cost/parameters", "cost/multiply_adds_512", "crf/seconds_per_photo",
            "cost/peak_memory_mb", "val/raw/miou"} <= drawn["Cost against accuracy"]  # fmt: skip


def test_without_w_and_b_it_says_where_the_definition_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    dashboard.main(["--out", str(tmp_path / "d.json")])
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        f"W&B cannot be used (WANDB_MODE is offline), so the workspace is written to "
        f"{tmp_path / 'd.json'}; with a network and `wandb login` the same command publishes it."
    )
    # Without classes there is the chart over all of them, and no bars for single ones.
    names = {section["name"]: section["panels"] for section in
             sections(json.loads((tmp_path / "d.json").read_text()))}  # fmt: skip
    assert len(names["IoU by class"]) == 1


def test_with_w_and_b_the_same_definition_is_sent(
    written: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[dict[str, Any]] = []

    class Api:
        default_entity = "team"

    def receive(api: Any, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        sent.append(variables)
        return {"upsertView": {"view": {"id": "1", "name": "nw-abc-v"}, "inserted": True}}

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr("wandb.Api", Api)
    monkeypatch.setattr(workspaces, "execute_graphql", receive)
    monkeypatch.setattr(
        "wandb_workspaces.workspaces.interface.get_app_url", lambda api: "https://wandb.example"
    )
    dashboard.main(["--project", "p", "--taxonomy", "trash10"])
    assert "Written to https://wandb.example/team/p?nw=abc" in capsys.readouterr().out
    (view,) = sent
    assert (view["entityName"], view["projectName"]) == ("team", "p")

    def plain(spec: Any) -> str:  # ids are drawn anew each time
        return re.sub(r'"(__id__|id|i)": "[^"]*"', "", json.dumps(spec, sort_keys=True))

    assert plain(json.loads(view["spec"])) == plain(written["spec"])


def test_without_the_package_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "segment.tracking.workspace", raising=False)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(ValueError, match=r"pip install 'segment\[dashboard\]'"):
        dashboard.main(["--out", str(tmp_path / "d.json")])
