"""LightningModules, one per architecture: what its paper says about training."""

from segment.modules.base import SegmentationModule
from segment.modules.deeplab import DeepLabV1Module, DeepLabV2Module
from segment.modules.deeplab_v3 import DeepLabV3Module, DeepLabV3PlusModule
from segment.modules.semantic_fpn import SemanticFPNModule

__all__ = [
    "DeepLabV1Module",
    "DeepLabV2Module",
    "DeepLabV3Module",
    "DeepLabV3PlusModule",
    "SegmentationModule",
    "SemanticFPNModule",
]
