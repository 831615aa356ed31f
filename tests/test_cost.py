"""What a run says it cost: sums done by hand, and a clock that the test moves."""

import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import fit_tiny

import segment.cost
from segment.architectures import PlainFCN
from segment.cost import multiply_adds, peak_memory_mb
from segment.data.dataset import CocoSegmentation
from segment.modules import SegmentationModule

# A 3x3 convolution of 3 channels to 4, and a 1x1 one to 11 classes, at every pixel.
BY_HAND = 3 * 9 * 4 + 4 * 11


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_multiply_adds_are_those_of_two_convolutions(kind: torch.dtype) -> None:
    network = PlainFCN(11, depth=2, width=4).to(kind).train()
    assert multiply_adds(network) == BY_HAND * 512 * 512
    assert multiply_adds(network, side=100) == BY_HAND * 100 * 100
    assert network.training


def test_peak_memory_is_in_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pages = int(Path("/proc/self/statm").read_text().split()[1])  # resident now, as Linux says
    now = pages * resource.getpagesize() / 2**20
    assert 0.9 * now < peak_memory_mb() < 50 * now


def test_a_step_s_time_holds_its_photos_but_no_validation(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(segment.cost, "time", clock)

    def takes(seconds: float, owner: type, name: str) -> None:
        before: Callable = getattr(owner, name)

        def timed(*args: object) -> object:
            clock.now += seconds
            return before(*args)

        monkeypatch.setattr(owner, name, timed)

    takes(2, SegmentationModule, "training_step")
    takes(0.5, CocoSegmentation, "__getitem__")
    takes(100, SegmentationModule, "validation_step")
    # Three epochs of three steps of three photos; validation comes after every second step.
    _, evaluation = fit_tiny(
        sample, tmp_path, "--trainer.val_check_interval", "2", "--trainer.precision", "bf16-true"
    )
    assert evaluation["cost"]["seconds_per_training_step"] == 2 + 3 * 0.5
    assert evaluation["cost"]["multiply_adds_512"] == BY_HAND * 512 * 512
    assert evaluation["cost"]["peak_memory_mb_training"] > 0
