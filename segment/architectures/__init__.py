"""Networks as their papers describe them: plain `nn.Module`s on torch, torchvision and timm."""

from segment.architectures.deeplab_v1 import DeepLabV1
from segment.architectures.deeplab_v2 import DeepLabV2
from segment.architectures.deeplab_v3 import DeepLabV3
from segment.architectures.deeplab_v3plus import DeepLabV3Plus
from segment.architectures.semantic_fpn import SemanticFPN

__all__ = ["DeepLabV1", "DeepLabV2", "DeepLabV3", "DeepLabV3Plus", "SemanticFPN"]
