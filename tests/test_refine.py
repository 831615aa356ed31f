"""`python -m segment.refine` on the answers of this framework and of others."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segment import refine
from segment.crf import DenseCRF


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Dark on the left, bright on the right."""
    image = np.full((40, 60, 3), 40, np.uint8)
    image[:, 30:] = 200
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    return tmp_path / "photo.png"


def ids_of(folder: Path) -> np.ndarray:
    return cv2.imread(str(folder / "photo.png"), cv2.IMREAD_UNCHANGED)


def test_labels_of_another_program_follow_the_photo_s_edge(photo: Path, tmp_path: Path) -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 34:] = 1  # four columns late
    labels[5, 5] = 1
    labels[20:24, 40:44] = 255
    cv2.imwrite(str(tmp_path / "labels.png"), labels)
    out = tmp_path / "out"
    refine.main([str(photo), "--labels", str(tmp_path / "labels.png"), "--out", str(out),
                 "--figure", "--save-probabilities"])  # fmt: skip
    truth = (np.arange(60) >= 30).astype(np.uint8)[None].repeat(40, 0)
    assert np.array_equal(ids_of(out), truth)
    assert cv2.imread(str(out / "photo.overlay.jpg")).shape == (40, 60, 3)
    figure = cv2.imread(str(out / "photo.figure.png"))
    assert figure.shape[1] > 5 * 220  # the photo and five columns
    assert figure.shape[0] // 147 == 2 * 2  # 220x147 px and a gap: scores and beliefs of both
    with np.load(out / "photo.npz") as file:
        assert file["probabilities"].shape == (2, 40, 60)


def test_a_palette_s_colours_are_no_train_ids(photo: Path, tmp_path: Path) -> None:
    """PASCAL VOC's label files: indices into a palette, 255 along the borders."""
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 34:] = 1
    labels[:, 33] = 255
    picture = Image.fromarray(labels)
    picture.putpalette([0, 0, 0, 128, 0, 0] + 254 * [224, 224, 192])
    picture.save(tmp_path / "labels.png")
    assert Image.open(tmp_path / "labels.png").mode == "P"
    out = tmp_path / "out"
    refine.main([str(photo), "--labels", str(tmp_path / "labels.png"), "--out", str(out)])
    assert np.array_equal(ids_of(out), (np.arange(60) >= 30).astype(np.uint8)[None].repeat(40, 0))


def test_tells_how_much_of_the_given_picture_changed(photo, tmp_path, capsys) -> None:
    stripes = np.zeros((40, 60), np.uint8)
    stripes[:, ::2] = 1  # which do not survive being made smaller
    stripes[0] = 255
    cv2.imwrite(str(tmp_path / "labels.png"), stripes)
    refine.main([str(photo), "--labels", str(tmp_path / "labels.png"), "--out",
                 str(tmp_path / "out"), "--crf.max_side", "10"])  # fmt: skip
    known = stripes != 255
    changed = (ids_of(tmp_path / "out") != stripes)[known].mean()
    assert changed > 0.3
    assert f"{changed:.1%} of the labels changed" in capsys.readouterr().out


@pytest.mark.parametrize(("height", "width", "fits"), [
    (40, 60, True), (20, 30, True), (6, 8, True), (5, 8, True), (7, 9, True),
    (60, 40, False), (30, 20, False), (80, 120, False), (20, 20, False),
])  # fmt: skip
def test_refuses_maps_of_another_shape(photo, tmp_path, height, width, fits) -> None:
    np.save(tmp_path / "x.npy", np.full((2, height, width), 0.5))
    words = [str(photo), "--probabilities", str(tmp_path / "x.npy"), "--out", str(tmp_path / "o")]
    if fits:
        refine.main(words)
        return
    with pytest.raises(ValueError, match=f"maps are {width}x{height} but the photo 60x40"):
        refine.main(words)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_probabilities_give_what_the_crf_gives(photo: Path, tmp_path: Path, ending: str) -> None:
    maps = np.random.default_rng(0).dirichlet(np.ones(3), (40, 60)).transpose(2, 0, 1)
    path = tmp_path / f"maps.{ending}"
    if ending == "npy":
        np.save(path, maps)
    else:
        np.savez(path, probabilities=maps)
    refine.main([str(photo), "--probabilities", str(path), "--out", str(tmp_path / "out"),
                 "--crf.iterations", "3"])  # fmt: skip
    image = cv2.imread(str(photo))
    expected = DenseCRF(iterations=3)(image, maps).argmax(0)
    assert np.array_equal(ids_of(tmp_path / "out"), expected)


def test_what_it_writes_it_reads(photo: Path, tmp_path: Path) -> None:
    """Halves round: their sums are off by more than a float32's may be."""
    maps = np.random.default_rng(1).dirichlet(np.ones(9), (40, 60)).transpose(2, 0, 1)
    np.savez(tmp_path / "a.npz", probabilities=maps.astype(np.float16))
    for given, out in (("a.npz", "out"), ("out/photo.npz", "again")):
        words = [str(photo), "--probabilities", str(tmp_path / given)]
        refine.main([*words, "--out", str(tmp_path / out), "--save_probabilities", "true"])
    assert (tmp_path / "again" / "photo.npz").exists()


