"""Networks as their papers describe them: plain `nn.Module`s on torch, torchvision and timm."""

from segment.architectures.deconvnet import DeconvNet
from segment.architectures.deeplab_v1 import DeepLabV1
from segment.architectures.deeplab_v2 import DeepLabV2
from segment.architectures.segnet import SegNet, SegNetBasic
from segment.architectures.upsampling import UpsamplingNet

__all__ = ["DeconvNet", "DeepLabV1", "DeepLabV2", "SegNet", "SegNetBasic", "UpsamplingNet"]
