"""LightningModules, one per architecture: what its paper says about training."""

from segment.modules.base import SegmentationModule
from segment.modules.deeplab import DeepLabV1Module, DeepLabV2Module
from segment.modules.fcn import FCNModule

__all__ = [
    "DeepLabV1Module",
    "DeepLabV2Module",
    "FCNModule",
    "SegmentationModule",
]
