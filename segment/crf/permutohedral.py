"""Gaussian filtering of points in a few dimensions, in time linear in their number, with gradient.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
Eurographics 2010. Positions and rounding follow Krähenbühl and Koltun's code (NIPS 2011), so that
points lie in the same simplices with the same weights as in pydensecrf and the native backend.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F


class Lattice:
    """The simplices that points lie in, and which of their corners are neighbours.

    Args:
        features: Points in units of the kernel's width, (N, D), any device; without gradient.
        groups: Whole numbers (N,); points of other groups do not see each other. None is one group.
    """

    def __init__(self, features: Tensor, groups: Tensor | None = None) -> None:
        features = features.detach().float()
        n, d = features.shape
        base, rank, self.weights = _simplices(features)
        if groups is None:
            groups = features.new_zeros(n, dtype=torch.long)
        # Corner k's coordinate i is base + k, or a period less where that leaves the simplex. The
        # last coordinate follows from the others.
        k = torch.arange(d + 1, device=features.device)[:, None]
        beyond = rank[:, None, :d] > d - k
        corners = base[:, None, :d] + k - beyond * (d + 1)
        rows = torch.cat([groups[:, None, None].expand(-1, d + 1, 1), corners], 2).flatten(0, 1)
        keys = _Keys(rows, margin=d + 1)
        points, number, counts = keys(rows)[0].unique(return_inverse=True, return_counts=True)
        self.corners = number.view(n, d + 1)
        order = number.argsort(stable=True)
        self.members = order // (d + 1)  # points around each corner, corner by corner
        self.member_weights = self.weights.flatten()[order]
        self.starts = counts.cumsum(0) - counts
        self.neighbours = self._neighbours(rows[order[self.starts]], keys, points, d)

    @staticmethod
    def _neighbours(rows: Tensor, keys: _Keys, points: Tensor, d: int) -> list[Tensor]:
        """By direction of the blur, (M + 1, 2): both neighbours; M stands for none."""
        found = []
        for direction in range(d + 1):
            step = -torch.ones(d + 1, dtype=torch.long, device=rows.device)
            step[0] = 0  # the group stays
            if direction < d:
                step[direction + 1] = d
            sides = []
            for side in (rows - step, rows + step):
                key, known = keys(side)
                at = torch.searchsorted(points, key).clamp(max=len(points) - 1)
                sides.append(torch.where(known & (points[at] == key), at, len(points)))
            none = rows.new_full((1, 2), len(points))
            found.append(torch.cat([torch.stack(sides, 1), none]))
        return found

    def filter(self, values: Tensor) -> Tensor:
        """Sums of all values, each weighted by the kernel between its point and this one.

        Args:
            values: float (N, C), one row a point; gradients flow through it.

        Returns:
            float (N, C). A point is its own neighbour; the kernel is not normalized.
        """
        return _Filter.apply(values, self, False)

    def apply(self, values: Tensor, backwards: bool) -> Tensor:
        """`filter` without gradient, or its transpose: the blur's directions the other way."""
        dtype = values.dtype
        rows = F.embedding_bag(
            self.members,
            values.contiguous(),
            self.starts,
            mode="sum",
            per_sample_weights=self.member_weights.to(dtype),
        )
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        for sides in reversed(self.neighbours) if backwards else self.neighbours:
            rows = rows + (rows[sides[:, 0]] + rows[sides[:, 1]]) / 2
        alpha = 1 / (1 + 2.0 ** -(len(self.neighbours) - 1))
        weights = self.weights.to(dtype)
        return alpha * F.embedding_bag(self.corners, rows, mode="sum", per_sample_weights=weights)


class _Filter(Function):
    """The filter is linear, so its gradient is the transposed filter: nothing else is kept."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: Lattice, backwards: bool) -> Tensor:
        ctx.lattice, ctx.backwards = lattice, backwards
        return lattice.apply(values, backwards)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Filter.apply(gradients[0], ctx.lattice, not ctx.backwards), None, None


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By point: its simplex's corner 0, the order of its coordinates, its weights by corner."""
    n, d = features.shape
    deviation = math.sqrt(2 / 3) * (d + 1)
    scale = [deviation / math.sqrt((i + 1) * (i + 2)) for i in range(d)]
    scaled = features * features.new_tensor(scale)
    elevated = features.new_empty(n, d + 1)
    total = features.new_zeros(n)
    for j in range(d, 0, -1):
        elevated[:, j] = total - j * scaled[:, j - 1]
        total = total + scaled[:, j - 1]
    elevated[:, 0] = total

    step = (elevated * (1 / (d + 1))).round()
    base, off = step * (d + 1), step.sum(1, keepdim=True)
    rest = elevated - base
    less = rest[:, :, None] < rest[:, None, :]
    rank = less.triu(1).sum(2) + (~less).triu(1).sum(1) + off
    back = torch.where(rank < 0, d + 1, torch.where(rank > d, -(d + 1), 0))
    rank, base = (rank + back).long(), base + back
    rest = (elevated - base) * (1 / (d + 1))
    ordered = torch.empty_like(rest).scatter_(1, d - rank, rest)
    weights = ordered - ordered.roll(1, 1)
    weights[:, 0] += 1
    return base.long(), rank, weights


class _Keys:
    """One whole number for each row of whole numbers, the same only for equal rows.

    Args:
        rows: (P, F); rows up to `margin` away from some of them can be asked for.
        margin: See there.
    """

    def __init__(self, rows: Tensor, margin: int) -> None:
        self.low = (rows.amin(0) - margin).tolist()
        high = (rows.amax(0) + margin).tolist()
        self.spans = [b - a + 1 for a, b in zip(self.low, high, strict=True)]
        self.known: dict[int, Tensor] = {}  # by column: numbers met so far, where 64 bits were full

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The number of each row, and whether its beginning was among the first rows given."""
        key = rows[:, 0] - self.low[0]
        found = torch.ones_like(key, dtype=torch.bool)
        size = self.spans[0]
        for column in range(1, rows.shape[1]):
            if size * self.spans[column] >= 2**62:
                known = self.known.setdefault(column, key.unique())
                at = torch.searchsorted(known, key).clamp(max=len(known) - 1)
                found &= known[at] == key
                key, size = at, len(known)
            key = key * self.spans[column] + (rows[:, column] - self.low[column])
            size *= self.spans[column]
        return key, found
