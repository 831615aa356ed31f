"""Networks as their papers describe them: plain `nn.Module`s on torch, torchvision and timm."""

from segment.architectures.contextual import DeepContextualNetwork
from segment.architectures.deconvnet import DeconvNet
from segment.architectures.deeplab_v1 import DeepLabV1
from segment.architectures.deeplab_v2 import DeepLabV2
from segment.architectures.deeplab_v3 import DeepLabV3
from segment.architectures.deeplab_v3plus import DeepLabV3Plus
from segment.architectures.edeconvnet import EDeconvNet
from segment.architectures.fcn import FCN
from segment.architectures.frrn import FRRN
from segment.architectures.patch_cnn import PatchCNN
from segment.architectures.plain_fcn import PlainFCN
from segment.architectures.segnet import SegNet, SegNetBasic
from segment.architectures.semantic_fpn import SemanticFPN
from segment.architectures.torchvision_models import TorchvisionDeepLabV3, TorchvisionFCN
from segment.architectures.unet import UNet
from segment.architectures.upsampling import UpsamplingNet

__all__ = [
    "FCN",
    "FRRN",
    "DeconvNet",
    "DeepContextualNetwork",
    "DeepLabV1",
    "DeepLabV2",
    "DeepLabV3",
    "DeepLabV3Plus",
    "EDeconvNet",
    "PatchCNN",
    "PlainFCN",
    "SegNet",
    "SegNetBasic",
    "SemanticFPN",
    "TorchvisionDeepLabV3",
    "TorchvisionFCN",
    "UNet",
    "UpsamplingNet",
]
