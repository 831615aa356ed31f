"""CRF-RNN: the mean field as the network's last layer, in training and in every verb after it."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from segment import tune_crf
from segment.crf import DenseCRF
from segment.export import export
from segment.fit import fit
from segment.modules import CRFRNNModule
from segment.modules.loading import load_checkpoint, read_checkpoint


@pytest.fixture
def module() -> CRFRNNModule:
    """Untrained, but with scores that differ."""
    torch.manual_seed(0)
    made = CRFRNNModule(3, padding="same", width=4, training_iterations=2)
    for name, parameter in made.network.named_parameters():
        if name.startswith("score"):
            torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()  # without dropout


def photos(number: int, height: int, width: int) -> torch.Tensor:
    """Coarse blocks of colour."""
    coarse = torch.randint(0, 256, (number, 3, 4, 5), dtype=torch.uint8)
    return F.interpolate(coarse, (height, width))


@pytest.mark.parametrize("size", [(40, 53), (64, 64)])
def test_what_is_scored_is_the_layer_s_own_answer_after_ten_steps(
    module: CRFRNNModule, size: tuple[int, int]
) -> None:
    """The fast backend and the layer that learns are one CRF, whatever was learnt."""
    image = photos(2, *size)
    with torch.no_grad():
        module.crf_layer.position_weight.fill_(1.5)
        module.crf_layer.compatibility.copy_(
            torch.tensor([[0.1, 1.0, 0.3], [0.8, 0.0, 2.0], [0.5, 1.0, 0.2]])
        )
        refined = module.probabilities(image)
        scores = module(image)
        module.crf_layer.crf = DenseCRF(**{**vars(module.crf_layer.crf), "iterations": 10})
        own = module.crf_layer(image, scores).softmax(1)
    assert refined.shape == (2, 3, *size)
    torch.testing.assert_close(refined, own, atol=2e-3, rtol=0)
    assert (refined - scores.softmax(1)).abs().mean() > 0.01  # the CRF did something


def test_training_goes_through_the_mean_field_to_every_parameter(module: CRFRNNModule) -> None:
    image, mask = photos(2, 40, 53), torch.randint(0, 3, (2, 40, 53))
    mask[:, :9] = 255
    scores = module(image)
    loss = module.loss(image, mask)
    plain = F.cross_entropy(scores, mask, ignore_index=255)
    assert (loss - plain).abs() > 0.01
    by_hand = module.crf_layer(image, scores)
    torch.testing.assert_close(loss, F.cross_entropy(by_hand, mask, ignore_index=255))
    loss.backward()
    missing = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in missing if not name.startswith("network.backbone")]
    # Some ReLUs of so thin a backbone are dead; the others have it.
    assert any(p.grad.any() for p in module.network.backbone_parameters() if p.grad is not None)
    assert module.loss(image, torch.full_like(mask, 255)) == 0


def test_half_precision_leaves_the_mean_field_alone(module: CRFRNNModule) -> None:
    image, mask = photos(1, 40, 53), torch.randint(0, 3, (1, 40, 53))
    with torch.autocast("cpu", torch.bfloat16):
        loss = module.loss(image, mask)
        scores = module(image).float()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(module.crf_layer(image, scores), mask))


def test_class_weights_weigh_what_the_mean_field_gives() -> None:
    torch.manual_seed(0)
    module = CRFRNNModule(2, padding="same", width=4, class_weights=[1.0, 0.0])
    image, mask = photos(1, 32, 32), torch.zeros(1, 32, 32, dtype=torch.long)
    alone = module.loss(image, mask)
    mask[:, :, 16:] = 1  # of weight 0
    refined = module.crf_layer(image, module(image))
    torch.testing.assert_close(module.loss(image, mask), F.cross_entropy(
        refined[..., :16], mask[..., :16]))  # fmt: skip
    assert alone > 0


def test_rates_are_those_of_the_release(module: CRFRNNModule) -> None:
    """lr_mult of its layer: 10000 for both kernels' weights, 1000 for the compatibility."""
    rates = {group["name"]: group["lr"] for group in module.parameter_groups()}
    assert rates["kernels"] == pytest.approx(1e4 * rates["backbone"])
    assert rates["compatibility"] == pytest.approx(1e3 * rates["backbone"])
    grouped = [p for group in module.parameter_groups() for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(module.parameters()))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"training_iterations": 0}, "model.training_iterations is 0; give at least 1"),
        ({"kernel_lr_factor": -1.0}, "model.kernel_lr_factor is -1.0; give 0 or more"),
        ({"bilateral_width_px": 0.0}, "bilateral_width_px"),
    ],
)
def test_refuses(settings: dict[str, float], told: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=told):
        CRFRNNModule(3, padding="same", width=4, **settings)


