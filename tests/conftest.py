"""What every test shares: no network, no questions from W&B, a small real COCO set, one thread."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["WANDB_MODE"] = "offline"
# Where tables and checkpoints wait to be synced; else in the home directory.
os.environ["WANDB_DATA_DIR"] = tempfile.mkdtemp(prefix="wandb-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: tests share few cores

import pytest
import torch
from selenium import webdriver

from segment.cli_errors import user_errors
from segment.data.sample import make_sample
from segment.fit import fit

atexit.register(shutil.rmtree, os.environ["WANDB_DATA_DIR"], ignore_errors=True)

Verb = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO set of 9 training and 5 validation photos of 64x64 pixels."""
    root = tmp_path_factory.mktemp("sample") / "set"
    make_sample(root, train=9, val=5, size=64, seed=3)
    return root


@pytest.fixture(scope="session")
def experiment(sample: Path) -> Path:
    """A tiny experiment on it, as a user's YAML; random weights, a real network."""
    path = sample.parent / "tiny.yaml"
    path.write_text(f"""
seed_everything: 1
model:
  class_path: segment.modules.DeepLabV2Module
  init_args:
    num_classes: 11
    backbone: tf_efficientnet_lite0
    output_stride: 16
    aspp: small
    pretrained: false
    freeze_batch_norm: false
    optimizer: adamw
data:
  root: {sample}
  taxonomy: trash10
  crop_size: 65
  batch_size: 3
  workers: 0
crf: {{iterations: 2}}
trainer: {{max_epochs: 1, accelerator: cpu, enable_progress_bar: false, log_every_n_steps: 1}}
""")
    return path


@pytest.fixture(scope="session")
def run_verb() -> Verb:
    """`python -m segment.<verb> ...` in a process of its own, one thread."""

    def run(verb: str, *args: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"segment.{verb}", *map(str, args)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )

    return run


@pytest.fixture(scope="session")
def tiny_run(experiment: Path, run_verb: Verb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the tiny experiment, trained and scored once for all tests."""
    root = tmp_path_factory.mktemp("runs")
    done = run_verb("fit", "--config", experiment, "--trainer.default_root_dir", root)
    assert done.returncode == 0, done.stderr
    (run,) = (root / "tiny").iterdir()
    (run / "output.txt").write_text(done.stdout + done.stderr)
    return run


def fit_tiny(sample: Path, root: Path, *settings: str) -> tuple[Path, dict[str, Any]]:
    """Three epochs of two convolutions in this process: the run folder and its evaluation."""
    (root / "two.yaml").write_text(f"""
model:
  class_path: segment.modules.PlainFCNModule
  init_args: {{num_classes: 11, depth: 2, width: 4}}
data: {{root: {sample}, taxonomy: trash10, crop_size: 48, batch_size: 3, workers: 0}}
trainer:
  {{max_epochs: 3, accelerator: cpu, enable_progress_bar: false, num_sanity_val_steps: 0,
    logger: false, log_every_n_steps: 1, default_root_dir: {root}}}
""")
    fit(["--config", str(root / "two.yaml"), *settings])
    (run,) = (root / "two").iterdir()
    return run, json.loads((run / "evaluation.json").read_text())


@pytest.fixture(scope="session")
def noisy_run(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two untrained convolutions, whose labels are as noisy as the photo."""
    root = tmp_path_factory.mktemp("noisy")
    return fit_tiny(sample, root, "--model.init_args.lr", "1e-9", "--crf.iterations", "2")[0]


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a window; its console and its requests are logged."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    assert all(paths), "the page's tests need a browser: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.add_argument("--window-size=1280,900")
    options.add_argument("--force-prefers-reduced-motion")  # or a click may miss what glides by
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(paths[1]))
    yield chrome
    chrome.quit()


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Callable[[Sequence[object]], str]:
    """What a user reads whose `fit` is refused."""

    def of(args: Sequence[object]) -> str:
        with pytest.raises(SystemExit) as stopped:
            user_errors(lambda: fit([str(arg) for arg in args]))
        assert stopped.value.code == 2
        err = capsys.readouterr().err
        said = err[err.rindex("error: ") :]
        assert "Traceback" not in said
        assert len(said.splitlines()) <= 3, said
        return said

    return of


@pytest.fixture(autouse=True)
def _same_threads() -> None:
    torch.set_num_threads(1)
