"""Networks as their papers describe them: plain `nn.Module`s on torch, torchvision and timm."""

from segment.architectures.contextual import DeepContextualNetwork
from segment.architectures.deeplab_v1 import DeepLabV1
from segment.architectures.deeplab_v2 import DeepLabV2
from segment.architectures.frrn import FRRN
from segment.architectures.patch_cnn import PatchCNN
from segment.architectures.unet import UNet

__all__ = ["FRRN", "DeepContextualNetwork", "DeepLabV1", "DeepLabV2", "PatchCNN", "UNet"]