def experiment(sample: Path, root: Path, name: str, init_args: str) -> Path:
    path = root / f"{name}.yaml"
    path.write_text(f"""
model:
  class_path: segment.modules.{name}
  init_args: {{num_classes: 11, padding: same, width: 4, pretrained: false, optimizer: adamw,
    lr: 0.001, {init_args}}}
data: {{root: {sample}, taxonomy: trash10, crop_size: 48, batch_size: 2, workers: 0}}
trainer:
  {{max_epochs: 1, accelerator: cpu, enable_progress_bar: false, num_sanity_val_steps: 0,
    logger: false, log_every_n_steps: 1, default_root_dir: {root}}}
""")
    return path


@pytest.fixture(scope="module")
def run(sample: Path, run_verb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FCN-8s trained by itself, then through the CRF by two processes, and scored."""
    root = tmp_path_factory.mktemp("crf_rnn")
    fit(["--config", str(experiment(sample, root, "FCNModule", "stride: 8"))])
    (first,) = (root / "FCNModule").iterdir()
    init_args = f"weights: {first / 'checkpoints' / 'best.ckpt'}, kernel_lr_factor: 100"
    done = run_verb(
        "fit", "--config", experiment(sample, root, "CRFRNNModule", init_args),
        "--trainer.devices", "2", "--trainer.strategy", "ddp",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "start anew" not in done.stderr
    (second,) = (root / "CRFRNNModule").iterdir()
    return second


def test_a_run_starts_from_fcn_8s_and_its_crf_learns(run: Path) -> None:
    checkpoint = run / "checkpoints" / "last.ckpt"
    module = load_checkpoint(checkpoint)
    assert isinstance(module, CRFRNNModule)
    crf = module.dense_crf()
    assert crf.iterations == 10
    assert crf.backend_used == "native"
    assert crf.bilateral_weight != 5.0
    assert crf.compatibility is not None
    # Two steps of 0.001 leave the weights near those that the first run ended with.
    (fcn,) = (run.parents[1] / "FCNModule").iterdir()
    before = read_checkpoint(fcn / "checkpoints" / "best.ckpt")["state_dict"]
    weights = module.network.state_dict()
    for name, value in weights.items():
        assert (value - before[f"network.{name}"]).abs().max() < 0.01
    scored = json.loads((run / "evaluation.json").read_text())
    assert scored["refined"] is None
    assert scored["raw"]["miou"] is not None
    # The network alone: C * C + 2 numbers of the CRF are not among them.
    assert scored["cost"]["parameters"] == sum(p.numel() for p in module.network.parameters())


def test_tuning_says_that_the_network_refines_by_itself(run: Path, tmp_path: Path) -> None:
    words = ["--run", str(run), "--out", str(tmp_path), "--method", "optuna", "--trials", "1"]
    tune_crf.main([*words, "--photos", "2", "--crf.iterations", "1"])
    assert "`raw` is refined already" in (tmp_path / "tuning.md").read_text()


def test_the_onnx_file_has_the_network_and_names_the_crf(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "model.onnx"
    export(["--run", str(run), "--out", str(out), "--size", "48", "48"])
    assert "is not in the graph" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    crf = DenseCRF(**json.loads(session.get_modelmeta().custom_metadata_map["crf"]))
    module = load_checkpoint(run / "checkpoints" / "best.ckpt")
    assert isinstance(module, CRFRNNModule)
    assert crf == module.dense_crf()
    image = photos(1, 48, 48)
    (logits,) = session.run(["logits"], {"image": image.numpy()})
    refined = crf(image, torch.from_numpy(logits).softmax(1))
    with torch.inference_mode():
        torch.testing.assert_close(refined, module.probabilities(image), atol=1e-3, rtol=0)
