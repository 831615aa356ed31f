"""Runs that were scored on other photos or other true labels, side by side."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from making import make_set, write_run

from segment.comparison import compare, load_runs
from segment.data.coco import CocoFile
from segment.report import main


@pytest.fixture
def coco(tmp_path: Path) -> CocoFile:
    return make_set(tmp_path / "set", photos=12)


def refused(*runs: Path) -> str:
    with pytest.raises(ValueError, match="do not belong side by side") as said:
        main([*map(str, runs), "--out", str(runs[0].parent / "out")])
    return str(said.value)


def anyway(capsys: pytest.CaptureFixture[str], *runs: Path) -> tuple[str, str]:
    """What is printed, and the page."""
    out = runs[0].parent / "out"
    main([*map(str, runs), "--out", str(out), "--anyway", "--draws", "100"])
    return capsys.readouterr().out, (out / "index.html").read_text(encoding="utf-8")


def swapped(coco: CocoFile) -> CocoFile:
    """The same file, but what is Glass in it is called Paper, and the other way round."""
    mapping = coco.taxonomy.mapping | {"Glass": 2, "Paper": 1}
    other = replace(coco.taxonomy, mapping=mapping)
    return CocoFile(coco.path, coco.root, taxonomy=other)


def test_the_same_file_by_another_mapping_is_refused(coco: CocoFile, tmp_path: Path) -> None:
    runs = write_run(tmp_path / "a", coco, 0.2), write_run(tmp_path / "b", swapped(coco), 0.2)
    said = refused(*runs)
    # A large square of 20 x 20 pixels of Glass and a small one of 8 x 8 of Paper, or of the other;
    # in every third photo Metal takes one's place, but one of the two is there.
    assert "true labels: other ones in 12 of 12 photos, such as drive0_0.png (Glass: 4" in said
    assert compare(load_runs(runs)[0], draws=100) == []


def test_changed_annotations_are_shown_anyway_but_not_compared(
    coco: CocoFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / n, coco, w, experiment=n) for n, w in (("a", 0.1), ("b", 0.2))]
    other = make_set(tmp_path / "other", photos=12, names=("Glass", "Metal", "Paper"))
    content = json.loads(other.path.read_text())
    content["categories"] = json.loads(coco.path.read_text())["categories"]
    other.path.write_text(json.dumps(content))
    content["annotations"][0]["segmentation"] = [[2, 3, 12, 3, 12, 23, 2, 23]]  # half of it
    other.path.write_text(json.dumps(content))
    other = CocoFile(other.path, other.root, taxonomy=coco.taxonomy)
    runs += [write_run(tmp_path / n, other, w, experiment=n) for n, w in (("c", 0.1), ("d", 0.4))]
    assert "true labels: other ones in 1 of 12 photos, such as drive0_0.png" in refused(*runs)
    printed, page = anyway(capsys, *runs)
    # Both sets have their leader, and nothing is said of one against the other.
    assert "- Highest mean IoU of raw labels, set 1 of photos: a (0." in printed
    assert "- Highest mean IoU of raw labels, set 2 of photos: c (0." in printed
    assert "a beats b: +0." in printed
    assert "c beats d: +0." in printed
    assert "Set 1 of photos: 12 photos of" in page
    assert f"Set 2 of photos: 12 photos of {other.path}, split val: c, d." in printed
    assert "draws of the photos of a set" in page
    rows = (tmp_path / "out" / "differences.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 10  # a pair in each set: six measures and four classes


def test_a_run_that_skipped_a_photo_is_refused(
    coco: CocoFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_run(tmp_path / "whole", coco, 0.2, experiment="whole")
    # A photo that could not be read counts no pixel.
    lacking = write_run(tmp_path / "lacking", coco, 0.3, experiment="lacking")
    packed = lacking / "per_photo.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(packed.read_bytes()).splitlines()]
    evaluation = json.loads((lacking / "evaluation.json").read_text())
    for true, predicted, pixels in lines[5]["raw"]["confusion"]:
        evaluation["raw"]["confusion"][true][predicted] -= pixels
    lines[5]["raw"]["confusion"] = []
    packed.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    (lacking / "evaluation.json").write_text(json.dumps(evaluation))
    said = "photos: lacking was not scored on 1 of 12, such as drive2_5.png"
    assert said in refused(whole, lacking)
    assert said in refused(lacking, whole)
    printed, page = anyway(capsys, whole, lacking)
    for text in (printed, page):
        assert "Compared with no other: 12 photos of" in text
        assert "split val: lacking." in text
    assert "Highest" not in printed


def test_other_classes_have_their_colours_in_the_legend(tmp_path: Path) -> None:
    sets = [make_set(tmp_path / n, names=n.split("-")) for n in ("Glass-Paper", "Metal-Glass")]
    runs = [write_run(tmp_path / f"run{n}", one, 0.2) for n, one in enumerate(sets)]
    main([*map(str, runs), "--out", str(tmp_path / "out"), "--anyway", "--draws", "100"])
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    legend = page.partition('id="legend">')[2].partition("</p>")[0]
    pairs = {
        (name, tuple(color))
        for one in sets
        for name, color in zip(one.taxonomy.classes, one.taxonomy.colors, strict=True)
    }
    assert legend.count("<span>") == len(pairs)
    assert "<bdi>Metal</bdi>" in legend


def test_each_set_has_its_sentences_also_where_one_has_seeds(
    coco: CocoFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_set(tmp_path / "other", photos=12, files=("first.png",))
    runs = [write_run(tmp_path / f"a{s}", coco, 0.1, experiment="a", seed=s) for s in (0, 1)]
    runs += [write_run(tmp_path / f"b{s}", coco, 0.3, experiment="b", seed=s) for s in (0, 1)]
    runs += [write_run(tmp_path / n, other, w, experiment=n) for n, w in (("c", 0.1), ("d", 0.4))]
    said, page = anyway(capsys, *runs)
    assert "Highest mean IoU of raw labels, set 1 of photos: a (2 seeds)" in said
    assert "Highest mean IoU of raw labels, set 2 of photos: c (0." in said
    assert "c beats d: +0." in said
    assert "One seed each of c and d: " in said
    assert '"c"' in page


def test_a_file_that_one_seed_has_lost_is_read_from_the_other(
    coco: CocoFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"path": "/gone/elsewhere.json", "sha256": coco.sha256, "photos": 12}
    lost = write_run(tmp_path / "lost", coco, 0.1, experiment="a", annotations=told)
    has = write_run(tmp_path / "has", coco, 0.1, experiment="a", seed=1)
    for folder in (lost, has):
        main([str(lost), str(folder), "--out", str(tmp_path / "out")][folder is lost :])
        gone = "--root FOLDER finds them" in capsys.readouterr().out
        assert gone == (folder is lost)
