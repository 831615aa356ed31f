"""The CRF's weights and label compatibilities by gradient, at fixed widths.

Krähenbühl and Koltun, "Parameter Learning and Convergent Inference for Dense Random Fields", ICML
2013, learn them so; the loss here is the cross-entropy of Q.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from segment.crf import CRFLayer, DenseCRF
from segment.files import write_atomically
from segment.modules.losses import cross_entropy
from segment.scoring import at_size
from segment.tuning.cache import read_example

EPOCHS = 3  # how often each photo is seen
LR = 0.05  # Adam's
SIDE = 256  # pixels of the longer side of what it learns from
ITERATIONS = 5  # as in CRF-as-RNN's training


class Step(NamedTuple):
    """The loss on one photo, and both kernels' weights once it was learnt from."""

    loss: float
    position_weight: float
    bilateral_weight: float


class Learning:
    """Learns from photos, one a step; every step is kept, and what was killed goes on after it.

    Args:
        crf: Where it starts, and the widths.
        paths: Files of the photos.
        num_classes: Number of classes.
        known: File of the steps taken; made if it is new. Another learning's is another file.
        seed: Of the photos' order.

    Raises:
        ValueError: `known` was cut short or changed.
    """

    def __init__(
        self, crf: DenseCRF, paths: Sequence[Path], num_classes: int, known: Path, seed: int
    ) -> None:
        self.crf, self.paths, self.known, self.seed = crf, paths, known, seed
        self.layer = CRFLayer(num_classes, crf)
        self.optimizer = torch.optim.Adam(self.layer.parameters(), LR)
        self.steps: list[Step] = []
        if known.exists():
            self._take_up()

    def __len__(self) -> int:
        """The number of steps in all."""
        return EPOCHS * len(self.paths)

    def run(self) -> Iterator[Step]:
        """Take the steps that are left."""
        while len(self.steps) < len(self):
            epoch, turn = divmod(len(self.steps), len(self.paths))
            # From the seed and the epoch alone: taken up again, it sees the same photos.
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.paths))
            loss = self._loss(self.paths[order[turn]])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.layer.clamp_weights()
            weights = self.layer.position_weight.item(), self.layer.bilateral_weight.item()
            self.steps.append(Step(loss.item(), *weights))
            self._keep()
            yield self.steps[-1]

    def learnt(self) -> DenseCRF:
        """What was learnt so far."""
        self.layer.crf = self.crf
        return self.layer.dense_crf()

    def _loss(self, path: Path) -> Tensor:
        photo, probabilities, truth, shown = read_example(path)
        height, width = truth.shape
        factor = min(1.0, SIDE / max(height, width))
        size = max(1, round(height * factor)), max(1, round(width * factor))
        own = self.crf.at_working_size(*shown).scaled(factor)
        self.layer.crf = replace(own, iterations=ITERATIONS)
        small = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA)
        labels = cv2.resize(truth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        maps = at_size(torch.from_numpy(probabilities), size).clamp(min=self.crf.clip)
        image = torch.from_numpy(small).permute(2, 0, 1)[None]
        refined = self.layer(image, maps.log()[None])
        return cross_entropy(refined, torch.from_numpy(labels)[None].long())

    def _keep(self) -> None:
        buffer = io.BytesIO()
        state = {
            "steps": [tuple(step) for step in self.steps],
            "layer": self.layer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, buffer)
        write_atomically(self.known, buffer.getvalue())

    def _take_up(self) -> None:
        try:
            state = torch.load(self.known, weights_only=True)
            self.layer.load_state_dict(state["layer"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.steps = [Step(*step) for step in state["steps"]]
        except Exception as error:  # torch reports a broken file by whatever it stumbles over
            raise ValueError(
                f"{self.known}: is damaged; delete it, and learning starts over."
            ) from error
