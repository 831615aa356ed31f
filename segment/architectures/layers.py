"""What every network of ours can say of itself, whatever its paper."""

from collections.abc import Iterable

from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SegmentationNetwork(nn.Module):
    """A network that scores every pixel, and says which photos it takes.

    `forward` maps normalized RGB, float (N, 3, H, W) of a valid size, to logits, float
    (N, C, H, W). A subclass sets those of the attributes in which it differs.

    Attributes:
        mean: Of red, green and blue, 0 to 1, in the photos its weights were trained on.
        std: Their standard deviations.
        score_names: Layers with one output per class, by the beginning of their parameters' names.
            They start anew where the number of classes differs.
        head_names: Layers that no pretrained weights fill; None: the score layers.
        added_names: Layers that the run which this network starts from may lack, because it is an
            earlier stage of the paper's training, named likewise.
        unit: A valid height or width is `unit` * k + `remainder` pixels.
        remainder: 1 where cells sit on the corners, 0 where cells tile the photo.
        least: The smallest valid height or width, pixels.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    score_names: tuple[str, ...] = ()
    head_names: tuple[str, ...] | None = None
    added_names: tuple[str, ...] = ()
    unit = 1
    remainder = 0
    least = 1

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """The smallest size that the network takes and that holds `height` by `width` pixels."""
        return self._valid_length(height), self._valid_length(width)

    def _valid_length(self, length: int) -> int:
        length = max(length, self.least)
        return -(-(length - self.remainder) // self.unit) * self.unit + self.remainder

    def check_size(self, image: Tensor) -> None:
        """Refuse a size on which features would not line up with pixels.

        Raises:
            ValueError: Height or width of `image`, (N, 3, H, W), is not valid.
        """
        height, width = image.shape[-2:]
        valid = self.valid_size(height, width)
        if (height, width) != valid:
            sizes = f" of {self.unit}k" if self.unit > 1 else ""
            sizes += f" + {self.remainder}" if self.remainder else ""
            least = f" from {self.least} on" if self.least > self.unit + self.remainder else ""
            raise ValueError(
                f"{type(self).__name__} takes heights and widths{sizes}{least}; got "
                f"{height}x{width}. Pad it to {valid[0]}x{valid[1]}, as SegmentationModule.forward "
                f"does."
            )

    def head_parameters(self) -> list[nn.Parameter]:
        """Those of the layers that start anew."""
        return [p for name, p in self.named_parameters() if self._is_head(name)]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """All others: those that pretrained weights fill."""
        return [p for name, p in self.named_parameters() if not self._is_head(name)]

    def _is_head(self, name: str) -> bool:
        heads = self.score_names if self.head_names is None else self.head_names
        return any(name.startswith(f"{head}.") for head in heads)


def check_positive(**given: int) -> None:
    """Refuse a `width` or a `num_classes` that leaves a layer without channels.

    Raises:
        ValueError: One of those given is below 1.
    """
    for name, value in given.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1.")


def zero_biases(layers: Iterable[nn.Module]) -> None:
    """Set the biases of convolutions to 0, which torch draws at random."""
    for layer in layers:
        bias = getattr(layer, "bias", None)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and bias is not None:
            nn.init.zeros_(bias)


def he_normal(layers: Iterable[nn.Module]) -> None:
    """Draw convolutions as He et al. do (Caffe's "msra"), and set biases to 0."""
    layers = list(layers)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    zero_biases(layers)
