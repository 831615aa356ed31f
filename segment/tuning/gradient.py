"""The CRF's weights and label compatibilities by gradient, at fixed widths.

Krähenbühl and Koltun, "Parameter Learning and Convergent Inference for Dense Random Fields", ICML
2013, learn them so; the loss here is the cross-entropy of Q.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from segment.crf import CRFLayer, DenseCRF
from segment.modules.losses import cross_entropy
from segment.scoring import at_size
from segment.tuning.cache import read_example

SIDE = 256  # pixels of the longer side of what it learns from
ITERATIONS = 5  # as in CRF-as-RNN's training


def learn(
    crf: DenseCRF,
    paths: Sequence[Path],
    num_classes: int,
    epochs: int,
    lr: float,
    seed: int,
    told: Callable[[float], object],
) -> DenseCRF:
    """Learn from photos, one a step.

    Args:
        crf: Where it starts, and the widths.
        paths: Files of the photos.
        num_classes: Number of classes.
        epochs: How often each photo is seen.
        lr: Adam's rate.
        seed: Of the photos' order.
        told: Called with each step's loss.
    """
    layer = CRFLayer(num_classes, crf)
    optimizer = torch.optim.Adam(layer.parameters(), lr)
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        for place in generator.permutation(len(paths)):
            photo, probabilities, truth, shown = read_example(paths[place])
            height, width = truth.shape
            factor = min(1.0, SIDE / max(height, width))
            size = max(1, round(height * factor)), max(1, round(width * factor))
            own = crf.at_working_size(*shown).scaled(factor)
            layer.crf = replace(own, iterations=ITERATIONS)
            small = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA)
            labels = cv2.resize(truth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            maps = at_size(torch.from_numpy(probabilities), size).clamp(min=crf.clip)
            image = torch.from_numpy(small).permute(2, 0, 1)[None]
            refined = layer(image, maps.log()[None])
            loss = cross_entropy(refined, torch.from_numpy(labels)[None].long(), None)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for weight in (layer.position_weight, layer.bilateral_weight):
                    weight.clamp_(min=0)
            told(loss.item())
    layer.crf = crf
    return layer.dense_crf()
