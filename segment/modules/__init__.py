"""LightningModules, one per architecture: what its paper says about training."""

from segment.modules.base import SegmentationModule
from segment.modules.deconvnet import DeconvNetModule
from segment.modules.deeplab import DeepLabV1Module, DeepLabV2Module
from segment.modules.segnet import SegNetBasicModule, SegNetModule
from segment.modules.upsampling import UpsamplingNetModule

__all__ = [
    "DeconvNetModule",
    "DeepLabV1Module",
    "DeepLabV2Module",
    "SegNetBasicModule",
    "SegNetModule",
    "SegmentationModule",
    "UpsamplingNetModule",
]
