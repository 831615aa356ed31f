from hashlib import sha256

import pytest
import torch
import torchvision
from alignment import averaging, centroid
from torch import nn
from torch.nn import functional as F

from segment.architectures import TorchvisionDeepLabV3, TorchvisionFCN
from segment.architectures.pretrained import load_weights

NETWORKS = {"fcn": TorchvisionFCN, "deeplabv3": TorchvisionDeepLabV3}
# sha256 of the sorted lines "name shape" ("classifier.4.bias 21") of every tensor: torchvision 0.21
# and 0.29 give these. The published files have not been read here; torchvision loads them strictly.
SAVED = {
    "fcn_resnet50": "081dc3d2a83d820294b793eaaa0bf41a62bf08519162b2944bb3ccb6042c0295",
    "fcn_resnet101": "4b6c02fc8421e7d3dd5f01bb8cb35a99345574afee6f2b468fd341759e32a40d",
    "deeplabv3_resnet50": "0784418d14d70969d54df6ca49332cca92eaa41a22120351c872cda3b2128d2c",
    "deeplabv3_resnet101": "2023723c6cdc37892600544d7badba6483c3e06157165fc32a6d5a63bb9fcf7f",
}


@pytest.mark.parametrize("name", SAVED)
def test_names_and_shapes_are_those_of_torchvision_0_21_and_0_29(name) -> None:
    family, backbone = name.split("_")
    with torch.device("meta"):
        tensors = NETWORKS[family](21, backbone, auxiliary=True).state_dict()
    lines = sorted(f"{key} {'x'.join(map(str, value.shape))}" for key, value in tensors.items())
    assert sha256("\n".join(lines).encode()).hexdigest() == SAVED[name]


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
@pytest.mark.parametrize("family", ["fcn", "deeplabv3"])
def test_names_and_shapes_are_those_that_torchvision_saves(family, backbone, auxiliary) -> None:
    name = f"{family}_{backbone}"
    with torch.device("meta"):
        ours = NETWORKS[family](21, backbone, auxiliary)
        theirs = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=21, aux_loss=auxiliary
        )
    found = {key: tuple(value.shape) for key, value in ours.state_dict().items()}
    assert found == {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    # The files that torchvision publishes, which no test downloads, begin and end so.
    assert next(iter(found)) == "backbone.conv1.weight"
    last = "aux_classifier.4.bias" if auxiliary else "classifier.4.bias"
    assert list(found)[-1] == last
    assert found["backbone.layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert found["classifier.4.weight"] == (21, 512 if family == "fcn" else 256, 1, 1)
    count = sum(p.numel() for p in ours.parameters())
    official = torchvision.models.get_model_weights(name)["COCO_WITH_VOC_LABELS_V1"]
    if auxiliary:
        assert count == official.meta["num_params"]
    else:
        assert count == official.meta["num_params"] - 2_365_205  # the auxiliary head


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: TorchvisionFCN(21), 32_957_013),
        (lambda: TorchvisionFCN(21, auxiliary=True), 35_322_218),
        (lambda: TorchvisionFCN(21, "resnet101"), 51_949_141),
        (lambda: TorchvisionFCN(21, "resnet101", auxiliary=True), 54_314_346),
        (lambda: TorchvisionDeepLabV3(21), 39_638_869),
        (lambda: TorchvisionDeepLabV3(21, auxiliary=True), 42_004_074),
        (lambda: TorchvisionDeepLabV3(21, "resnet101"), 58_630_997),
        (lambda: TorchvisionDeepLabV3(21, "resnet101", auxiliary=True), 60_996_202),
    ],
)
def test_has_as_many_parameters_as_published(make, count) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == count


@pytest.mark.parametrize("family", ["fcn", "deeplabv3"])
def test_strides_became_dilations_and_the_first_block_keeps_the_dilation_before(family) -> None:
    with torch.device("meta"):
        backbone = NETWORKS[family](2).backbone
    blocks = [[b.conv2 for b in getattr(backbone, f"layer{i}")] for i in (2, 3, 4)]
    assert [stage[0].stride[0] for stage in blocks] == [2, 1, 1]
    assert [stage[0].dilation[0] for stage in blocks] == [1, 1, 2]
    assert [stage[1].dilation[0] for stage in blocks] == [1, 2, 4]


@pytest.mark.parametrize("family", ["fcn", "deeplabv3"])
def test_sizes_are_torchvision_s(family) -> None:
    with torch.device("meta"):
        network = NETWORKS[family](21, auxiliary=True)
        for size, cells in [((512, 512), (64, 64)), ((375, 500), (47, 63))]:
            assert network.valid_size(*size) == size
            image = torch.zeros(2, 3, *size)
            assert network.backbone(image)["out"].shape == (2, 2048, *cells)
            assert [tuple(x.shape) for x in network.score_both(image)] == [(2, 21, *size)] * 2
        assert network.valid_size(1, 20) == (9, 20)
        with pytest.raises(ValueError, match=r"got 8x20\. Pad it to 9x20"):
            network(torch.zeros(2, 3, 8, 20))


