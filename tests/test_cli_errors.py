"""What the parser would say at length, or not at all, in a sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

SETTINGS = {"num_classes": 11, "backbone": "tf_efficientnet_lite0"}


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ({"init_args": SETTINGS}, "missing"),
        ({"num_classes": 11}, "left out, or SegmentationModule"),
        ({"class_path": "segment.modules.SegmentationModule"}, "missing"),
        (
            {
                "class_path": "segment.modules.base.SegmentationModule",
                "init_args": {"num_classes": 9},
            },
            "left out, or SegmentationModule",
        ),
        ({"class_path": None, "init_args": SETTINGS}, "null, which is no module"),
        ({"class_path": "", "init_args": SETTINGS}, "empty, which is no module"),
        ({"class_path": 3, "init_args": SETTINGS}, "3, which is no module"),
        ({"class_path": "torch.nn.Linear"}, "torch.nn.Linear, which is no module"),
        (
            {"class_path": "segment.architectures.DeepLabV2", "init_args": SETTINGS},
            "segment.architectures.DeepLabV2, which is no module",
        ),
        ({"class_path": "segment.modules.UNot"}, "segment.modules.UNot, which is not to be had"),
    ],
)
def test_what_is_no_module_is_answered_with_those_there_are(
    model: dict, what: str, experiment: Path, tmp_path: Path, complaint: Callable
) -> None:
    content = yaml.safe_load(experiment.read_text()) | {"model": model}
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(content))
    said = complaint(["--config", tmp_path / "changed.yaml"])
    assert said.startswith(f"error: model.class_path is {what}")
    assert "; take a class of segment.modules: CRFRNNModule, DeconvNetModule, Deep" in said
    assert said.endswith(", UNetModule, UpsamplingNetModule.\n")
    assert "SegmentationModule, " not in said.split("segment.modules: ")[1]


@pytest.mark.parametrize(
    ("override", "what"),
    [
        (
            ["--model.class_path", "torch.nn.Linear"],
            "model.class_path is torch.nn.Linear, which is",
        ),
        (["--model.class_path", "null"], "model.class_path is null, which is no module"),
        (["--model.init_args", "null"], "model.init_args holds no settings; write those of"),
        (["--model", "torch.nn.Linear"], "write its settings, or the path of a YAML file.\n"),
        (["--trainer.logger.class_path", "segment.tracking.Trackr"], "Trackr, which is not to be"),
    ],
)
def test_no_module_on_the_command_line(
    override: list[str], what: str, experiment: Path, complaint: Callable
) -> None:
    said = complaint(["--config", experiment, *override])
    assert what in said
    assert ("take a class of segment.modules" in said) == ("model.class_path" in said)


def test_a_missing_file_names_a_few_like_it(tmp_path: Path, complaint: Callable) -> None:
    asked = tmp_path / "unot.yaml"
    assert complaint(["--config", asked]) == f"error: {asked}: no such configuration file.\n"
    for number in range(9):
        (tmp_path / f"{number}.yaml").touch()
    said = complaint(["--config", asked])
    assert said.endswith(f"{tmp_path}/2.yaml and others.\n")
    assert said.count(".yaml") == 4
    (tmp_path / "unet.yaml").touch()
    said = complaint(["--config", asked])
    assert f"no such configuration file; there are {tmp_path}/unet.yaml" in said
    assert said.count(".yaml") <= 4
