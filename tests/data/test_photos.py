import struct
import threading
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from segment.data.photos import check_ending, photo_size, read_photo, size_fault


def picture(height: int = 5, width: int = 9) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def write_bomb(path: Path, side: int) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_every_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    path, exif = tmp_path / f"photo.{suffix}", Image.Exif()
    exif[274] = orientation
    picture().save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    pixels = read_photo(path)
    # Where the EXIF standard says that row 0 and column 0 of the stored photo are, its pixel
    # (0, 0) is shown: top left, top right, bottom right, bottom left; 5 to 8 swap the two sides.
    corner = [(0, 0), (0, -1), (-1, -1), (-1, 0)][(orientation - 1) % 4]
    assert pixels[corner].tolist() == list(picture().getpixel((0, 0)))
    assert pixels.shape == ((5, 9, 3) if orientation < 5 else (9, 5, 3))
    assert photo_size(path) == pixels.shape[:2]


def test_jpeg_orientation_agrees_with_pillow(tmp_path: Path) -> None:
    path, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[274] = 6
    picture(20, 30).save(path, exif=exif)
    with Image.open(path) as image:
        assert (read_photo(path) == np.asarray(ImageOps.exif_transpose(image))).all()
    assert photo_size(path) == (30, 20)


SIX = {  # orientation 6, as EXIF and as XMP
    b"eXIf": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    b"iTXt": b'XML:com.adobe.xmp\0\0\0\0\0<rdf:Description tiff:Orientation="6"/>',
}


def write_png_with(path: Path, kind: bytes, before: bytes) -> None:
    """A PNG of 20x30 pixels with a chunk of `SIX` before another chunk, or behind its end."""
    picture(20, 30).save(path)
    data = path.read_bytes()
    place = data.index(before) - 4 if before else len(data)
    path.write_bytes(data[:place] + chunk(kind, SIX[kind]) + data[place:])


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("kind", SIX)
def test_a_png_is_turned_wherever_its_orientation_stands(
    tmp_path: Path, kind: bytes, before: bytes
) -> None:
    path = tmp_path / "a.png"
    write_png_with(path, kind, before)
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    assert shown.shape == (30, 20, 3)
    assert (read_photo(path) == shown).all()
    assert photo_size(path) == (30, 20)
    assert size_fault(path, 30, 20) is None
    assert "EXIF orientation 6 turns it" in str(size_fault(path, 20, 30))
    head, pixels = path.read_bytes().split(b"IDAT")
    path.write_bytes(head + b"IDAT" + bytes(100) + pixels[100:])  # which cannot be decoded
    assert photo_size(path) == (30, 20)
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_photo(path)


def test_what_stands_behind_a_pngs_end_does_not_turn_it(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png_with(path, b"eXIf", before=b"")
    assert photo_size(path) == read_photo(path).shape[:2] == (20, 30)


def test_damaged_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png", exif=b"Exif\x00\x00MM\x00*\xff\xff")
    assert read_photo(tmp_path / "photo.png").shape == (5, 9, 3)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", np.uint16), ("a.tif", np.uint16), ("a.tif", np.int32)]
)
def test_16_bit_grey_is_scaled_and_not_cut(tmp_path: Path, name: str, kind: type) -> None:
    grey = np.array([[0, 128, 129, 257, 32768, 65535]])
    Image.fromarray(grey.astype(kind)).save(tmp_path / name)
    pixels = read_photo(tmp_path / name)
    # 65535 / 255 = 257, so 128 is just below half a level and 129 just above
    assert pixels.tolist() == [[[level] * 3 for level in (0, 0, 1, 1, 128, 255)]]


