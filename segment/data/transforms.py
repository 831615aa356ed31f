"""Training and evaluation transforms on {image, mask, image_id}, uint8 throughout.

Built on torchvision's v2 transforms: image and masks are tv_tensors, so geometry moves all and
colour moves the image alone. Randomness comes from torch's global generator, which
`CocoSegmentation` seeds per photo.
"""

import math
from typing import Any

import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from segment.data.taxonomy import IGNORE


class RandomScale(nn.Module):
    """Resize by a random factor, so that one object is seen at many sizes.

    Args:
        base: Length in pixels that the photo's shorter side has at factor 1; None keeps its own.
        low: Smallest factor.
        high: Largest factor.
    """

    def __init__(self, base: int | None, low: float, high: float) -> None:
        super().__init__()
        self.base, self.low, self.high = base, low, high

    def forward(self, item: dict[str, Any]) -> dict[str, Any]:
        """Resize image (3, H, W), bilinearly with antialiasing, and mask (H, W), by nearest."""
        height, width = item["image"].shape[-2:]
        factor = torch.empty(()).uniform_(self.low, self.high).item()
        if self.base is not None:
            factor *= _ratio(height, width, self.base)
        return v2.Resize(_scaled(height, width, factor), antialias=True)(item)


class ElasticDeformation(nn.Module):
    """Shift pixels smoothly by random displacements on a 3x3 grid, as U-Net's paper does.

    Args:
        std: Standard deviation of the grid's displacements, pixels; 10 in the paper.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, item: dict[str, Any]) -> dict[str, Any]:
        """Move image (3, H, W), bilinearly, and masks (H, W), by nearest; outside is 0 and 255."""
        height, width = item["image"].shape[-2:]
        # In torchvision's unit the photo is 2 wide and 2 high.
        coarse = (
            torch.randn(1, 2, 3, 3) * self.std * 2 / torch.tensor([width, height])[:, None, None]
        )
        fine = nn.functional.interpolate(
            coarse, (height, width), mode="bicubic", align_corners=True
        )
        displacement = fine.permute(0, 2, 3, 1)
        image = F.elastic(item["image"], displacement, fill=0)
        masks = {
            key: F.elastic(value, displacement, fill=IGNORE)
            for key, value in item.items()
            if isinstance(value, tv_tensors.Mask)
        }
        return {**item, "image": image, **masks}


def training_transform(
    crop_size: int,
    short_side: int | None,
    scale: tuple[float, float],
    flip: float,
    colour_jitter: float,
    elastic: float = 0.0,
) -> v2.Transform:
    """Random scale, crop (padding 0 in the image, 255 in the mask), flip, deformation and colour.

    Args:
        crop_size: Side of the square crop in pixels.
        short_side: Shorter side of the photo in pixels at scale 1; None keeps its own size.
        scale: Smallest and largest random factor.
        flip: Probability of a horizontal flip.
        colour_jitter: Strength from 0 (off) to 1 of brightness, contrast and saturation changes;
            a tenth of it is the hue's.
        elastic: Standard deviation of an elastic deformation in pixels; 0 is none.

    Raises:
        ValueError: A setting makes no sense.
    """
    rules = {
        f"data.crop_size is {crop_size}; give at least 1 pixel": crop_size < 1,
        f"data.scale is {scale}; give two factors, 0 < smallest <= largest": not (
            0 < scale[0] <= scale[1] < math.inf
        ),
        f"data.flip is {flip}; give a probability from 0 to 1": not 0 <= flip <= 1,
        f"data.colour_jitter is {colour_jitter}; give a strength from 0 to 1": not (
            0 <= colour_jitter <= 1
        ),
        f"data.elastic is {elastic}; give 0 pixels or more": not 0 <= elastic < math.inf,
        f"data.short_side is {short_side}; give at least 2 pixels, or null for each photo's own": (
            short_side is not None and short_side < 2
        ),
    }
    for message, broken in rules.items():
        if broken:
            raise ValueError(f"{message}.")
    fill: dict[Any, Any] = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE}
    steps: list[nn.Module] = [
        RandomScale(short_side, *scale),
        v2.RandomCrop(crop_size, pad_if_needed=True, fill=fill),
        v2.RandomHorizontalFlip(flip),
    ]
    if elastic:
        steps.append(ElasticDeformation(elastic))
    if colour_jitter:
        steps.append(
            v2.ColorJitter(colour_jitter, colour_jitter, colour_jitter, 0.1 * colour_jitter)
        )
    return v2.Compose(steps)


def _ratio(height: int, width: int, short_side: int) -> float:
    """Factor to `short_side`, or less for a strip that would become longer than 16 of those."""
    return short_side / max(min(height, width), max(height, width) / 16)


def _scaled(height: int, width: int, factor: float) -> list[int]:
    # At least 2: torch's antialiased resizing of 8-bit photos breaks off at a single pixel.
    return [max(2, round(height * factor)), max(2, round(width * factor))]


def evaluation_image(image: torch.Tensor, short_side: int | None) -> torch.Tensor:
    """The photo as the network sees it: (3, H, W) uint8 at a fixed shorter side, or as it is."""
    if short_side is None:
        return image
    height, width = image.shape[-2:]
    size = _scaled(height, width, _ratio(height, width, short_side))
    if tuple(size) == (height, width):
        return image
    return F.resize(image, size, InterpolationMode.BILINEAR, antialias=True)
