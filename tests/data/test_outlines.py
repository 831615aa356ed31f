import numpy as np
import pytest
from pycocotools import mask as mask_api

from segment.data.outlines import annotation_fault, paint_runs, reaches_outside, run_lengths

SQUARE = [[1, 1, 4, 1, 4, 3, 1, 3]]  # columns 1 to 3, rows 1 and 2 of 5x6
RUNS = [6, 2, 3, 2, 3, 2, 12]  # the same, down the columns


def fault(segmentation: object, height: int = 5, width: int = 6) -> str:
    return str(annotation_fault({"segmentation": segmentation}, height, width))


def painted(segmentation: object, height: int, width: int) -> np.ndarray:
    flat = np.zeros(height * width, np.uint8)
    paint_runs(flat, run_lengths(segmentation, height, width), 1)
    return flat.reshape(width, height).T


def test_polygon_and_both_kinds_of_rle_are_the_same_square() -> None:
    packed = mask_api.frPyObjects({"size": [5, 6], "counts": RUNS}, 5, 6)["counts"].decode()
    for outline in (
        SQUARE,
        {"size": [5, 6], "counts": RUNS},
        {"size": [5, 6], "counts": packed},
    ):
        assert fault(outline) == "None"
        assert run_lengths(outline, 5, 6).tolist() == RUNS
    expected = np.zeros((5, 6), np.uint8)
    expected[1:3, 1:4] = 1
    assert (painted(SQUARE, 5, 6) == expected).all()


def test_compressed_counts_decode_as_pycocotools_decodes_them() -> None:
    generator = np.random.default_rng(0)
    for density in (0.0, 0.01, 0.5, 1.0):
        mask = np.asfortranarray(generator.random((300, 417)) < density, dtype=np.uint8)
        counts = mask_api.encode(mask)["counts"].decode()
        rle = {"size": [300, 417], "counts": counts}
        assert fault(rle, 300, 417) == "None"
        assert (painted(rle, 300, 417) == mask).all()


def test_a_polygon_outside_the_photo_is_clipped_and_not_bent() -> None:
    triangle = [[-4, 0, 12, 0, 4, 8]]  # symmetric about column 4
    assert fault(triangle, 8, 8) == "None"
    assert reaches_outside(triangle, 8, 8)
    whole = painted([[4, 0, 20, 0, 12, 8]], 8, 24)[:, 8:16]
    assert (painted(triangle, 8, 8) == whole).all()
    assert not reaches_outside([[0, 0, 8, 0, 8, 8]], 8, 8)
    assert not painted([[-7, 0, -1, 0, -1, 8]], 8, 8).any()


def test_parts_of_an_object_unite_where_they_overlap() -> None:
    parts = [[0, 0, 3, 0, 3, 3, 0, 3], [2, 0, 5, 0, 5, 3, 2, 3]]
    assert painted(parts, 4, 6).sum() == 15  # 5x3, the shared column counted once


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "has an empty segmentation"),
        ([], "has an empty segmentation; outline the object or delete"),
        ([[]], "of 0 points; it takes 3"),
        ([[1, 1, 2, 2]], "of 2 points; it takes 3"),
        ([SQUARE[0], [1, 1, 2]], "number 1 of its segmentation) with an odd number of coord"),
        (SQUARE[0], "has one flat list"),
        ([[1, 1, 2, 2, "3", 3]], "not a flat list of numbers"),
        ([[1, 1, 2, 2, True, 3]], "not a flat list of numbers"),
        ([[1, 1, 2, 2, None, 3]], "not a flat list of numbers"),
        ([[[1, 1], [2, 2], [3, 3]]], "not a flat list of numbers"),
        ([[1, 1, 2, 2, float("nan"), 3]], "the coordinate nan, far outside"),
        ([[1, 1, 2, 2, float("inf"), 3]], "the coordinate inf, far outside"),
        ([[1, 1, 2, 2, 1e9, 3]], "the coordinate 1000000000.0, far outside its 5x6 photo"),
        ([[1, 1, 2, 2, 10**400, 3]], "far outside"),
        ("abc", "has the segmentation 'abc'; give polygons or an RLE"),
        (7, "has the segmentation 7"),
        ({"counts": RUNS}, "has an RLE of size None"),
        ({"size": [6, 5], "counts": RUNS}, "width and height are swapped"),
        ({"size": [7, 5], "counts": RUNS}, "on a photo of [height, width] [5, 6]; encode"),
        ({"size": [5, 6], "counts": RUNS[:-1]}, "covers 18 pixels of a photo of 30"),
        ({"size": [5, 6], "counts": [*RUNS, 1]}, "covers 31 pixels of a photo of 30"),
        ({"size": [5, 6], "counts": []}, "covers 0 pixels"),
        ({"size": [5, 6], "counts": ""}, "covers 0 pixels"),
        ({"size": [5, 6], "counts": [31, -1]}, "negative or far too large"),
        ({"size": [5, 6], "counts": [10**30]}, "negative or far too large"),
        ({"size": [5, 6], "counts": [30.0]}, "neither a string nor whole numbers"),
        ({"size": [5, 6], "counts": None}, "neither a string nor whole numbers"),
        ({"size": [5, 6], "counts": "\u00e9"}, "damaged (a character that is not"),
        ({"size": [5, 6], "counts": " "}, "damaged (a character that is not one of theirs)"),
        ({"size": [5, 6], "counts": "P"}, "damaged (the end is missing)"),
        ({"size": [5, 6], "counts": "oooooooo0"}, "damaged (a number beyond 32 bits)"),
        ({"size": [5, 6], "counts": "oooooo0"}, "negative or far too large"),
    ],
)
def test_a_bad_outline_is_told(segmentation: object, message: str) -> None:
    assert message in fault(segmentation)


def test_compressed_counts_cut_short_are_told_before_anything_decodes_them() -> None:
    mask = np.asfortranarray(np.eye(40, dtype=np.uint8))
    counts = mask_api.encode(mask)["counts"].decode()
    for length in range(len(counts)):
        assert "an RLE" in fault({"size": [40, 40], "counts": counts[:length]}, 40, 40)


def test_an_outline_of_absurd_length_is_told() -> None:
    zigzag = [0, 0, 0, 3000] * 2000
    assert "pixels long; simplify or delete it" in fault([zigzag], 3000, 3000)


def test_a_box_without_an_outline_is_told_so() -> None:
    box = {"bbox": [0, 0, 2, 2]}
    assert "a bbox but no segmentation" in str(annotation_fault(box, 5, 6))
    assert "a bbox but an empty seg" in str(annotation_fault(box | {"segmentation": []}, 5, 6))
    assert "has no segmentation; outline" in str(annotation_fault({}, 5, 6))
