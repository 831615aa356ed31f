"""The notebooks, top to bottom in a fresh kernel, and what they show."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
IOU, EXPLORE = "per_class_iou.ipynb", "explore_coco.ipynb"


def executed(name: str, parameters: str, last: str = "") -> nbformat.NotebookNode:
    """A notebook with other parameters and one more cell, run where Jupyter would run it."""
    notebook = nbformat.read(FOLDER / name, 4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    cell.source += f"\n{parameters}"
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    where = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where)
    return client.execute()


def shown(notebook: nbformat.NotebookNode, source: str, kind: str = "text/plain") -> str:
    """All that the one cell with `source` in it shows as text, or as HTML."""
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and source in c.source]
    # A stream comes in pieces, wherever the kernel flushes it; its text ends its own lines.
    return "".join(
        o.text if o.output_type == "stream" else f"{o.data[kind]}\n" for o in cell.outputs
    )


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.ipynb")))
def test_is_committed_without_outputs(name: str) -> None:
    notebook = nbformat.read(FOLDER / name, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert "widgets" not in notebook.metadata


SLIDERS = """
pictures, said, *sliders, shares = panel.children
raw, refined = (column.children[1] for column in pictures.children)
by_name = {slider.description: slider for slider in sliders}
weight, iterations = by_name["Colour kernel: weight"], by_name["Iterations"]
print(iterations.value, weight.value)
seen = [bytes(refined.value)]
weight.value = 0.5
seen.append(bytes(refined.value))
iterations.value = 0
seen.append(bytes(refined.value))
print(said.value)
print(len(set(seen)), seen[-1] == bytes(raw.value), "<th>refined %</th>" in shares.value)
"""


def test_iou_by_class_of_a_run(noisy_run: Path) -> None:
    notebook = executed(IOU, f"RUNS = [{str(noisy_run)!r}]\nWORST = 2", SLIDERS)
    evaluation = json.loads((noisy_run / "evaluation.json").read_text())
    lines = [line.rsplit(maxsplit=3) for line in shown(notebook, "iou_table(runs)").splitlines()]
    found = {name: numbers for name, *numbers in lines if name}
    for place, name in enumerate(evaluation["classes"]):
        raw, refined = (evaluation[kind]["iou"][place] for kind in ("raw", "refined"))
        values = [raw, refined, None if raw is None else refined - raw]
        wanted = ["NaN" if value is None else f"{value:.3f}" for value in values]
        assert found[name] == wanted
    said = shown(notebook, "findings(comparisons)")
    assert said.startswith("- Refining with the CRF, mean IoU: 5 photos are too few for intervals.")
    assert "Warning" not in said
    (cell,) = [cell for cell in notebook.cells if "photos.side_by_side" in cell.source]
    assert [o.output_type for o in cell.outputs] == ["stream", "display_data"] * 2
    assert (
        sum("application/vnd.plotly.v1+json" in str(cell.get("outputs")) for cell in notebook.cells)
        == 6
    )
    # Refined anew at each move; without an iteration the labels are the network's own.
    said = shown(notebook, "by_name = ").splitlines()
    assert said == ["2 10.0", "The CRF changed 0.0% of the labels.", "3 True True"]


def test_explores_a_set_and_finds_what_was_put_there(sample: Path, tmp_path: Path) -> None:
    root = tmp_path / "set's <copy>"
    shutil.copytree(sample, root)
    train = json.loads((root / "train.json").read_text())
    val = json.loads((root / "val.json").read_text())
    first = train["annotations"][0]
    other = next(c for c in train["categories"] if c["id"] != first["category_id"])
    twice = {**first, "id": 10**6, "category_id": other["id"]}
    train["annotations"].append(twice)
    shutil.copy(root / val["images"][0]["file_name"], root / train["images"][1]["file_name"])
    (root / "train.json").write_text(json.dumps(train))
    where = f"ROOT = Path({str(root)!r})"
    files = "ANNOTATIONS, OTHERS = ROOT / 'train.json', [ROOT / 'val.json']"
    notebook = executed(EXPLORE, f"{where}\n{files}")
    objects = len([a for a in train["annotations"] if not a.get("iscrowd")])
    assert f"9 photos, {objects} objects, " in shown(notebook, "stats = count(coco)")
    table = shown(notebook, "rows(stats)")
    assert all(category["name"] in table for category in train["categories"])
    defects = shown(notebook, "defects = check(", "text/html")
    assert "set&#39;s &lt;copy&gt;/train.json: photo" in defects
    assert "it stands in two splits" in defects
    unusual = shown(notebook, "find_unusual(coco)")
    assert f"covers the same pixels as annotation {10**6}, {other['name']}" in unusual
    assert "<PIL.Image.Image" in unusual
