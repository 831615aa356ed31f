"""A photo of a COCO json, and what can be wrong with a json."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """One thing wrong with a data set.

    Attributes:
        kind: `json`, `id`, `image`, `file-name`, `photo`, `photo-size`, `category`, `taxonomy`,
            `annotation`, `outline`, `clipped`, `no-pixel` or `duplicate`, for counting.
        fatal: Whether it keeps the data from being used.
        message: One sentence: which file, what is wrong, what to do.
    """

    kind: str
    fatal: bool
    message: str


@dataclass(frozen=True)
class Photo:
    """One entry of a json's `images`.

    Attributes:
        id: The json's id, 0 to 2^63 - 1.
        file_name: Path below the root of the photos.
        width: In pixels, as displayed.
        height: In pixels, as displayed.
    """

    id: int
    file_name: str
    width: int
    height: int
