"""Every network runs in onnxruntime as in torch, fed with 8-bit photos."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import onnxruntime
import pytest
import torch
from conftest import Verb
from torch import Tensor, nn

import segment
from segment import architectures
from segment.architectures import (
    FCN,
    FRRN,
    DeconvNet,
    DeepContextualNetwork,
    DeepLabV1,
    DeepLabV2,
    DeepLabV3,
    DeepLabV3Plus,
    EDeconvNet,
    PatchCNN,
    PlainFCN,
    SegNet,
    SegNetBasic,
    SemanticFPN,
    TorchvisionDeepLabV3,
    TorchvisionFCN,
    UNet,
    UpsamplingNet,
    xception,
)
from segment.architectures.layers import SegmentationNetwork
from segment.data.taxonomy import Taxonomy
from segment.evaluate import main
from segment.export import export, to_onnx
from segment.modules import SegmentationModule
from segment.modules.loading import load_checkpoint


def short_xception() -> DeepLabV3Plus:
    """One of the 16 middle blocks, which are all alike."""
    with patch.object(xception, "MIDDLE", xception.MIDDLE[:1]):
        return DeepLabV3Plus(3, width=16)


# Networks that cannot be exported would stand here with the operator at fault. There are none.

# A network, and the height of its photo, which is 3 pixels wider: nearly none is a valid size.
NETWORKS: dict[str, tuple[Callable[[], SegmentationNetwork], int]] = {
    "PatchCNN dense": (lambda: PatchCNN(3, "dense", 4), 20),
    "PatchCNN naive": (lambda: PatchCNN(3, "naive", 4), 2),
    "PatchCNN fully convolutional": (lambda: PatchCNN(3, "fully_convolutional", 4), 20),
    "PatchCNN shift-and-stitch": (lambda: PatchCNN(3, "shift_and_stitch", 4), 2),
    "PlainFCN": (lambda: PlainFCN(3, width=4), 20),
    "PlainFCN context": (lambda: PlainFCN(3, "context"), 20),
    "FCN 8s": (lambda: FCN(3, 8, width=2), 40),
    "FCN timm": (lambda: FCN(3, 8, backbone="test_resnet", padding="same"), 40),
    "FCN AlexNet": (lambda: FCN(3, backbone="alexnet", width=2), 40),
    "DeconvNet": (lambda: DeconvNet(3, width=8), 224),
    "EDeconvNet mean": (lambda: EDeconvNet(3, width=4), 224),
    "EDeconvNet product": (lambda: EDeconvNet(3, "product", width=4), 224),
    "SegNet": (lambda: SegNet(3, width=8), 45),
    "SegNetBasic": (lambda: SegNetBasic(3, width=4), 45),
    "UNet": (lambda: UNet(3, width=2), 30),
    "UNet timm": (lambda: UNet(3, True, True, 2, "test_resnet"), 40),
    "DeepLabV1": (lambda: DeepLabV1(3), 20),
    "DeepLabV1 MSc": (lambda: DeepLabV1(3, "msc_largefov"), 20),
    "DeepLabV2 VGG": (lambda: DeepLabV2(3), 20),
    "DeepLabV2 Lite0": (lambda: DeepLabV2(3, "tf_efficientnet_lite0", output_stride=16), 40),
    "DeepLabV2 ConvNeXt": (lambda: DeepLabV2(3, "convnext_atto", output_stride=16), 40),
    "DeepLabV2 scales": (lambda: DeepLabV2(3, "test_resnet", multi_scale=True), 40),
    "DeepLabV3 multi-grid": (lambda: DeepLabV3(3, "resnet26", 8, (1, 2), width=16), 40),
    "DeepLabV3Plus separable": (lambda: DeepLabV3Plus(3, "test_resnet", width=16), 40),
    "DeepLabV3Plus Xception": (short_xception, 40),
    "FRRN B": (lambda: FRRN(3, "B", 3), 40),
    "SemanticFPN": (lambda: SemanticFPN(3, "test_resnet", 64), 40),
    "DeepContextualNetwork": (lambda: DeepContextualNetwork(3, width=4), 20),
    "TorchvisionFCN": (lambda: TorchvisionFCN(3), 20),
    "TorchvisionDeepLabV3": (lambda: TorchvisionDeepLabV3(3, auxiliary=True), 20),
    "UpsamplingNet nearest": (lambda: UpsamplingNet(3, "nearest", 4), 20),
    "UpsamplingNet bed of nails": (lambda: UpsamplingNet(3, "bed_of_nails", 4), 20),
    "UpsamplingNet max unpooling": (lambda: UpsamplingNet(3, "max_unpooling", 4), 20),
    "UpsamplingNet transposed": (lambda: UpsamplingNet(3, "transposed_convolution", 4), 20),
    "UpsamplingNet bilinear": (lambda: UpsamplingNet(3, "bilinear", 4), 20),
    "UpsamplingNet bicubic": (lambda: UpsamplingNet(3, "bicubic", 4), 20),
    "UpsamplingNet dilation": (lambda: UpsamplingNet(3, "dilation", 4), 20),
}


def wrapped(network: SegmentationNetwork) -> SegmentationModule:
    """In a module, in evaluation mode: no parameter is 0, statistics are those of photos.

    Logits are at most around 1, as trained ones are: of thousands, float32 has fewer digits after
    the point than are compared.
    """
    module = SegmentationModule(3)
    module.wrap(network)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    side = network.least + (64 if norms else 8)
    photos = torch.randint(0, 256, (4, 3, *network.valid_size(side, side)), dtype=torch.uint8)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() == 1 or parameter.std() == 0:  # zeros, or a norm's ones
                parameter.add_(0.2 * torch.randn_like(parameter))
        for norm in norms:
            norm.momentum = 1.0
        module.train()(photos)
        spread = differences(module.eval()(photos[:1])).item()
        for name, parameter in network.named_parameters():
            if name.startswith(network.score_names):
                parameter.div_(max(1, spread))
    return module


def differences(logits: Tensor) -> Tensor:
    """The standard deviation of a class's logits over a photo, the mean of all classes."""
    return logits.std((2, 3)).mean()


