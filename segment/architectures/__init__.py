"""Networks as their papers describe them: plain `nn.Module`s on torch, torchvision and timm."""

from segment.architectures.deeplab_v1 import DeepLabV1
from segment.architectures.deeplab_v2 import DeepLabV2
from segment.architectures.fcn import FCN
from segment.architectures.plain_fcn import PlainFCN
from segment.architectures.torchvision_models import TorchvisionDeepLabV3, TorchvisionFCN

__all__ = ["FCN", "DeepLabV1", "DeepLabV2", "PlainFCN", "TorchvisionDeepLabV3", "TorchvisionFCN"]
