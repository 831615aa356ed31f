import json
from pathlib import Path

import pytest
import torch
from real_data import DATA, needs_data

from segment.data.taxonomy import IGNORE, Taxonomy


def load(tmp_path: Path, text: str) -> Taxonomy:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return Taxonomy.load(path)


@pytest.mark.parametrize(
    ("preset", "outputs"),
    [
        ("trash10", 11),
        ("trash11", 12),
        ("taco60", 61),
        ("taco28", 29),
        ("garbage6", 7),
        ("bags", 3),
        ("camvid11", 11),
    ],
)
def test_presets_have_the_published_number_of_outputs(preset: str, outputs: int) -> None:
    taxonomy = Taxonomy.load(preset)
    assert (taxonomy.name, taxonomy.num_classes) == (preset, outputs)
    assert taxonomy.background == (None if preset == "camvid11" else 0)


def test_unknown_is_class_1_in_the_competitions_first_year_and_ignored_in_trash10() -> None:
    unknown = {"name": "UNKNOWN", "supercategory": "UNKNOWN"}
    assert Taxonomy.load("trash11").train_id(unknown) == 1
    assert Taxonomy.load("trash10").train_id(unknown) == IGNORE
    assert Taxonomy.load("trash10").classes[1::9] == ("General trash", "Clothing")


def test_camvid_has_segnets_colours_and_ignores_void() -> None:
    taxonomy = Taxonomy.load("camvid11")
    colors = dict(zip(taxonomy.classes, taxonomy.colors, strict=True))
    assert (colors["Road"], colors["Sky"]) == ((128, 64, 128), (128, 128, 128))
    assert taxonomy.train_id({"name": "Void"}) == IGNORE


@needs_data
def test_taco_presets_map_tacos_own_file() -> None:
    categories = json.loads((DATA / "taco/annotations.json").read_text())["categories"]
    sixty, fewer = Taxonomy.load("taco60"), Taxonomy.load("taco28")
    assert sixty.classes[1:] == tuple(category["name"] for category in categories)
    assert [sixty.train_id(category) for category in categories] == list(range(1, 61))
    assert {fewer.classes[fewer.train_id(category) or 0] for category in categories} == {
        category["supercategory"] for category in categories
    }


def test_categories_as_they_are_leave_0_to_the_background() -> None:
    categories = [{"id": 7, "name": "Can"}, {"id": 0, "name": "Bottle"}]
    taxonomy = Taxonomy.from_categories(categories)
    assert taxonomy.classes == ("Background", "Bottle", "Can")
    assert [taxonomy.train_id(category) for category in categories] == [2, 1]
    assert taxonomy.colors[0] == (0, 0, 0)


def test_a_category_called_background_is_the_background() -> None:
    taxonomy = Taxonomy.from_categories([{"id": 0, "name": "background"}, {"id": 1, "name": "Can"}])
    assert taxonomy.classes == ("Background", "Can")
    assert taxonomy.train_id({"name": "background"}) == 0


def test_253_categories_fit_and_254_do_not() -> None:
    categories = [{"id": i, "name": f"c{i}"} for i in range(254)]
    assert len(set(Taxonomy.from_categories(categories[:253]).colors)) == 254
    with pytest.raises(ValueError, match=r"254 categories and the background are more than 254"):
        Taxonomy.from_categories(categories)


def test_name_wins_over_supercategory() -> None:
    taxonomy = Taxonomy("t", ("A", "B"), ((0, 0, 0), (1, 1, 1)), None, {"Cup": 0, "Paper cup": 1})
    assert taxonomy.train_id({"name": "Paper cup", "supercategory": "Cup"}) == 1
    assert taxonomy.train_id({"name": "Foam cup", "supercategory": "Cup"}) == 0
    assert taxonomy.train_id({"name": "Foam cup"}) is None


def test_yaml_merges_ignores_and_fills_in_colours(tmp_path: Path) -> None:
    taxonomy = load(
        tmp_path,
        """
        background: Background
        classes:
          Paper: {from: [Paper, Paper pack], color: [128, 0, 0]}
          Metal:
        ignore: [Unlabeled litter]
        """,
    )
    assert taxonomy.name == "own"
    assert taxonomy.classes == ("Background", "Paper", "Metal")
    assert taxonomy.mapping == {
        "Background": 0,
        "Paper": 1,
        "Paper pack": 1,
        "Metal": 2,
        "Unlabeled litter": IGNORE,
    }
    # PASCAL VOC's colour 1 is taken by Paper, so that Metal has number 2.
    assert taxonomy.colors == ((0, 0, 0), (128, 0, 0), (0, 128, 0))


