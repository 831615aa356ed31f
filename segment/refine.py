"""Sharpen any network's answer on a photo, whatever framework gave it.

    python -m segment.refine photo.jpg --probabilities photo.npz --out refined
    python -m segment.refine photo.jpg --labels photo.png --out refined --figure

--probabilities is what `predict --save_probabilities` writes, or any .npz with an array
`probabilities`, or an .npy: softmax, float (C, h, w), of the photo's size or smaller. --labels is
an 8-bit picture of train ids, grey or with a palette (as PASCAL VOC's), 255 where unsure.

Writes to --out:

    NAME.png             refined train ids, 8-bit grey
    NAME.overlay.jpg     the photo with the labels' colours
    NAME.npz             refined probabilities, float16, on request
    NAME.figure.png      score and belief maps after 0, 1, 2, 5 and 10 iterations, on request
"""

import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import jsonargparse
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segment.arguments import add_switch
from segment.cli_errors import SegmentParser, user_errors
from segment.crf import DenseCRF, resize_maps
from segment.crf.guard import check_probabilities
from segment.data.photos import read_photo
from segment.data.taxonomy import spread_colors
from segment.figure import belief_figure
from segment.labels import labels_of, with_kept
from segment.prediction import overlay, write_image, write_probabilities
from segment.scoring import refine, write_labels

MOST_CLASSES = 255


def _arguments() -> jsonargparse.ArgumentParser:
    parser = SegmentParser(prog="python -m segment.refine", description=__doc__)
    parser.add_argument("photo", type=str, help="The photo.")
    parser.add_argument("--probabilities", type=str | None, help="File of class probabilities.")
    parser.add_argument("--labels", type=str | None, help="Picture of train ids, instead.")
    parser.add_argument(
        "--certainty", type=float, default=0.7, help="Probability of each of --labels, below 1."
    )
    parser.add_argument(
        "--classes", type=int | None, help="Number of classes of --labels; null: those it shows."
    )
    parser.add_argument("--out", type=str, required=True, help="Folder to write to.")
    parser.add_argument(
        "--crf",
        type=DenseCRF | None,
        default=DenseCRF(),
        sub_configs=True,
        help="Settings, or a YAML file of them.",
    )
    add_switch(parser, "save_probabilities", "Write NAME.npz.")
    add_switch(parser, "figure", "Write NAME.figure.png.")
    return parser


class Given(NamedTuple):
    """What a file of probabilities holds.

    Attributes:
        maps: Class probabilities, float32 (C, h, w).
        names: Of the C classes; numbers where the file has none.
        size: Height and width of the photo in pixels, where the file tells.
    """

    maps: NDArray[np.float32]
    names: list[str]
    size: tuple[int, ...] | None


