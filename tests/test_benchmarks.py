"""What benchmarks/ compares is what there is; its figures are made by hand, not here."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
import torch

from segment import architectures, modules

PATH = Path(__file__).parents[1] / "benchmarks" / "comparison.py"
spec = importlib.util.spec_from_file_location("comparison", PATH)
comparison = importlib.util.module_from_spec(spec)
spec.loader.exec_module(comparison)
ROWS = {**comparison.ROWS, **comparison.LARGE}


def test_every_network_that_trains_has_a_row_that_builds() -> None:
    assert {row.module for row in ROWS.values()} == {*architectures.__all__} - {"EDeconvNet"}
    for row in ROWS.values():
        arguments = {**comparison.TRAINING, **row.arguments}
        if row.weights == comparison.PRETRAINED:
            assert arguments.pop("pretrained") is True
            arguments["pretrained"] = False
        with torch.device("meta"):
            getattr(modules, f"{row.module}Module")(num_classes=11, **arguments)


def test_no_row_keeps_what_its_paper_does_otherwise() -> None:
    for name, row in ROWS.items():
        with torch.device("meta"):
            arguments = {**comparison.TRAINING, **row.arguments}
            arguments |= {"pretrained": False} if "pretrained" in arguments else {}
            module = getattr(modules, f"{row.module}Module")(num_classes=11, **arguments)
        rates = {group["lr"] for group in module.parameter_groups()}
        head_biases = {0.001, 0.002} if row.module in ("DeepLabV1", "DeepLabV2") else {0.001}
        assert rates == head_biases, name
        assert not module.hparams.get("freeze_batch_norm"), name


def test_a_run_of_another_recipe_is_noticed() -> None:
    wanted = comparison.experiment(ROWS["fcn8s"], Path("camvid"), classes=11, epochs=5)
    assert comparison.differing(wanted, {**wanted, "seed": 3}) is None
    other = comparison.experiment(ROWS["fcn16s"], Path("camvid"), classes=11, epochs=5)
    assert comparison.differing(wanted, other) == "model.init_args.stride"
    longer = comparison.experiment(ROWS["fcn8s"], Path("camvid"), classes=11, epochs=20)
    assert comparison.differing(wanted, longer) == "trainer.max_epochs"


@pytest.mark.parametrize("script", ["crf_many", "crf_checks"])
def test_scripts_that_share_the_crf_s_start_as_they_say(script, monkeypatch, capsys) -> None:
    root = PATH.parents[1]  # which Python does not search for a script that is not in it
    elsewhere = [path for path in sys.path if Path(path).resolve() != root]
    monkeypatch.setattr(sys, "path", [str(PATH.parent), *elsewhere])
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(PATH.with_name(f"{script}.py")), run_name="__main__")
    assert f"python benchmarks/{script}.py" in capsys.readouterr().out