def run(model: bytes, photo: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": photo.numpy()})
    return torch.from_numpy(logits)


def test_every_network_is_here() -> None:
    assert {name.split()[0] for name in NETWORKS} == set(architectures.__all__)


@pytest.mark.filterwarnings("ignore:The feature map has:UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_gives_the_same_logits(name: str) -> None:
    make, height = NETWORKS[name]
    torch.manual_seed(1)
    module = wrapped(make())
    model, _ = to_onnx(module, height, height + 3, {})
    photo = torch.randint(0, 256, (1, 3, height, height + 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = module(photo)
    found = run(model, photo)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    # ... and not only because all logits are small.
    assert (found - expected).abs().max() < 0.01 * differences(expected) < 0.1


@pytest.fixture(scope="module")
def exported(tiny_run: Path, run_verb: Verb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that the verb wrote, in a folder it had to make; and what it printed beside it."""
    path = tmp_path_factory.mktemp("exported") / "new" / "model.onnx"
    done = run_verb("export", "--run", tiny_run, "--out", path, "--size", 50, 71)
    assert done.returncode == 0, done.stderr
    assert list(path.parent.iterdir()) == [path]
    (path.parent / "stdout.txt").write_text(done.stdout)
    return path


def test_the_verb_s_file_takes_photos_as_they_are(exported: Path, tiny_run: Path) -> None:
    photo = torch.randint(0, 256, (1, 3, 50, 71), dtype=torch.uint8)
    with torch.inference_mode():
        expected = load_checkpoint(tiny_run / "checkpoints" / "best.ckpt")(photo)
    torch.testing.assert_close(run(exported.read_bytes(), photo), expected, rtol=0, atol=1e-4)


def test_the_file_says_what_it_takes_and_gives(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", [1, 3, 50, 71])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", [1, 11, 50, 71])
    metadata = session.get_modelmeta().custom_metadata_map
    taxonomy = Taxonomy.load("trash10")
    assert json.loads(metadata.pop("classes")) == list(taxonomy.classes)
    assert json.loads(metadata.pop("colors")) == [list(color) for color in taxonomy.colors]
    assert metadata == {
        "architecture": "DeepLabV2",
        "experiment": "tiny",
        "segment_version": segment.__version__,
        "short_side": "null",
    }


def test_the_file_names_no_folder_of_the_machine(exported: Path) -> None:
    assert str(Path(segment.__file__).parent).encode() not in exported.read_bytes()


def test_the_verb_prints_the_largest_difference(exported: Path) -> None:
    (line,) = (exported.parent / "stdout.txt").read_text().splitlines()
    found = re.fullmatch(
        rf"{exported}: [\d.]+ MB, takes photos of 50x71 pixels; on a random one onnxruntime's "
        r"logits differ from torch's by \d\.\de-\d\d in the median and (\d\.\de-\d\d) at most\.",
        line,
    )
    assert found
    assert float(found[1]) < 1e-4


def test_the_size_is_the_run_s_crop_unless_given(tiny_run: Path, tmp_path: Path) -> None:
    export(["--run", str(tiny_run), "--checkpoint", "last", "--out", str(tmp_path / "m.onnx")])
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 65, 65]


class Unfit(SegmentationNetwork):
    """Computes what ONNX cannot, or cannot repeat."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operation = operation
        self.score = nn.Conv2d(3, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.operation(self.score(image))


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (
            lambda x: x.kthvalue(1, 1, keepdim=True)[0] + x,
            r"^Unfit cannot be exported \(.*kthvalue",
        ),
        (lambda x: torch.rand_like(x), r"^onnxruntime's logits of Unfit differ from torch's by"),
        (lambda x: x * torch.nan, r"^onnxruntime's logits of Unfit differ from torch's by nan"),
    ],
)
def test_what_cannot_be_exported_leaves_no_file(
    operation: Callable[[Tensor], Tensor],
    message: str,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = SegmentationModule(11)
    module.wrap(Unfit(operation))
    module.taxonomy = Taxonomy.load("trash10")
    monkeypatch.setattr("segment.export.load_checkpoint", lambda path: module.eval())
    old = tmp_path / "model.onnx"
    old.write_text("an earlier model")
    with pytest.raises(ValueError, match=message) as error:
        export(["--run", str(tiny_run), "--out", str(old), "--size", "8", "9"])
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [old]
    assert old.read_text() == "an earlier model"


def test_some_pixels_may_differ_only_where_maxima_are_unpooled() -> None:
    module = SegmentationModule(3)
    module.wrap(Unfit(lambda x: torch.cat([torch.rand_like(x[..., :1]), x[..., 1:]], dim=-1)))
    with pytest.raises(ValueError, match=r"differ from torch's by .*; nothing was written"):
        to_onnx(module.eval(), 8, 9, {})
    module.network.pool = nn.MaxPool2d(2, return_indices=True)
    _, differences = to_onnx(module.eval(), 8, 9, {})
    assert differences[..., :1].max() > 0.01
    assert differences[..., 1:].max() < 1e-4


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ValueError, match=r"needs onnxscript; install .*pip install -e '\.\[export\]'"
    ):
        export(["--run", str(tiny_run), "--out", "model.onnx"])


def test_another_architecture_s_checkpoint_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    other = {"state_dict": {}, "segment": {"class_name": "SegNetModule"}}
    torch.save(other, tmp_path / "segnet.ckpt")
    args = ["--run", str(tiny_run), "--checkpoint", str(tmp_path / "segnet.ckpt")]
    message = r"segnet\.ckpt: is a checkpoint of SegNetModule, but .* trains DeepLabV2Module; give"
    with pytest.raises(ValueError, match=message):
        export([*args, "--out", str(tmp_path / "m.onnx")])
    with pytest.raises(ValueError, match=message):
        main(args)  # evaluate


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--out", "."], r"\.: is a folder; give --out a file such as model\.onnx"),
        (["--out", "m.onnx", "--size", "0", "8"], "--size is 0 8; give height and width in pixels"),
        (["--out", "m.onnx", "--checkpoint", "first"], "no checkpoint 'first'; choose one of best"),
    ],
)
def test_mistakes_are_told(args: list[str], message: str, tiny_run: Path) -> None:
    with pytest.raises(ValueError, match=message):
        export(["--run", str(tiny_run), *args])
