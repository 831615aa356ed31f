"""Networks, one file per paper: plain nn.Module, in need of torch, torchvision and timm alone."""

from segment.architectures.deeplab_v1 import DeepLabV1
from segment.architectures.deeplab_v2 import DeepLabV2

__all__ = ["DeepLabV1", "DeepLabV2"]
