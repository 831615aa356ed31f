"""LightningModules, one per architecture: what its paper says about training."""

from segment.modules.base import SegmentationModule
from segment.modules.contextual import DeepContextualNetworkModule
from segment.modules.deconvnet import DeconvNetModule
from segment.modules.deeplab import DeepLabV1Module, DeepLabV2Module
from segment.modules.deeplab_v3 import DeepLabV3Module, DeepLabV3PlusModule
from segment.modules.frrn import FRRNModule
from segment.modules.patch_cnn import PatchCNNModule
from segment.modules.segnet import SegNetBasicModule, SegNetModule
from segment.modules.semantic_fpn import SemanticFPNModule
from segment.modules.unet import UNetModule
from segment.modules.upsampling import UpsamplingNetModule

__all__ = [
    "DeconvNetModule",
    "DeepContextualNetworkModule",
    "DeepLabV1Module",
    "DeepLabV2Module",
    "DeepLabV3Module",
    "DeepLabV3PlusModule",
    "FRRNModule",
    "PatchCNNModule",
    "SegNetBasicModule",
    "SegNetModule",
    "SegmentationModule",
    "SemanticFPNModule",
    "UNetModule",
    "UpsamplingNetModule",
]
