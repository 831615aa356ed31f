"""Fully connected CRF with Gaussian edge potentials.

Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011, https://arxiv.org/abs/1210.5644
Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs"
(DeepLab v1), ICLR 2015, https://arxiv.org/abs/1412.7062; v2: https://arxiv.org/abs/1606.00915
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segment.crf import exact, layer, native, pydensecrf
from segment.crf.arrays import Array, device_of, resized, resized_photo, restorer
from segment.crf.guard import check, check_settings, scaled_widths, whole
from segment.crf.pool import WorkerPool
from segment.crf.presets import PRESETS

Normalization = Literal["symmetric", "after", "before", "none"]
Backend = Literal["auto", "native", "pydensecrf", "torch", "exact"]


@dataclass(frozen=True)
class DenseCRF:
    """Pulls class probabilities to the photo's edges by mean field over all pairs of pixels.

    A pair of pixels with labels a and b costs mu(a, b) times the sum of two kernels, one of their
    distance in the photo, one of their distance in the photo and in colour.

    Args:
        iterations: Mean-field steps, 0 to 1000; 0 returns the clipped input.
        position_width_px: Standard deviation of the smoothness kernel, in pixels.
        position_weight: Weight of the smoothness kernel, 0 or more.
        bilateral_width_px: Standard deviation of the appearance kernel in the photo, in pixels.
        bilateral_width_levels: Standard deviation of the appearance kernel in colour, in 8-bit
            grey levels.
        bilateral_weight: Weight of the appearance kernel, 0 or more.
        normalization: How a kernel K is scaled by n_i = sum_j K_ij, pixel i included: `symmetric`
            D^-1/2 K D^-1/2 (pydensecrf's default), `after` D^-1 K (DeepLab's code), `before`
            K D^-1, `none` K.
        compatibility: mu, a symmetric C x C matrix: the cost of label a beside label b, so
            positive off the diagonal pushes a and b apart. None is Potts: 1 off the diagonal, 0
            on it. weight * mu is what goes to pydensecrf as its two-dimensional `compat`, sign
            unchanged: that is an energy, while its number w and its vector are rewards.
        clip: Probabilities below this are raised to it before -log, in [1e-30, 1).
        backend: `native` approximates the kernels in linear time, `pydensecrf` likewise but slower,
            `torch` likewise on the probabilities' own device (`CRFLayer` has its gradient), `exact`
            sums over all pairs (10,000 pixels at most); `auto` is `native` where it was built, else
            `pydensecrf`.
        max_side: A photo with a longer side than this, in pixels, is refined at this size and the
            result is upsampled bilinearly; both pixel widths shrink along. None refines at full
            size.
        reference_size: The longer side, in pixels, of the photos that both widths in pixels are
            for; they are rescaled to that of each photo. None takes them as they are.
        leave_out_below: Classes whose probability stays below this in the whole photo, and which no
            pixel is labelled, are left out and get 0. Of 61 classes with 10 present that saves
            three fifths of the time; none was saved with 3 to 11 classes. 0 leaves none out.
        keep_classes: Train ids whose pixels keep their probabilities: those that the input or the
            result labels so. Such a class's IoU stays what it was.
        tuned_on: sha256 of the annotation file whose photos chose these parameters, so that
            scores on the same photos can say so.

    Raises:
        ValueError: A field is out of its range.
    """

    iterations: int = 10
    position_width_px: float = 3.0
    position_weight: float = 3.0
    bilateral_width_px: float = 80.0
    bilateral_width_levels: float = 13.0
    bilateral_weight: float = 10.0
    normalization: Normalization = "symmetric"
    compatibility: list[list[float]] | None = None
    clip: float = 1e-5
    backend: Backend = "auto"
    max_side: int | None = 1280
    reference_size: int | None = None
    leave_out_below: float = 0.0
    keep_classes: list[int] | None = None
    tuned_on: str | None = None

    def __post_init__(self) -> None:
        choices = {"normalization": get_args(Normalization), "backend": get_args(Backend)}
        check_settings(self, choices)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> DenseCRF:
        """Parameters that a paper or its code published, under a name of `PRESETS`.

        Args:
            name: A key of `PRESETS`, e.g. `deeplab_v2_resnet101`.
            **changes: Fields to set differently.

        Raises:
            ValueError: No preset has that name, or a change is out of its range.
        """
        if name not in PRESETS:
            raise ValueError(f"No CRF preset is called {name!r}; choose from {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **changes})

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels at which a photo of height x width pixels is refined.

        Resizing photo and probabilities to this, and calling `at_working_size(height, width)` on
        them, gives what `__call__` gives before it upsamples all classes.
        """
        scale = self._scale(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def at_working_size(self, height: int, width: int) -> DenseCRF:
        """The CRF for a photo already reduced from height x width pixels to `working_size`."""
        factor = self._scale(height, width)
        if self.reference_size is not None:
            factor *= max(height, width) / self.reference_size
        return replace(self.scaled(factor), reference_size=None)

    def check_fits(self, num_classes: int, height: int, width: int) -> None:
        """Refuse photos of this size, in pixels, with this many classes, before there are any.

        Raises:
            ValueError: `clip` or `compatibility` is for fewer or other classes, or the backend
                cannot hold the photo at its working size.
        """
        self._check_classes(num_classes)
        if self.backend == "exact":
            exact.check_size(*self.working_size(height, width))

    def _check_classes(self, classes: int) -> None:
        if classes * self.clip >= 1:
            raise ValueError(
                f"crf: clip is {self.clip}, which would raise even the uniform probability of "
                f"{classes} classes; make it far below {1 / classes:.3g}."
            )
        if self.compatibility is not None and len(self.compatibility) != classes:
            raise ValueError(
                f"crf: compatibility is for {len(self.compatibility)} classes but the "
                f"probabilities have {classes}; give it one row and one column for each."
            )
        if self.keep_classes and max(self.keep_classes) >= classes:
            raise ValueError(
                f"crf: keep_classes names train id {max(self.keep_classes)}, but there are "
                f"{classes} classes, 0 to {classes - 1}; take the CRF that was tuned on these."
            )

    def scaled(self, factor: float) -> DenseCRF:
        """The CRF for a photo resized by this factor: widths are in pixels, so they follow."""
        position, bilateral = scaled_widths(self, factor)
        return replace(self, position_width_px=position, bilateral_width_px=bilateral)

    @property
    def backend_used(self) -> str:
        """The backend that `auto` stands for here, else the one named."""
        if self.backend != "auto":
            return self.backend
        if native.AVAILABLE:
            return "native"
        native.warn_missing()
        return "pydensecrf"

    @property
    def releases_lock(self) -> bool:
        """Whether threads of Python refine several photos at a time."""
        return self.backend_used in ("native", "torch")

    def _scale(self, height: int, width: int) -> float:
        return 1.0 if self.max_side is None else min(1.0, self.max_side / max(height, width))

    def __call__(self, image: Array, probabilities: Array) -> Tensor:
        """Refine the probabilities of one photo, or of N photos one after another.

        The native backend takes as many threads as torch, or one where the caller is a thread.

        Args:
            image: The photo before normalization, RGB uint8 (H, W, 3) or (3, H, W), or
                (N, H, W, 3) or (N, 3, H, W); where both layouts fit, channels are last.
            probabilities: After softmax, float (C, H, W) or (N, C, H, W), any device.

        Returns:
            Probabilities, float32, of the same shape and on the same device, without gradient;
            each pixel sums to 1. The inputs are left as they are.

        Raises:
            ValueError: One of the two is not what it should be; says what to do.
            ImportError: The backend is not installed.
        """
        photos, maps = self._check(image, probabilities)
        several = threading.current_thread() is not threading.main_thread()
        where = Where(1 if several else torch.get_num_threads(), device_of(probabilities))
        return restorer(probabilities)(self._refine(photos, maps, where))

    def map(self, photos: Iterable[tuple[Array, Array]], workers: int) -> Iterator[Tensor]:
        """Refine many photos in parallel, in order, at most 2 * workers of them in memory.

        Workers are threads. With `pydensecrf` and `exact`, which hold Python's lock, they are fresh
        processes: starting one takes seconds, and a script must call this below
        `if __name__ == "__main__":`.

        Args:
            photos: Pairs as `__call__` takes them, read as they are needed.
            workers: Number of photos that are refined at a time; 0 refines them one by one here.

        Returns:
            What `__call__` would give, pair by pair.

        Raises:
            ValueError: `workers` is not 0 or more; or a pair is refused, as soon as it is read.
        """
        if not whole(workers, 0):
            raise ValueError(f"crf.map: workers is {workers!r}; make it a whole number, 0 or more.")
        return self._map(photos, workers) if workers else (self(*pair) for pair in photos)

    def _map(self, photos: Iterable[tuple[Array, Array]], workers: int) -> Iterator[Tensor]:
        pool: WorkerPool[Job, NDArray[np.float32]] = WorkerPool(_run, workers, self.releases_lock)
        restorers: deque[Callable[[NDArray[np.float32]], Tensor]] = deque()
        try:
            for image, probabilities in photos:
                where = Where(1, device_of(probabilities))
                restorers.append(restorer(probabilities))
                job = Job(self, *self._check(image, probabilities), where)
                for refined in pool.submit(job):
                    yield restorers.popleft()(refined)
            for refined in pool.drain():
                yield restorers.popleft()(refined)
        finally:  # also where the caller stops early
            pool.close()

    def _check(
        self, image: Array, probabilities: Array
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        photos, maps = check(image, probabilities)
        self._check_classes(maps.shape[1])
        return photos, maps

    def _refine(
        self, photos: NDArray[np.uint8], maps: NDArray[np.float32], where: Where
    ) -> NDArray[np.float32]:
        refined = np.empty(maps.shape, np.float32)
        for n, (photo, given) in enumerate(zip(photos, maps, strict=True)):
            height, width = photo.shape[:2]
            size = self.working_size(height, width)
            crf = self.at_working_size(height, width)
            if size == (height, width):
                refined[n] = crf._mean_field(photo, given, where)
                crf._keep(given, refined[n])
                continue
            q = crf._mean_field(resized_photo(photo, size), resized(given, size), where)
            for map_, out in zip(q, refined[n], strict=True):  # one by one: all are gigabytes
                out[:] = resized(map_[None], (height, width))[0]
            refined[n] /= refined[n].sum(axis=0)
            crf._keep(given, refined[n])
        return refined

    def _keep(self, given: NDArray[np.float32], refined: NDArray[np.float32]) -> None:
        """Give the pixels of `keep_classes` their probabilities back, in place."""
        if not self.keep_classes:
            return
        kept = np.isin(given.argmax(0), self.keep_classes)
        kept |= np.isin(refined.argmax(0), self.keep_classes)
        total = given.sum(0)[kept]
        for own, out in zip(given, refined, strict=True):
            out[kept] = own[kept] / total

    def _mean_field(
        self, photo: NDArray[np.uint8], probabilities: NDArray[np.float32], where: Where
    ) -> NDArray[np.float32]:
        if self.leave_out_below > 0:
            return self._of_present(photo, probabilities, where)
        if self.backend_used == "native":
            return native.mean_field(photo, probabilities, self, where.threads)
        unary = -np.log(np.clip(probabilities, self.clip, 1))
        if self.backend == "torch":
            q = layer.refine(photo, unary, self, where.device)
        else:
            backend = exact if self.backend == "exact" else pydensecrf
            q = backend.mean_field(photo, unary, self)
        total = q.sum(axis=0)
        if not np.isfinite(total).all():
            raise ValueError(
                f"The CRF overflowed with position_weight {self.position_weight} and "
                f"bilateral_weight {self.bilateral_weight}; lower them (papers use 2 to 10)."
            )
        return (q / total).astype(np.float32)

    def _of_present(
        self, photo: NDArray[np.uint8], probabilities: NDArray[np.float32], where: Where
    ) -> NDArray[np.float32]:
        """The mean field of the classes that reach `leave_out_below` or are a pixel's best."""
        reaching = np.flatnonzero(probabilities.max(axis=(1, 2)) >= self.leave_out_below)
        present = np.union1d(reaching, np.unique(probabilities.argmax(axis=0)))
        matrix = self.compatibility
        if matrix is not None:
            matrix = [[matrix[a][b] for b in present] for a in present]
        crf = replace(self, leave_out_below=0.0, compatibility=matrix, keep_classes=None)
        given = probabilities[present]
        given /= given.sum(axis=0)
        refined = np.zeros_like(probabilities)
        refined[present] = crf._mean_field(photo, given, where)
        return refined


@dataclass(frozen=True)
class Where:
    """What a photo is refined on: how many threads (native), which device (torch)."""

    threads: int
    device: torch.device


class Job(NamedTuple):
    """Photos to refine, for a worker."""

    crf: DenseCRF
    photos: NDArray[np.uint8]
    maps: NDArray[np.float32]
    where: Where


def _run(job: Job) -> NDArray[np.float32]:
    return job.crf._refine(job.photos, job.maps, job.where)
