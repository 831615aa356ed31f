"""BN statistics before a validation, against sums over the same crops by hand."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

import segment.modules.batch_norm
from segment.data.datamodule import TrashDataModule, _collate
from segment.data.dataset import CocoSegmentation
from segment.data.sampler import PhotoSampler
from segment.modules import SegNetBasicModule


def data_of(sample: Path) -> TrashDataModule:
    return TrashDataModule(
        str(sample), taxonomy="trash10", crop_size=32, batch_size=3, workers=0, seed=4
    )


def fit(sample: Path, tmp_path: Path, **settings: object) -> SegNetBasicModule:
    torch.manual_seed(0)
    wanted = bool(settings.pop("recompute_batch_norm", True))
    module = SegNetBasicModule(11, width=2, recompute_batch_norm=wanted)
    options = {"max_epochs": 2, "num_sanity_val_steps": 1, **settings}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **options,  # type: ignore[arg-type]
    )
    trainer.fit(module, datamodule=data_of(sample))
    return module


def first_norm(module: SegNetBasicModule) -> nn.BatchNorm2d:
    return next(m for m in module.network.modules() if isinstance(m, nn.BatchNorm2d))


def by_hand(module: SegNetBasicModule, batches: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean over batches of the mean and variance that the first BN layer sees."""
    conv = next(m for m in module.network.modules() if isinstance(m, nn.Conv2d))
    means, variances = [], []
    with torch.no_grad():
        for batch in batches:
            image = batch["image"].float()
            x = image / (1 + 1e-4 / 5 * image.square().sum(1, keepdim=True)) ** 0.75
            x = F.conv2d(x, conv.weight, conv.bias, padding=3).transpose(0, 1).flatten(1)
            means.append(x.mean(1))
            variances.append(x.var(1))
    return torch.stack(means).mean(0), torch.stack(variances).mean(0)


def close(norm: nn.BatchNorm2d, expected: tuple[Tensor, Tensor]) -> bool:
    found = (norm.running_mean, norm.running_var)
    return all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-3) for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("limit", [3, 2])
def test_statistics_are_those_of_the_epoch_s_crops_under_the_last_weights(
    sample: Path, tmp_path: Path, limit: int
) -> None:
    module = fit(sample, tmp_path, limit_train_batches=limit)
    loader = data_of(sample).train_dataloader()
    loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
    batches = list(loader)
    assert len(batches) == 3
    norm = first_norm(module)
    assert close(norm, by_hand(module, batches[:limit]))
    assert norm.momentum == 0.1  # training goes on as before


def test_counts_at_every_validation_but_not_at_the_sanity_check(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []
    real = segment.modules.batch_norm.update_bn

    def count(batches, network) -> None:
        real(batches, network)
        epochs.append((network.training, next(network.modules()).training))

    monkeypatch.setattr(segment.modules.batch_norm, "update_bn", count)
    fit(sample, tmp_path)
    assert epochs == [(False, False)] * 2  # two epochs; the network stays in evaluation mode


def test_without_it_statistics_are_running_averages(sample: Path, tmp_path: Path) -> None:
    counted, running = (
        first_norm(fit(sample, tmp_path, recompute_batch_norm=wanted)) for wanted in (True, False)
    )
    assert int(counted.num_batches_tracked) == 3
    assert int(running.num_batches_tracked) == 6
    assert not torch.allclose(counted.running_var, running.running_var, rtol=1e-2)


def test_two_processes_count_each_other_s_crops(sample: Path, tmp_path: Path) -> None:
    module = fit(sample, tmp_path, max_epochs=1, devices=2, strategy="ddp_fork")
    data = data_of(sample)
    dataset = CocoSegmentation(data.read("train"), data.train_transform)
    batches = []
    for rank in (0, 1):
        draws = list(PhotoSampler(9, 4, shuffle=True, rank=rank, world_size=2))
        assert len(draws) == 5  # a batch of three; the rest of two is left out
        batches.append(_collate([dataset[draw] for draw in draws[:3]]))
    assert close(first_norm(module), by_hand(module, batches))
    assert not close(first_norm(module), by_hand(module, batches[:1]))


def test_refuses_to_count_what_stays_as_it_is() -> None:
    with pytest.raises(ValueError, match="freeze_batch_norm keeps BN's statistics and"):
        SegNetBasicModule(3, width=2, freeze_batch_norm=True)