def test_writes_over_nothing_that_it_was_given(photo: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "maps.npy", np.full((2, 40, 60), 0.5))
    before = photo.read_bytes()
    words = [str(photo), "--probabilities", str(tmp_path / "maps.npy"), "--out", str(tmp_path)]
    with pytest.raises(ValueError, match=r"photo\.png: would be written over"):
        refine.main(words)
    assert photo.read_bytes() == before


def test_the_figure_shows_every_class_that_is_seen(photo: Path, tmp_path: Path) -> None:
    labels = np.repeat(np.arange(6, dtype=np.uint8), 10)[None].repeat(40, 0)
    labels[0, 0] = 6  # one pixel of 2400
    cv2.imwrite(str(tmp_path / "labels.png"), labels)
    words = [str(photo), "--labels", str(tmp_path / "labels.png"), "--out", str(tmp_path / "out")]
    refine.main([*words, "--figure", "--crf.iterations", "0"])
    figure = cv2.imread(str(tmp_path / "out" / "photo.figure.png"))
    assert figure.shape[0] // 147 == 2 * 6


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"classes": np.array("bottle")}, "names 1 `classes` for 2 maps"),
        ({"classes": np.array(["a", "b", "c"])}, "names 3 `classes` for 2 maps"),
        ({"size": np.array([400, 601])}, r"`size` \(height, width\) is \(400, 601\)"),
        ({"size": np.array(7)}, r"`size` \(height, width\) is \(7,\)"),
    ],
)
def test_refuses_names_and_sizes_that_do_not_fit(photo, tmp_path, fields, told) -> None:
    np.savez(tmp_path / "x.npz", probabilities=np.full((2, 40, 60), 0.5), **fields)
    words = [str(photo), "--probabilities", str(tmp_path / "x.npz"), "--out", str(tmp_path / "o")]
    with pytest.raises(ValueError, match=told):
        refine.main(words)


def test_names_in_bytes_are_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", probabilities=np.full((2, 4, 6), 0.5),
             classes=np.array([b"tin", "é".encode("latin-1")]))  # fmt: skip
    assert refine.read_probabilities(tmp_path / "x.npz").names == ["tin", "\ufffd"]


def content(kind: str) -> np.ndarray:
    return {
        "integers": np.zeros((2, 40, 60), np.int64),
        "flat": np.zeros((40, 60)),
        "logits": np.full((2, 40, 60), -3.0),
        "small logits": np.full((2, 10, 15), -3.0),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("integers", "holds int64 of shape"),
        ("flat", "holds float64 of shape"),
        ("logits", "look like logits"),
        ("small logits", "look like logits"),
    ],
)
def test_refuses_what_are_no_probabilities(photo, tmp_path, kind, told) -> None:
    np.save(tmp_path / "x.npy", content(kind))
    with pytest.raises(ValueError, match=told):
        refine.main([str(photo), "--probabilities", str(tmp_path / "x.npy"), "--out", "out"])


def test_refuses_labels_that_a_format_has_changed(photo: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(tmp_path / "labels.jpg")
    header = struct.pack(">IIBBBBB", 60, 40, 4, 0, 0, 0, 0)  # 4 bits, grey
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(40 * 31))), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    (tmp_path / "labels.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    for name, told in (("labels.jpg", "is a JPEG"), ("labels.png", "fewer than 8 bits")):
        words = [str(photo), "--labels", str(tmp_path / name), "--out", str(tmp_path / "o")]
        with pytest.raises(ValueError, match=told):
            refine.main(words)


def test_refuses_a_pickle_and_a_damaged_file(photo: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "other.npz", scores=np.zeros(3))
    with (tmp_path / "huge.npy").open("wb") as file:  # a header of 2^57 bytes, and none behind it
        heading = {"descr": "<f4", "fortran_order": False, "shape": (2, 2**27, 2**27)}
        np.lib.format.write_array_header_1_0(file, heading)
    for name, told in (("pickle.npy", "cannot be read"), ("half.npz", "cannot be read"),
                       ("huge.npy", "cannot be read"),
                       ("other.npz", "no array `probabilities`")):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            refine.main([str(photo), "--probabilities", str(tmp_path / name), "--out", "x"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "either --probabilities or --labels"),
        (["--labels", "labels.png", "--probabilities", "x.npy"], "and not both"),
        (["--labels", "photo.png"], "is of mode RGB, no train ids"),
        (["--labels", "deep.png"], "is of mode I;16, no train ids"),
        (["--labels", "half.png"], "cannot be read as a picture"),
        (["--labels", "labels.png", "--crf", "null"], "--crf null would refine nothing"),
        (["--labels", "small.png"], "is 30x20 but the photo 60x40"),
        (["--labels", "labels.png", "--classes", "2"], "train ids up to 2"),
        (["--labels", "labels.png", "--certainty", "1.0"], "less than 1"),
        (["--labels", "labels.png", "--certainty", "0.2"], "more than 1 in 3"),
    ],
)
def test_refuses(photo: Path, tmp_path: Path, monkeypatch, words: list[str], told: str) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("labels.png", np.full((40, 60), 2, np.uint8))
    cv2.imwrite("small.png", np.zeros((20, 30), np.uint8))
    cv2.imwrite("deep.png", np.zeros((40, 60), np.uint16))
    noise = np.random.default_rng(0).integers(0, 9, (40, 60)).astype(np.uint8)
    whole = cv2.imencode(".png", noise)[1].tobytes()
    Path("half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=told):
        refine.main([str(photo), "--out", "out", *words])
