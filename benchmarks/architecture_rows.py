"""The networks that benchmarks/architectures.py measures: title, year, class, settings."""

from typing import Any, get_args

from segment.architectures.upsampling import Upsampling

LITE = {"backbone": "tf_efficientnet_lite0"}
R101 = {"backbone": "resnet101", "multi_grid": (1, 2, 4)}
ROWS: list[tuple[str, int, str, dict[str, Any]]] = [
    ("sliding window, dense", 2012, "PatchCNN", {"mode": "dense"}),
    ("plain stack", 2015, "PlainFCN", {}),
    ("context module", 2016, "PlainFCN", {"variant": "context"}),
    ("FCN-32s, VGG-16", 2015, "FCN", {"stride": 32}),
    ("FCN-16s, VGG-16", 2015, "FCN", {"stride": 16}),
    ("FCN-8s, VGG-16", 2015, "FCN", {"stride": 8}),
    ("FCN-32s, AlexNet", 2015, "FCN", {"stride": 32, "backbone": "alexnet"}),
    ("FCN-8s, Lite0", 2015, "FCN", {"stride": 8, "padding": "same", **LITE}),
    ("torchvision FCN, ResNet-50", 2015, "TorchvisionFCN", {"backbone": "resnet50"}),
    ("torchvision DeepLab v3, ResNet-50", 2017, "TorchvisionDeepLabV3", {"backbone": "resnet50"}),
    ("DeconvNet", 2015, "DeconvNet", {}),
    # Alike in all classes, as they are where `sees` is measured, the mean hands on no gradient.
    ("EDeconvNet, product", 2015, "EDeconvNet", {"combination": "product"}),
    ("SegNet", 2016, "SegNet", {}),
    ("SegNet-Basic", 2016, "SegNetBasic", {}),
    ("U-Net, unpadded", 2015, "UNet", {}),
    ("U-Net, unpadded, as released", 2015, "UNet", {"release": True}),
    ("U-Net, padded", 2015, "UNet", {"padded": True}),
    ("U-Net, padded, with norms", 2015, "UNet", {"padded": True, "batch_norm": True}),
    ("U-Net, Lite0", 2015, "UNet", {"padded": True, "batch_norm": True, "width": 16, **LITE}),
    ("DeepLab v1 4x4", 2015, "DeepLabV1", {"variant": "4x4"}),
    ("DeepLab v1 7x7", 2015, "DeepLabV1", {"variant": "7x7"}),
    ("DeepLab v1 LargeFOV", 2015, "DeepLabV1", {}),
    ("DeepLab v1 MSc-LargeFOV", 2015, "DeepLabV1", {"variant": "msc_largefov"}),
    ("DeepLab v2, VGG-16", 2016, "DeepLabV2", {}),
    ("DeepLab v2, ResNet-101", 2016, "DeepLabV2", {"backbone": "resnet101"}),
    ("DeepLab v2, Lite0, stride 16", 2016, "DeepLabV2", {"output_stride": 16, **LITE}),
    ("DeepLab v3, ResNet-50, stride 16", 2017, "DeepLabV3", {"backbone": "resnet50"}),
    ("DeepLab v3, ResNet-101, stride 16", 2017, "DeepLabV3", R101),
    ("DeepLab v3, ResNet-101, stride 8", 2017, "DeepLabV3", {"output_stride": 8, **R101}),
    ("DeepLab v3+, Xception-65, separable", 2018, "DeepLabV3Plus", {"backbone": "xception65"}),
    ("DeepLab v3+, ResNet-101", 2018, "DeepLabV3Plus", {"separable": False, **R101}),
    ("DeepLab v3+, ResNet-101, separable", 2018, "DeepLabV3Plus", R101),
    ("DeepLab v3+, Lite0, separable", 2018, "DeepLabV3Plus", LITE),
    ("FRRN A", 2017, "FRRN", {"variant": "A"}),
    ("FRRN B", 2017, "FRRN", {"variant": "B"}),
    ("Semantic FPN, ResNet-50", 2019, "SemanticFPN", {"backbone": "resnet50"}),
    ("Semantic FPN, Lite0", 2019, "SemanticFPN", LITE),
    ("deep contextual network", 2016, "DeepContextualNetwork", {}),
    *(
        (f"upsampling by {form.replace('_', ' ')}", 2016, "UpsamplingNet", {"upsampling": form})
        for form in get_args(Upsampling)
        if form != "dilation"
    ),
    ("no downsampling, dilation", 2016, "UpsamplingNet", {"upsampling": "dilation"}),
]
