"""The W&B workspace in which runs are compared, of nothing but what every run logs.

Apart from `segment.dashboard`, because the package that writes workspaces is an extra.
"""

import json
from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces.workspaces import RunsetSettings, Section, Workspace, WorkspaceSettings

from segment.tracking.tracker import STEP

SCORES = {"miou": "mean IoU", "boundary_f1": "boundary F1", "pixel_accuracy": "pixel accuracy"}
# What the network costs is drawn against its own score, what the CRF costs against the refined one.
COSTS = {
    "cost/parameters": ("parameters", "raw"),
    "cost/multiply_adds_512": ("multiply-adds for 512x512", "raw"),
    "cost/seconds_per_photo_forward": ("seconds per photo", "raw"),
    "cost/seconds_per_training_step": ("seconds per training step", "raw"),
    "cost/peak_memory_mb": ("memory of scoring, MB", "raw"),
    "crf/seconds_per_photo": ("seconds per photo of the CRF", "refined"),
}


def workspace(project: str, entity: str, classes: Sequence[str] = ()) -> Workspace:
    """The workspace.

    Args:
        project: W&B project.
        entity: W&B team or user.
        classes: Names of the classes that get bars for themselves; none leaves those out.
    """
    return Workspace(
        entity=entity,
        project=project,
        name="Comparison",
        sections=[
            _by_architecture(),
            _raw_against_refined(),
            _by_class(classes),
            _cost(),
            _training(),
            _photos(),
        ],
        settings=WorkspaceSettings(x_axis=STEP, max_runs=50),
        runset_settings=RunsetSettings(
            pinned_columns=[
                "config:architecture",
                "summary:val/raw/miou",
                "summary:val/refined/miou",
                "config:seed_everything",
            ]
        ),
    )


def _by_architecture() -> Section:
    panels = [
        wr.BarPlot(
            title=f"{title}, {kind}: mean and range over runs",
            metrics=[f"val/{kind}/{key}"],
            groupby=wr.Config("architecture"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for key, title in SCORES.items()
        for kind in ("raw", "refined")
    ]
    return Section(name="Scores by architecture", panels=panels, is_open=True)


def _raw_against_refined() -> Section:
    scatters = [
        wr.ScatterPlot(
            title=f"{title}: refined over raw",
            x=wr.SummaryMetric(f"val/raw/{key}"),
            y=wr.SummaryMetric(f"val/refined/{key}"),
        )
        for key, title in SCORES.items()
    ]
    bars = [
        wr.BarPlot(title=title, metrics=[f"val/raw/{key}", f"val/refined/{key}"])
        for key, title in SCORES.items()
    ]
    return Section(name="Raw against refined", panels=[*scatters, *bars], is_open=True)


def _by_class(classes: Sequence[str]) -> Section:
    drawn = wr.CustomChart(
        query={"summaryTable": {"tableKey": "iou_per_class/final_table"}},
        chart_name="wandb/bar/v0",
        chart_fields={"label": "class", "value": "IoU"},
        chart_strings={"title": "IoU by class, raw and refined"},
    )
    bars = [
        wr.BarPlot(title=name, metrics=[f"val/raw/iou/{name}", f"val/refined/iou/{name}"])
        for name in classes
    ]
    return Section(name="IoU by class", panels=[drawn, *bars], is_open=True)


def _cost() -> Section:
    panels = [
        wr.ScatterPlot(
            title=f"mean IoU, {kind}, over {title}",
            x=wr.SummaryMetric(key),
            y=wr.SummaryMetric(f"val/{kind}/miou"),
            log_x=True,
        )
        for key, (title, kind) in COSTS.items()
    ]
    return Section(name="Cost against accuracy", panels=panels, is_open=True)


def _training() -> Section:
    titles = {"train/loss": "loss", "val/miou": "mean IoU on validation photos, raw"}
    panels = [wr.LinePlot(title=title, x=STEP, y=[key]) for key, title in titles.items()]
    return Section(name="Training", panels=panels, is_open=False)


def _photos() -> Section:
    panels = [
        wr.MediaBrowser(title="The same few photos", media_keys=["photos/validation"]),
        wr.WeavePanelSummaryTable(table_name="photos/worst"),
    ]
    return Section(name="Photos", panels=panels, is_open=False)


def definition(made: Workspace) -> dict[str, Any]:
    """What W&B is sent of a workspace, and what the file holds."""
    view = made._to_model()  # the package has no public way to it but sending
    return {
        "entity": view.entity,
        "project": view.project,
        "displayName": view.display_name,
        "spec": json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True)),
    }
