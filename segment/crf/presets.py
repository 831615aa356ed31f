"""Parameters that papers and their code published for the fully connected CRF.

DeepLab v1: Chen et al., ICLR 2015, https://arxiv.org/abs/1412.7062, notes of its model zoo.
DeepLab v2: Chen et al., https://arxiv.org/abs/1606.00915, its run_densecrf.sh and the settings
of its VGG-16 and ResNet-101 models.
EDeconvNet: Noh, Hong and Han, ICCV 2015, https://arxiv.org/abs/1505.04366, its released code.
"""

from typing import Any


def _published(
    weight: float, xy: float, rgb: float, position_weight: float = 3, position_xy: float = 3
) -> dict[str, Any]:
    return {
        "iterations": 10,
        "bilateral_weight": float(weight),
        "bilateral_width_px": float(xy),
        "bilateral_width_levels": float(rgb),
        "position_weight": float(position_weight),
        "position_width_px": float(position_xy),
        "normalization": "after",  # DeepLab's densecrf is the code of 2011
    }


# These papers clipped no probability; `clip=1e-30` is closest to that. Which normalization
# EDeconvNet's solver applied is not pinned down: it gets that of 2011 as well.
PRESETS: dict[str, dict[str, Any]] = {
    "deeplab_v1": _published(5, 50, 10),
    "deeplab_v1_msc": _published(3, 95, 3),
    "deeplab_v1_largefov": _published(4, 121, 5),
    "deeplab_v1_msc_largefov": _published(4, 83, 5),
    "deeplab_v1_coco": _published(5, 67, 3),
    "deeplab_v1_coco_largefov": _published(5, 69, 5),
    "deeplab_v1_msc_coco_largefov": _published(4, 59, 5),
    "deeplab_v2": _published(4, 49, 5),
    "deeplab_v2_vgg16": _published(4, 65, 3, 2, 2),
    "deeplab_v2_resnet101": _published(4, 67, 3, 3, 1),
    "edeconvnet": _published(5, 20, 3),
    "pydensecrf": {},  # the defaults of DenseCRF
}
