"""LightningModules, one per architecture: what its paper says about training."""

from segment.modules.base import SegmentationModule
from segment.modules.contextual import DeepContextualNetworkModule
from segment.modules.crf_rnn import CRFRNNModule
from segment.modules.deconvnet import DeconvNetModule
from segment.modules.deeplab import DeepLabV1Module, DeepLabV2Module
from segment.modules.deeplab_v3 import DeepLabV3Module, DeepLabV3PlusModule
from segment.modules.edeconvnet import EDeconvNetModule
from segment.modules.fcn import FCNModule
from segment.modules.frrn import FRRNModule
from segment.modules.patch_cnn import PatchCNNModule
from segment.modules.plain_fcn import PlainFCNModule
from segment.modules.segnet import SegNetBasicModule, SegNetModule
from segment.modules.semantic_fpn import SemanticFPNModule
from segment.modules.torchvision_models import TorchvisionDeepLabV3Module, TorchvisionFCNModule
from segment.modules.unet import UNetModule
from segment.modules.upsampling import UpsamplingNetModule

__all__ = [
    "CRFRNNModule",
    "DeconvNetModule",
    "DeepContextualNetworkModule",
    "DeepLabV1Module",
    "DeepLabV2Module",
    "DeepLabV3Module",
    "DeepLabV3PlusModule",
    "EDeconvNetModule",
    "FCNModule",
    "FRRNModule",
    "PatchCNNModule",
    "PlainFCNModule",
    "SegNetBasicModule",
    "SegNetModule",
    "SegmentationModule",
    "SemanticFPNModule",
    "TorchvisionDeepLabV3Module",
    "TorchvisionFCNModule",
    "UNetModule",
    "UpsamplingNetModule",
]