def read_probabilities(path: Path) -> Given:
    """Read a file of class probabilities.

    Raises:
        ValueError: The file holds something else.
    """
    remedy = "give an .npy or .npz of floats (C, H, W), as predict --save_probabilities writes"
    names = size = None
    try:
        content = np.load(path, allow_pickle=False)  # pickles run code
        if isinstance(content, np.lib.npyio.NpzFile):
            with content as file:
                names = file["classes"] if "classes" in file.files else None
                size = file["size"] if "size" in file.files else None
                content = file["probabilities"]
    except KeyError as error:
        raise ValueError(f"{path}: has no array `probabilities`; {remedy}.") from error
    except (OSError, ValueError, EOFError, MemoryError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read; {remedy}.") from error
    if content.ndim != 3 or content.dtype.kind != "f" or not 0 < len(content) <= MOST_CLASSES:
        raise ValueError(f"{path}: holds {content.dtype} of shape {content.shape}; {remedy}.")
    told_names = np.arange(len(content)) if names is None else np.ravel(names)
    listed = [n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in told_names]
    if len(listed) != len(content):
        raise ValueError(
            f"{path}: names {len(listed)} `classes` for {len(content)} maps; name each, or none."
        )
    try:
        values = check_probabilities(content)[0]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    told = None if size is None else tuple(np.ravel(size).tolist())
    return Given(values / values.sum(axis=0), listed, told)  # a half rounds its sum


def check_shape(path: Path, given: Given, size: tuple[int, int]) -> None:
    """Refuse maps of another photo, or turned.

    Raises:
        ValueError: They are larger than the photo, or of another shape than rounding explains.
    """
    (height, width), (rows, columns) = size, given.maps.shape[1:]
    aspect = width / height
    off = max(abs(columns - rows * aspect), abs(rows - columns / aspect))
    if given.size not in (None, size):
        raise ValueError(
            f"{path}: is of a photo whose `size` (height, width) is {given.size}, but this one's "
            f"is {size}; give the maps of this photo."
        )
    if rows > height or columns > width or off > 1 + max(aspect, 1 / aspect):
        raise ValueError(
            f"{path}: the maps are {columns}x{rows} but the photo {width}x{height} (turned as EXIF "
            f"asks); give maps of this photo, at its size or smaller."
        )


def read_labels(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture of train ids, grey or a palette's indices, uint8 (H, W), 255 where unknown.

    Raises:
        ValueError: It is no such picture, or of another size than the photo.
    """
    remedy = "give an 8-bit PNG, grey or with a palette, whose values are train ids"
    try:
        with Image.open(path) as picture:  # OpenCV would give a palette's colours
            if picture.mode not in ("L", "P"):
                raise ValueError(f"{path}: is of mode {picture.mode}, no train ids; {remedy}.")
            if "L;" in str(picture.tile):  # PIL widens these to 0..255, which multiplies the ids
                raise ValueError(f"{path}: is grey of fewer than 8 bits; {remedy}.")
            if picture.format == "JPEG":
                raise ValueError(f"{path}: is a JPEG, which blurs train ids; {remedy}.")
            ids = np.array(picture)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as a picture; {remedy}.") from error
    if ids.shape != size:
        raise ValueError(
            f"{path}: is {ids.shape[1]}x{ids.shape[0]} but the photo {size[1]}x{size[0]} (turned "
            f"as EXIF asks); give labels of the same size."
        )
    return ids


def from_labels(
    path: Path,
    certainty: float,
    classes: int | None,
    size: tuple[int, int],
    working: tuple[int, int],
) -> NDArray[np.float32]:
    """Probabilities of a picture of train ids, float32 (C, h, w) at the CRF's working size.

    Each label has the probability `certainty`, the other classes share the rest; at 255 all are
    equal.

    Raises:
        ValueError: It is no such picture, of another size than the photo, or has more classes.
    """
    ids = read_labels(path, size)
    known = ids[ids != 255]
    shown = int(known.max()) + 1 if known.size else 0
    number = max(shown, 2) if classes is None else classes
    if not shown <= number <= MOST_CLASSES or number < 2:
        raise ValueError(
            f"--classes {number}: {path} shows train ids up to {shown - 1}; give more than that, 2 "
            f"to {MOST_CLASSES}."
        )
    if not 1 / number < certainty < 1:
        raise ValueError(
            f"--certainty {certainty}: give more than 1 in {number}, which says nothing, and less "
            f"than 1, which nothing could change."
        )
    rest = (1 - certainty) / (number - 1)
    values = np.empty((number, *working), np.float32)
    for train_id in range(number):  # one by one: all are gigabytes for a phone's photo
        own = np.where(ids == train_id, certainty, np.where(ids == 255, 1 / number, rest))
        values[train_id] = resize_maps(torch.from_numpy(own.astype(np.float32))[None], working)[0]
    return values / values.sum(0)


def main(args: Sequence[str]) -> None:
    """Run the verb with its command line."""
    parser = _arguments()
    parsed = parser.parse_args(list(args))
    crf: DenseCRF | None = parser.instantiate(parsed).crf
    if crf is None:
        raise ValueError("--crf null would refine nothing; leave it out, or give settings.")
    if (parsed.probabilities is None) == (parsed.labels is None):
        raise ValueError("give either --probabilities or --labels, and not both.")
    path, out = Path(parsed.photo), Path(parsed.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; give --out a folder.")
    written = {
        kind: out / f"{path.stem}{kind}" for kind in (".png", ".overlay.jpg", ".npz", ".figure.png")
    }
    given = [Path(name) for name in (path, parsed.probabilities, parsed.labels) if name]
    if taken := {one.resolve() for one in written.values()} & {one.resolve() for one in given}:
        raise ValueError(f"{taken.pop()}: would be written over; give --out another folder.")
    image = read_photo(path)
    size = image.shape[0], image.shape[1]
    working = crf.working_size(*size)
    if parsed.labels is not None:
        maps = from_labels(Path(parsed.labels), parsed.certainty, parsed.classes, size, working)
        names = [str(train_id) for train_id in range(len(maps))]
    else:
        given_maps = read_probabilities(Path(parsed.probabilities))
        check_shape(Path(parsed.probabilities), given_maps, size)
        maps, names = given_maps.maps, given_maps.names
    refined, seconds = refine(image, maps, crf)
    raw = labels_of(torch.from_numpy(maps), size)
    found = labels_of(torch.from_numpy(refined), size)
    ids = with_kept(raw, found, crf.keep_classes).ids.numpy()
    own = raw.ids.numpy() if parsed.labels is None else read_labels(Path(parsed.labels), size)
    out.mkdir(parents=True, exist_ok=True)
    write_labels(written[".png"], ids)
    colors = np.array(spread_colors(len(maps)), np.uint8)
    write_image(written[".overlay.jpg"], overlay(image, ids, colors))
    if parsed.save_probabilities:
        write_probabilities(written[".npz"], refined, names, size)
    if parsed.figure:
        write_image(written[".figure.png"], belief_figure(image, maps, crf, names))
    changed = float((ids != own)[own != 255].mean()) if (own != 255).any() else 0.0
    print(f"{path.name}: {changed:.1%} of the labels changed in {seconds:.2f} s; written to {out}")


if __name__ == "__main__":
    user_errors(lambda: main(sys.argv[1:]))
