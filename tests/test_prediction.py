import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from segment.answer import Answer
from segment.crf import DenseCRF
from segment.data.taxonomy import Taxonomy
from segment.predict import predict
from segment.prediction import Job, Source, find_photos, write_prediction


def test_of_a_json_the_images_alone_are_read(sample: Path, tmp_path: Path) -> None:
    content = json.loads((sample / "val.json").read_text())
    content["annotations"][0]["segmentation"] = []
    content["annotations"][1]["category_id"] = 99
    content["categories"] = {"not": "a list"}
    (tmp_path / "val.json").write_text(json.dumps(content))
    found = find_photos([str(tmp_path / "val.json")], str(sample), tmp_path / "out")
    assert {source.image_id: source.name for source in found} == {
        image["id"]: image["file_name"] for image in content["images"]
    }


def test_what_sliders_show_is_what_predict_writes_also_where_classes_are_kept(
    tmp_path: Path,
) -> None:
    """A photo of four times the size that the CRF works at, and one class that keeps its pixels."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    coarse = torch.from_numpy(rng.normal(size=(1, 3, 6, 8))).float() * 3
    maps = torch.nn.functional.interpolate(coarse, (60, 80), mode="bilinear")[0].softmax(0).numpy()
    crf = DenseCRF(max_side=80, keep_classes=[1])
    taxonomy = Taxonomy.from_categories([{"id": n, "name": n} for n in ("can", "bag")])
    source = Source(tmp_path / "a.jpg", "a.jpg", 1)
    write_prediction(Job(image, maps, source, tmp_path, crf, taxonomy, False, False))
    written = cv2.imread(str(tmp_path / "labels" / "a.jpg.png"), cv2.IMREAD_UNCHANGED)
    shown = Answer(image, maps, written).refined(crf)
    assert np.array_equal(shown, written)
    free = Answer(image, maps, written).refined(replace(crf, keep_classes=None))
    assert ((shown == 1) != (free == 1)).any()


STOP = """
import os, signal, sys, time
import segment.predict
from segment.cli_errors import user_errors
read, at, seen = segment.predict.read_photo, int(sys.argv[1]), 0
def striking_read(path):
    global seen
    seen += 1
    if seen == at:
        time.sleep(1)  # until the worker is idle: that is where it would tell of Ctrl-C itself
        os.killpg(0, signal.SIGINT)  # as a terminal does: to the workers, too
    return read(path)
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start without it
if __name__ == "__main__":
    segment.predict.read_photo = striking_read
    user_errors(lambda: segment.predict.predict(sys.argv[2:]))
"""


# With a worker, one photo is still to be fetched when the signal comes, and is not listed.
@pytest.mark.parametrize(("workers", "at", "done"), [(0, 4, 3), (1, 4, 2)])
def test_ctrl_c_leaves_the_lists_and_says_how_many_are_done(
    tiny_run: Path, sample: Path, tmp_path: Path, workers: int, at: int, done: int
) -> None:
    stopped = subprocess.run(
        [
            sys.executable, "-c", STOP, str(at), str(sample / "val"), "--run", str(tiny_run),
            "--out", str(tmp_path), "--workers", str(workers),
        ],
        capture_output=True, text=True, check=False, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert stopped.returncode == 130, stopped.stderr
    assert f"stopped: {done} of 5 photos written to {tmp_path}" in stopped.stdout
    assert "Traceback" not in stopped.stderr
    lines = (tmp_path / "areas.csv").read_text().splitlines()[1:]
    assert len({line.split(",")[0] for line in lines}) == done


def test_photos_in_formats_that_are_not_read_are_counted(
    tiny_run: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(sample / "val", photos)
    args = [str(photos), "--run", str(tiny_run), "--crf", "null", "--out"]
    predict([*args, str(tmp_path / "all")])
    assert capsys.readouterr().out == f"5 photos written to {tmp_path / 'all'}\n"
    (photos / "phone").mkdir()
    for name in ("phone/b.HEIC", "phone/c.dng", "notes.txt"):
        (photos / name).write_bytes(b"")
    predict([*args, str(tmp_path / "some")])
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"5 photos written to {tmp_path / 'some'}"
    assert told[1].startswith("2 photos were passed over, in formats that are not read,")
    assert f"beginning with {photos / 'phone' / 'b.HEIC'};" in told[1]


def test_refuses_a_folder_of_earlier_results(tiny_run: Path, sample: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match=r"holds the results.json of an earlier prediction; give"):
        predict([str(sample / "val"), "--run", str(tiny_run), "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("device", ["meta", "hpu", "gpu"])
def test_refuses_a_device_that_cannot_compute(
    device: str, tiny_run: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    args = [str(sample / "val"), "--run", str(tiny_run), "--out", str(tmp_path), "--device", device]
    with pytest.raises(ValueError, match=rf"--device {device}: not to be had here; take cpu\.$"):
        predict(args)
