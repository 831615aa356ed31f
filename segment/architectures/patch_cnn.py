"""Sliding window: a classifier of the pixel in the middle of a patch.

Ciresan, Giusti, Gambardella and Schmidhuber, "Deep Neural Networks Segment Neuronal Membranes in
Electron Microscopy Images", NIPS 2012, https://papers.nips.cc/paper/4741

How to score a photo at once: Long, Shelhamer and Darrell, "Fully Convolutional Networks for
Semantic Segmentation", CVPR 2015, section 3, https://arxiv.org/abs/1411.4038

Differs from the paper: patches have three channels; layers rectify; one network (N4) is built, not
the mean of four; patches are not foveated; fully connected layers are written as convolutions,
which on a patch are the same sums.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segment.architectures.layers import SegmentationNetwork, check_positive, he_normal

Mode = Literal["naive", "fully_convolutional", "shift_and_stitch", "dense"]
WINDOW = 95  # pixels: 95, 92, 46, 42, 21, 18, 9, 6, 3, 1
MARGIN = WINDOW // 2
STRIDE = 16  # of four pools
CHUNK = 64  # windows that are scored at one time


class PatchCNN(SegmentationNetwork):
    """Four valid convolutions, each with a pool, and two fully connected layers.

    Photos are mirrored by 47 pixels, so that every pixel is in the middle of a window.

    Args:
        num_classes: Number of classes C, background included.
        mode: How `forward` scores a photo: "naive", every window by itself; "shift_and_stitch", all
            windows that share a place on the pooling grid in one pass; "dense", one pass, pools at
            stride 1 and later layers dilated. All three give the same scores. Last,
            "fully_convolutional": every 16th pixel, and bilinearly between them.
        width: Channels of the convolutions, 48 in the paper.

    Raises:
        ValueError: There is no such mode, or `num_classes` or `width` is below 1.
    """

    score_names = ("layers.score",)

    def __init__(self, num_classes: int, mode: Mode = "dense", width: int = 48) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        if mode not in get_args(Mode):
            allowed = ", ".join(map(repr, get_args(Mode)))
            raise ValueError(f"mode is {mode!r}; it can be one of {allowed}.")
        self.num_classes, self.mode = num_classes, mode
        self.layers = nn.Sequential()
        before = 3
        for i, size in enumerate((4, 5, 4, 4), start=1):
            self.layers.add_module(f"conv{i}", nn.Conv2d(before, width, size))
            self.layers.add_module(f"relu{i}", nn.ReLU(inplace=True))
            self.layers.add_module(f"pool{i}", nn.MaxPool2d(2))
            before = width
        self.layers.add_module("full", nn.Conv2d(width, 200, 3))
        self.layers.add_module("relu5", nn.ReLU(inplace=True))
        self.layers.add_module("score", nn.Conv2d(200, num_classes, 1))
        he_normal(self.layers)

    def windows(self, image: Tensor) -> Tensor:
        """The window around every pixel, as a view that takes no memory of its own.

        Args:
            image: Float (N, 3, H, W).

        Returns:
            Float (N, 3, H, W, 95, 95).
        """
        surroundings = mirror_pad(image, MARGIN, MARGIN, MARGIN, MARGIN)
        return surroundings.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)

    def classify(self, windows: Tensor) -> Tensor:
        """Score the pixel in the middle of each window.

        Args:
            windows: Normalized RGB, float (M, 3, 95, 95).

        Returns:
            Logits, float (M, C).
        """
        return self.layers(windows).flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel, in the way that `mode` says.

        Args:
            image: Normalized RGB, float (N, 3, H, W) of any size.

        Returns:
            Logits, float (N, C, H, W).
        """
        if self.mode == "naive":
            return self._one_by_one(image)
        if self.mode == "fully_convolutional":
            return self._every_sixteenth(image)
        surroundings = mirror_pad(image, MARGIN, MARGIN, MARGIN, MARGIN)
        if self.mode == "shift_and_stitch":
            return self._stitch(surroundings)
        return self._dense(surroundings)

    def _one_by_one(self, image: Tensor) -> Tensor:
        rows = []
        for row in self.windows(image).unbind(2):  # (N, 3, W, 95, 95)
            chunks = row.transpose(1, 2).flatten(0, 1).split(CHUNK)
            scores = torch.cat([self.classify(chunk) for chunk in chunks])
            rows.append(scores.unflatten(0, (len(image), -1)).transpose(1, 2))
        return torch.stack(rows, dim=2)

    def _every_sixteenth(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        # On 16k + 1 pixels the outermost windows are centred on the corners.
        below, right = (-(n - 1) % STRIDE for n in (height, width))
        surroundings = mirror_pad(image, MARGIN, MARGIN + below, MARGIN, MARGIN + right)
        size = (height + below, width + right)
        scores = self.layers(surroundings)
        fine = F.interpolate(scores, size, mode="bilinear", align_corners=True)
        return fine[..., :height, :width]

    def _stitch(self, surroundings: Tensor) -> Tensor:
        height, width = (n - 2 * MARGIN for n in surroundings.shape[-2:])
        stitched = surroundings.new_empty(len(surroundings), self.num_classes, height, width)
        for a in range(min(STRIDE, height)):
            for b in range(min(STRIDE, width)):
                stitched[..., a::STRIDE, b::STRIDE] = self.layers(surroundings[..., a:, b:])
        return stitched

    def _dense(self, x: Tensor) -> Tensor:
        dilation = 1
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                x = F.conv2d(x, layer.weight, layer.bias, dilation=dilation)
            elif isinstance(layer, nn.MaxPool2d):
                # Pools are dilated like convolutions; their own stride adds to what comes later.
                x = F.max_pool2d(x, 2, stride=1, dilation=dilation)
                dilation *= 2
            else:
                x = layer(x)
        return x


def mirror_pad(image: Tensor, above: int, below: int, left: int, right: int) -> Tensor:
    """Mirror (N, C, H, W) at its outermost pixels, which are not repeated.

    Unlike `F.pad`, takes more pixels than the image has, mirroring again and again.
    """
    height, width = image.shape[-2:]
    rows = _mirrored(-above, height + below, height, image.device)
    columns = _mirrored(-left, width + right, width, image.device)
    return image[..., rows[:, None], columns]


def _mirrored(start: int, end: int, length: int, device: torch.device) -> Tensor:
    period = max(1, 2 * (length - 1))
    places = torch.arange(start, end, device=device).remainder(period)
    return torch.minimum(places, period - places)
