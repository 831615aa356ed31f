"""Which photo comes when, in which process, and with which seed."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from segment.data.dataset import Draw
from segment.seeds import mix_seed


class PhotoSampler(Sampler[Draw]):
    """Which photo comes when, in this process, and with which seed its augmentation draws.

    Every process gets the same number of draws, because collective operations wait for all of
    them. In training the surplus photos of an epoch are drawn again; in evaluation they are
    marked `counted=False`, so that no photo is scored twice and none is missed.

    Args:
        num_photos: Photos in the split.
        seed: Seed of the run.
        shuffle: Training (a new order every epoch, seeded draws) or evaluation (file order).
        rank: Index of this process.
        world_size: Number of processes.
    """

    def __init__(
        self, num_photos: int, seed: int, *, shuffle: bool, rank: int = 0, world_size: int = 1
    ) -> None:
        self.num_photos, self.seed, self.shuffle = num_photos, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_photos // self.world_size)

    def __iter__(self) -> Iterator[Draw]:
        order = list(range(self.num_photos))
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            order = torch.randperm(self.num_photos, generator=generator).tolist()
        for place in range(self.rank, len(self) * self.world_size, self.world_size):
            index = order[place % self.num_photos]
            if self.shuffle:
                # `place`, not `index`: a photo drawn again in the same epoch looks different.
                yield Draw(index, mix_seed(self.seed, self.epoch, place), counted=True)
            else:
                yield Draw(index, seed=None, counted=place < self.num_photos)