def test_the_background_may_be_given_a_colour(tmp_path: Path) -> None:
    text = "background: Bg\nclasses: {A: {}, Bg: {color: [9, 9, 9], from: [floor]}}"
    taxonomy = load(tmp_path, text)
    assert (taxonomy.classes, taxonomy.colors[0]) == (("Bg", "A"), (9, 9, 9))
    assert taxonomy.train_id({"name": "floor"}) == 0


def test_without_a_background_the_first_class_has_train_id_0(tmp_path: Path) -> None:
    taxonomy = load(tmp_path, "classes: {A: {}}")
    assert (taxonomy.background, taxonomy.mapping) == (None, {"A": 0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clases: {A: {}}", r"own.yaml: the file has the unknown key 'clases'; write `classes`"),
        ("classes: {A: {form: [A]}}", r"class 'A' has the unknown key 'form'; write `from`"),
        ("classes: {A: {from: [X]}, B: {from: [X]}}", r"'X' stands in the classes 'A' and 'B'"),
        ("classes: {A: {}}\nignore: [A]", r"'A' stands in class 'A' and in `ignore`"),
        ("classes:\n  A: {}\n  A: {}", r"'A' stands twice in one mapping .* line 2"),
        ("classes: {A: {color: [0, 0, 256]}}", r"`color` must be three numbers from 0 to 255"),
        ("classes: {A: {color: red}}", r"class 'A': `color` must be three numbers.*'red'"),
        (
            "classes: {A: {color: [1, 1, 1]}, B: {color: [1, 1, 1]}}",
            r"A and B share the `color` \[1, 1, 1\]",
        ),
        ("classes: {A: {from: X}}", r"`from` must be a list of category names"),
        ("classes: {A: {from: [X, X]}}", r"`from` names 'X' twice"),
        ("classes: {1: {}}", r"a class name must be text; got 1, put it in quotes"),
        ("classes: [A, B]", r"`classes` must map each class name"),
        ("classes: {A: 3}", r"class 'A' must hold `from` and `color`; got 3"),
        ("- A", r"must be a mapping with the key `classes`"),
        ("classes: {A: {}", r"own.yaml: not valid YAML: .*allowed keys: name, background"),
        (f"classes: {{{', '.join(f'c{i}: {{}}' for i in range(255))}}}", r"has 255 classes"),
    ],
)
def test_a_bad_file_is_refused_with_the_remedy(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "own.yaml"))
    assert "allowed keys: name, background, classes, ignore" in str(caught.value)


def test_a_preset_that_does_not_exist_is_told_the_others() -> None:
    with pytest.raises(ValueError, match=r"taco10: no taxonomy .* preset: bags, camvid11, garb"):
        Taxonomy.load("taco10")


def test_a_checkpoint_can_carry_it(tmp_path: Path) -> None:
    taxonomy = Taxonomy.load("trash10")
    torch.save(taxonomy.to_dict(), tmp_path / "plain.pt")
    plain = torch.load(tmp_path / "plain.pt", weights_only=True)
    assert Taxonomy.from_dict(plain) == taxonomy
    with pytest.raises(ValueError, match=r"has the keys background, classes"):
        Taxonomy.from_dict({"classes": []})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["A", "A"]}, r"two classes are called 'A'"),
        ({"colors": [[0, 0, 0]]}, r"has 2 classes and 1 colours"),
        ({"background": 1}, r"the background has train id 1"),
        ({"mapping": {"A": 2}}, r"maps 'A' to 2, which is no class"),
        ({"classes": [], "colors": []}, r"has 0 classes"),
    ],
)
def test_contradictory_parts_are_refused(change: dict, message: str) -> None:
    plain = Taxonomy.from_categories([{"id": 1, "name": "A"}]).to_dict()
    with pytest.raises(ValueError, match=message):
        Taxonomy.from_dict(plain | change)


def test_suggests_the_name_that_was_meant() -> None:
    assert Taxonomy.load("trash10").closest("plastic  bag") == "Plastic bag"
    assert Taxonomy.load("trash10").closest("Car") is None