def test_16_bit_grey_with_a_transparent_level_shows_white_there(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 4660]], np.uint16)).save(tmp_path / "a.png", transparency=4660)
    assert read_photo(tmp_path / "a.png")[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("mode", "color", "suffix", "shown"),
    [
        ("1", 1, "png", (255, 255, 255)),
        ("L", 77, "png", (77, 77, 77)),
        ("LA", (0, 0), "png", (255, 255, 255)),
        ("LA", (0, 255), "png", (0, 0, 0)),
        ("RGBA", (9, 8, 7, 0), "png", (255, 255, 255)),
        ("RGBA", (9, 8, 7, 255), "tif", (9, 8, 7)),
        ("RGBA", (0, 0, 0, 51), "png", (204, 204, 204)),  # a fifth black on white
        ("RGB", (9, 8, 7), "bmp", (9, 8, 7)),
        ("CMYK", (0, 0, 0, 0), "jpg", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "tif", (255, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(
    tmp_path: Path, mode: str, color: object, suffix: str, shown: tuple
) -> None:
    path = tmp_path / f"photo.{suffix}"
    Image.new(mode, (16, 8), color).save(path)
    pixels = read_photo(path)
    assert (pixels.shape, pixels.dtype) == ((8, 16, 3), np.uint8)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert tuple(pixels[4, 8].tolist()) == shown


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_with_a_transparent_entry_is_laid_over_white(tmp_path: Path, suffix: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / f"a.{suffix}", transparency=1)
    assert read_photo(tmp_path / f"a.{suffix}").tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_an_animation_gives_its_first_picture(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_photo(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp", "gif"])
def test_a_truncated_photo_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    picture(64, 64).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for refuse in (read_photo, check_ending):
        with pytest.raises(ValueError, match=rf"photo.{suffix}: .*(copy the photo|convert it)"):
            refuse(path)


@pytest.mark.parametrize("kept", [0.5, 0.95])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_whose_rest_is_zeros_is_refused(
    tmp_path: Path, kept: float, progressive: bool
) -> None:
    path, thumbnail, exif = tmp_path / "photo.jpg", BytesIO(), Image.Exif()
    picture(16, 16).save(thumbnail, "jpeg")  # with an end mark of its own
    exif[270] = thumbnail.getvalue()
    picture(200, 300).save(path, progressive=progressive, exif=exif)
    data = path.read_bytes()
    whole = int(kept * len(data))
    path.write_bytes(data[:whole] + bytes(len(data) - whole))
    for refuse in (read_photo, check_ending):
        with pytest.raises(ValueError, match=r"photo.jpg: cannot be decoded \(cut short: .*anew"):
            refuse(path)


def test_two_jpegs_in_one_file_are_refused_only_where_the_first_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"  # as phones and stereo cameras write them
    picture(64, 64).save(path, "MPO", save_all=True, append_images=[picture(64, 64)])
    data = path.read_bytes()
    for kept in (len(data), 3 * len(data) // 4):
        path.write_bytes(data[:kept] + bytes(len(data) - kept))
        assert read_photo(path).shape == (64, 64, 3)
        check_ending(path)
    path.write_bytes(data[: len(data) // 4] + bytes(3 * len(data) // 4))
    for refuse in (read_photo, check_ending):
        with pytest.raises(ValueError, match=r"cut short"):
            refuse(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp", "gif"])
@pytest.mark.parametrize("behind", [b"", b"\0" * 100, b"\0" * 5000, b"a motion photo's film"])
def test_a_whole_photo_has_a_sound_ending(tmp_path: Path, suffix: str, behind: bytes) -> None:
    path = tmp_path / f"photo.{suffix}"
    picture(64, 64).save(path)
    path.write_bytes(path.read_bytes() + behind)
    check_ending(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif"])
def test_the_ending_is_read_without_decoding(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"photo.{suffix}"
    picture(64, 64).save(path)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    check_ending(path)


@pytest.mark.parametrize("content", [b"", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x00" * 999])
def test_what_is_no_photo_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (read_photo, photo_size):
        with pytest.raises(ValueError, match=r"a.jpg: not a photo in a format that is read"):
            read(tmp_path / "a.jpg")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "a.jpg"):
        with pytest.raises(ValueError, match=r"no such photo; restore the file"):
            read_photo(path)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.new("F", (4, 4), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"floating-point numbers of unknown range"):
        read_photo(tmp_path / "a.tif")


def test_32_bit_greys_beyond_16_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"grey values exceed 16 bits"):
        read_photo(tmp_path / "a.tif")


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    write_bomb(tmp_path / "bomb.png", side=20000)
    for read in (read_photo, photo_size):
        with pytest.raises(ValueError, match=r"20000x20000 is 400,000,000 pixels, more than"):
            read(tmp_path / "bomb.png")


def test_the_cap_counts_and_pillows_own_limit_stays_as_it_was(tmp_path: Path) -> None:
    picture(10, 10).save(tmp_path / "a.png")
    write_bomb(tmp_path / "large.png", side=14000)  # 196 megapixels: Pillow's own limit is 179
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_photo(tmp_path / "a.png", max_pixels=100).shape == (10, 10, 3)
        assert photo_size(tmp_path / "large.png") == (14000, 14000)
        with pytest.raises(ValueError, match=r"limit of 99; make the photo smaller"):
            read_photo(tmp_path / "a.png", max_pixels=99)
    assert before == Image.MAX_IMAGE_PIXELS


def test_threads_do_not_disturb_each_others_limit(tmp_path: Path) -> None:
    picture(10, 10).save(tmp_path / "a.png")
    before = Image.MAX_IMAGE_PIXELS
    threads = [threading.Thread(target=read_photo, args=(tmp_path / "a.png",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_size_is_read_without_decoding(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "tif"):
        path = tmp_path / f"a.{suffix}"
        picture(64, 48).save(path)
        whole = path.read_bytes()
        if suffix != "tif":  # whose directory stands at the end
            path.write_bytes(whole[: 3 * len(whole) // 4])
        assert photo_size(path) == (64, 48)


def test_sizes_that_differ_say_how(tmp_path: Path) -> None:
    path, exif = tmp_path / "a.jpg", Image.Exif()
    picture(20, 30).save(path)
    assert size_fault(path, 20, 30) is None
    assert "swap width and height" in str(size_fault(path, 30, 20))
    assert "is 20x30 (height x width), and 8x8 in the json" in str(size_fault(path, 8, 8))
    exif[274] = 8
    picture(20, 30).save(path, exif=exif)
    assert size_fault(path, 30, 20) is None
    assert "EXIF orientation 8 turns it when displayed" in str(size_fault(path, 20, 30))
