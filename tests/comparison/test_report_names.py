"""What runs are called, which of them are seeds of one experiment, and what they started from."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from making import make_set, write_run

from segment.comparison import Run, load_runs
from segment.comparison.settings import kept_apart
from segment.comparison.sides import experiments
from segment.data.coco import CocoFile


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> CocoFile:
    return make_set(tmp_path_factory.mktemp("set") / "set")


def written(
    folder: Path,
    coco: CocoFile,
    seed: int = 0,
    data: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    class_path: str = "segment.modules.FCNModule",
    crf: float | None = None,
    **init_args: Any,
) -> Path:
    """A run with these settings."""
    write_run(folder, coco, 0.2, crf, experiment="smoke", seed=seed)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"] = {"class_path": class_path, "init_args": init_args}
    config["data"] |= data or {}
    config["trainer"] |= trainer or {}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def names(*folders: Path) -> list[str]:
    return [run.name for run in load_runs(folders)[0]]


def test_a_sweep_is_named_by_what_it_sweeps(coco: CocoFile, tmp_path: Path) -> None:
    rates = [written(tmp_path / f"r{lr}", coco, lr=lr, width=24) for lr in (0.01, 0.1)]
    assert names(*rates) == ["smoke lr=0.01", "smoke lr=0.1"]
    more = [written(tmp_path / f"s{lr}", coco, 1, lr=lr, width=24) for lr in (0.01, 0.1)]
    assert names(*rates, *more)[::3] == ["smoke lr=0.01 seed 0", "smoke lr=0.1 seed 1"]
    sides = experiments(load_runs([*rates, *more])[0])
    assert [side.name for side in sides] == ["smoke lr=0.01 (2 seeds)", "smoke lr=0.1 (2 seeds)"]
    start = tmp_path / "runs" / "fcn16s" / "2026-01-31_12-00-00" / "checkpoints" / "best.ckpt"
    from_16s = written(tmp_path / "w", coco, lr=0.1, width=24, weights=str(start))
    assert names(rates[1], from_16s) == [
        "smoke weights=none",
        "smoke weights=fcn16s/2026-01-31_12-00-00",
    ]
    refined = written(tmp_path / "c", coco, lr=0.1, width=24, crf=0.1)
    assert names(rates[1], refined) == ["smoke refined=false", "smoke refined=true"]


def test_of_many_settings_a_few_that_tell_runs_apart_are_named(
    coco: CocoFile, tmp_path: Path
) -> None:
    shared = ("a", "b", "c", "d")
    runs = [
        written(tmp_path / str(n), coco, lr=n, **dict.fromkeys(shared, n // 2)) for n in range(3)
    ]
    assert names(*runs) == [f"smoke lr={n} and 4 more" for n in range(3)]


def test_seeds_on_another_machine_are_seeds(coco: CocoFile, tmp_path: Path) -> None:
    here = written(tmp_path / "here", coco, lr=0.1)
    there = written(tmp_path / "there", coco, 1, {"root": "/elsewhere"}, lr=0.1)
    (side,) = experiments(load_runs([here, there])[0])
    assert side.name == "smoke (2 seeds)"


def test_what_keeps_seeds_apart_is_told(coco: CocoFile, tmp_path: Path) -> None:
    runs = [written(tmp_path / str(seed), coco, seed, lr=0.1 + seed) for seed in range(2)]
    runs, _ = load_runs(runs)
    assert kept_apart(runs) == [
        "Runs of smoke differ not in the seed alone, so they are not one experiment of 2 seeds: "
        "lr (0.1, 1.1)."
    ]
    assert kept_apart(runs[:1]) == []


@pytest.mark.parametrize(
    ("class_name", "init_args", "said"),
    [
        ("FCNModule", {"pretrained": True}, "ImageNet"),
        ("FCNModule", {"pretrained": "/a/vgg16.pth"}, "vgg16.pth"),
        ("PlainFCNModule", {}, "random"),
        ("TorchvisionFCNModule", {"pretrained": True}, "COCO with VOC's classes"),
        ("TorchvisionDeepLabV3Module", {"pretrained": True}, "COCO with VOC's classes"),
        ("FCNModule", {"weights": "/r/fcn16s/T/checkpoints/best.ckpt"}, "fcn16s/T"),
        ("FCNModule", {"weights": "/r/fcn16s/T/checkpoints/last.ckpt"}, "fcn16s/T (last)"),
        ("FCNModule", {"weights": "fcn16s.pth", "class_weights": [1]}, "fcn16s.pth"),
        (
            "EDeconvNetModule",
            {
                "deconvnet_weights": "/r/deconvnet/T/checkpoints/best.ckpt",
                "fcn8s_weights": "/r/fcn8s/U/checkpoints/best.ckpt",
            },
            "deconvnet/T, fcn8s/U",
        ),
    ],
)
def test_where_weights_came_from(
    coco: CocoFile, tmp_path: Path, class_name: str, init_args: dict[str, Any], said: str
) -> None:
    folder = tmp_path / "run"
    written(folder, coco, class_path=f"segment.modules.{class_name}", **init_args)
    ((run,), _) = load_runs([folder])
    assert run.weights == said


def test_a_class_of_one_s_own_says_what_it_was_pretrained_on(
    coco: CocoFile, tmp_path: Path
) -> None:
    folder = written(tmp_path / "run", coco, class_path="mine.Net", pretrained=True, first="x.pt")
    path = folder / "evaluation.json"
    evaluation = json.loads(path.read_text()) | {"pretrained_on": "photos of mine"}
    path.write_text(json.dumps(evaluation))
    assert load_runs([folder])[0][0].weights == "photos of mine"
    path.write_text(json.dumps(evaluation | {"starts_from": ["first"]}))
    assert load_runs([folder])[0][0].weights == "x.pt"


@pytest.mark.parametrize(
    ("epochs", "every", "within", "chose"),
    [(5, 5, None, False), (9, 5, None, False), (10, 5, None, True), (5, 5, 20, True)],
)
def test_one_validation_chose_nothing(
    coco: CocoFile, tmp_path: Path, epochs: int, every: int, within: int | None, chose: bool
) -> None:
    trainer = {
        "max_epochs": epochs,
        "check_val_every_n_epoch": every,
        "val_check_interval": within,
    }
    run = load_runs([written(tmp_path / "run", coco, trainer=trainer)])[0][0]
    assert isinstance(run, Run)
    assert run.roles("raw") == (["chose the checkpoint"] if chose else [])


def test_what_a_run_started_from_may_have_been_chosen(coco: CocoFile, tmp_path: Path) -> None:
    """Validated once, it had no choice; the checkpoint that it went on from may have had."""
    model = {
        "class_path": "segment.modules.FCNModule",
        "init_args": {"weights": "runs/fcn32s/2026-01-31_12-00-00/checkpoints/best.ckpt"},
    }
    trainer = {"max_epochs": 1}
    run = load_runs([written(tmp_path / "run", coco, trainer=trainer, model=model)])[0][0]
    assert run.roles("raw") == ["chose the checkpoint"]
