"""A checkpoint, as Lightning saves it, is what the `pretrained` of the same architecture takes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from segment.modules import (
    DeconvNetModule,
    DeepContextualNetworkModule,
    DeepLabV1Module,
    DeepLabV2Module,
    DeepLabV3PlusModule,
    FCNModule,
    SegmentationModule,
    SegNetModule,
    TorchvisionDeepLabV3Module,
    TorchvisionFCNModule,
    UNetModule,
)


def saved(module: SegmentationModule, folder: Path) -> str:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=folder
    )
    trainer.strategy.connect(module)
    path = folder / "run.ckpt"
    trainer.save_checkpoint(path)
    assert any(key.startswith("network.") for key in torch.load(path)["state_dict"])
    return str(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda **a: SegNetModule(**a, width=2),
        lambda **a: DeconvNetModule(**a, width=2),
        lambda **a: DeepContextualNetworkModule(**a, width=2),
        lambda **a: FCNModule(**a, stride=8, width=2),
        lambda **a: UNetModule(**a, padded=True, width=2, backbone="test_resnet"),
        lambda **a: DeepLabV2Module(**a, backbone="test_resnet"),
        lambda **a: DeepLabV3PlusModule(**a, backbone="test_resnet", width=4),
        lambda **a: DeepLabV1Module(**a),
        lambda **a: TorchvisionFCNModule(**a),
    ],
    ids=lambda make: "-".join(n for n in make.__code__.co_names if n.endswith("Module")),
)
def test_an_earlier_run_s_backbone_is_taken_whatever_its_classes(
    make: Callable[..., SegmentationModule], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    earlier = make(num_classes=5, pretrained=False)
    network = make(num_classes=3, pretrained=saved(earlier, tmp_path)).network
    pairs = list(
        zip(network.backbone_parameters(), earlier.network.backbone_parameters(), strict=True)
    )
    assert len(pairs) >= 10
    assert all(torch.equal(own, given) for own, given in pairs)


def test_the_branches_of_msc_start_beside_a_trained_largefov(tmp_path: Path) -> None:
    torch.manual_seed(0)
    earlier = DeepLabV1Module(4, pretrained=False)
    path = saved(earlier, tmp_path)
    given = earlier.network.state_dict()
    # As `weights`: the classifier too, as section 4.3 has it.
    module = DeepLabV1Module(4, "msc_largefov", pretrained=False, weights=path)
    own = module.network.state_dict()
    assert [key for key in given if not torch.equal(own[key], given[key])] == []
    assert {key.split(".")[0] for key in own.keys() - given.keys()} == {"branches"}
    # As `pretrained`: all that an ImageNet network would fill.
    own = DeepLabV1Module(4, "msc_largefov", pretrained=path).network.state_dict()
    other = [key for key in given if not torch.equal(own[key], given[key])]
    assert other == ["head.fc8.weight"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda **a: SegNetModule(3, **a), "has no 'features.0.weight', so it holds another"),
        (lambda **a: DeepLabV1Module(3, **a), "has no 'backbone.0.weight'"),
        (lambda **a: DeepContextualNetworkModule(3, **a), "has no 'features.0.weight'"),
        (lambda **a: TorchvisionDeepLabV3Module(3, **a), "has no 'backbone.conv1.weight'"),
        (lambda **a: FCNModule(3, backbone="resnet18", padding="same", **a), "'conv1.weight'"),
        (lambda **a: DeepLabV2Module(3, backbone="tf_efficientnet_lite0", **a), "has no 'conv_"),
    ],
)
def test_another_architecture_s_run_is_named(
    make: Callable[..., SegmentationModule], message: str, tmp_path: Path
) -> None:
    earlier = UNetModule(3, padded=True, width=2, backbone="test_resnet", pretrained=False)
    path = saved(earlier, tmp_path)
    with pytest.raises(ValueError, match=r"run\.ckpt \(a checkpoint of UNet\): ") as caught:
        make(pretrained=path)
    print(caught.value)
    assert message in str(caught.value)