def drawn(network: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict for a network on the meta device, one number per row: a small file."""
    torch.manual_seed(0)
    weights = {}
    for key, like in network.state_dict().items():
        row = torch.rand([*like.shape[:1], *[1] * (like.dim() - 1)]) + 0.5
        if like.dim() == 4:
            row = torch.randn(row.shape) * 2 / like[0].numel()
        weights[key] = row.to(like.dtype).expand(like.shape)
    return weights


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Leaves out the random weights, which take seconds, where others replace them."""
    for draw in ("kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, draw, lambda tensor, **_: tensor)


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> dict[str, str]:
    """Files of the names and shapes that torchvision publishes, auxiliary head included."""
    paths = {}
    for family in NETWORKS:
        with torch.device("meta"):
            theirs = torchvision.models.get_model(
                f"{family}_resnet50", weights=None, weights_backbone=None, aux_loss=True
            )
        path = tmp_path_factory.mktemp("official") / f"{family}.pth"
        torch.save(drawn(theirs), path)
        paths[family] = str(path)
    return paths


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("family", ["fcn", "deeplabv3"])
def test_official_weights_give_torchvision_s_scores(family, official) -> None:
    network = NETWORKS[family](21, auxiliary=True, pretrained=official[family]).eval()
    with torch.device("meta"):
        theirs = torchvision.models.get_model(
            f"{family}_resnet50", weights=None, weights_backbone=None, aux_loss=True
        ).eval()
    theirs.load_state_dict(torch.load(official[family]), assign=True)
    image = torch.randn(1, 3, 37, 50)
    with torch.no_grad():
        expected = theirs(image)
        assert expected["out"].std() > 1e-3
        for found, key in zip(network.score_both(image), ["out", "aux"], strict=True):
            torch.testing.assert_close(found, expected[key])
        assert torch.equal(network(image), network(image))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("family", "auxiliary"), [("fcn", True), ("deeplabv3", False)])
def test_official_weights_of_21_classes_fill_all_but_other_scores(
    family, auxiliary, official
) -> None:
    network = NETWORKS[family](11, auxiliary=auxiliary, pretrained=official[family])
    given = torch.load(official[family])
    for key, value in network.state_dict().items():
        scores = key.startswith(("classifier.4.", "aux_classifier.4."))
        assert (value.shape == given[key].shape) != scores
        assert scores or torch.equal(value, given[key])
    assert (network.aux_classifier is not None) == auxiliary


@pytest.mark.usefixtures("undrawn")
def test_takes_imagenet_s_resnet_and_leaves_the_head(tmp_path) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnet50()
    resnet = drawn(theirs)
    torch.save(resnet, tmp_path / "resnet50.pth")
    network = TorchvisionFCN(3, pretrained=str(tmp_path / "resnet50.pth"))
    own = network.backbone.state_dict()
    assert len(own) == len(resnet) - 2
    assert all(torch.equal(value, resnet[key]) for key, value in own.items())
    heads = {id(p) for p in network.classifier.parameters()}
    assert {id(p) for p in network.head_parameters()} == heads


@pytest.mark.usefixtures("undrawn")
def test_refuses_another_network_s_weights_and_backbones(official) -> None:
    with pytest.raises(ValueError, match=r"fcn\.pth: has no 'classifier\.0\.convs"):
        TorchvisionDeepLabV3(21, pretrained=official["fcn"])
    with pytest.raises(ValueError, match="backbone is 'vgg16'; it can be 'resnet50' or"):
        TorchvisionFCN(21, "vgg16")


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_auxiliary_head_starts_one_with() -> None:
    with torch.device("meta"):
        network = TorchvisionFCN(4)
    earlier = drawn(network)
    assert load_weights(TorchvisionFCN(4, auxiliary=True), earlier) == ["aux_classifier"]
    assert load_weights(TorchvisionFCN(4), earlier) == []


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("family", ["fcn", "deeplabv3"])
def test_scores_lie_three_and_a_half_pixels_late_as_torchvision_s_do(family) -> None:
    network = averaging(NETWORKS[family](2))
    if family == "deeplabv3":
        network.classifier[0].convs[4][1].weight.data.zero_()  # the whole photo has no place
    image = torch.zeros(1, 3, 160, 160, requires_grad=True)
    rows, columns = torch.arange(70, 102), torch.arange(60, 92)
    row, column = centroid(network(image)[0, 0, rows, columns], image)
    assert row == pytest.approx(85.5 - 3.5, abs=0.1)
    assert column == pytest.approx(75.5 - 3.5, abs=0.1)


def test_image_pooling_and_every_rate_reach_the_scores() -> None:
    torch.manual_seed(0)
    network = TorchvisionDeepLabV3(3).eval()
    image = torch.randn(1, 3, 33, 33)
    aspp = network.classifier[0]
    assert [b[0].dilation[0] for b in list(aspp.convs)[1:4]] == [12, 24, 36]
    with torch.no_grad():
        whole = network(image)
        for branch in aspp.convs:
            (conv,) = (layer for layer in branch if isinstance(layer, nn.Conv2d))
            kept = conv.weight.clone()
            conv.weight.zero_()
            assert (network(image) - whole).abs().max() > 1e-4
            conv.weight.copy_(kept)
        assert torch.equal(network(image), whole)


@pytest.mark.parametrize("family", ["fcn", "deeplabv3"])
def test_every_parameter_learns(family) -> None:
    torch.manual_seed(0)
    network = NETWORKS[family](3, auxiliary=True).train()
    scores = network.score_both(torch.randn(2, 3, 65, 65))
    sum(F.cross_entropy(s, torch.randint(0, 3, (2, 65, 65))) for s in scores).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_single_photo_trains_fcn_and_is_refused_by_deeplab_v3_with_the_reason() -> None:
    image = torch.randn(1, 3, 9, 9)
    assert TorchvisionFCN(2).train()(image).isfinite().all()
    network = TorchvisionDeepLabV3(2).train()
    with pytest.raises(ValueError, match=r"one photo per step and device; set data\.batch_size"):
        network(image)
    assert network.eval()(image).shape == (1, 2, 9, 9)
