"""LightningModules, one per architecture: what its paper says about training."""

from segment.modules.base import SegmentationModule
from segment.modules.deeplab import DeepLabV1Module, DeepLabV2Module
from segment.modules.fcn import FCNModule
from segment.modules.plain_fcn import PlainFCNModule
from segment.modules.torchvision_models import TorchvisionDeepLabV3Module, TorchvisionFCNModule

__all__ = [
    "DeepLabV1Module",
    "DeepLabV2Module",
    "FCNModule",
    "PlainFCNModule",
    "SegmentationModule",
    "TorchvisionDeepLabV3Module",
    "TorchvisionFCNModule",
]
