"""The page to try a model, as a visitor uses it: in chromium, from upload to download."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from segment.demo import main
from segment.predict import predict

TRIED = {"bilateral_weight": "4.5", "iterations": "7"}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


# `python -m segment.demo`, but background jobs start without Ctrl-C.
START = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("segment.demo", run_name="__main__", alter_sys=True)
"""


class Server:
    """`python -m segment.demo` in a process, where every way out is a trap."""

    def __init__(self, run: Path, folder: Path) -> None:
        self.port, self.temporary = free_port(), folder / "tmp"
        self.temporary.mkdir()
        self.trap = socket.create_server(("127.0.0.1", 0))
        self.trap.settimeout(0.1)
        proxy = f"http://127.0.0.1:{self.trap.getsockname()[1]}"
        self.url = f"http://127.0.0.1:{self.port}/"
        words = ["--run", run, "--port", self.port, "--max_upload_mb", 1, "--max_megapixels", 0.2]
        traps = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy)
        traps |= {key.lower(): value for key, value in traps.items()}
        ours = {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary), "NO_PROXY": "127.0.0.1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **traps, **ours},
        )
        assert self.process.stdout
        self.said: list[str] = []
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("Open "):
                break

    def calls_out(self) -> bool:
        """Whether the server asked the proxy for anything."""
        try:
            self.trap.accept()
        except TimeoutError:
            return False
        return True


@pytest.fixture(scope="module")
def server(noisy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(noisy_run, tmp_path_factory.mktemp("demo"))
    yield server
    server.process.kill()
    server.process.wait()
    server.trap.close()


@pytest.fixture(scope="module")
def page(browser: webdriver.Chrome, server: Server) -> webdriver.Chrome:
    assert server.said == [f"Open {server.url} (Ctrl-C ends it)\n"]
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(server.url)
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#photo input[type=file]"))
    return browser


def until(page: webdriver.Chrome, true: object) -> None:
    WebDriverWait(page, 30, 0.05).until(lambda _: true())


def said(page: webdriver.Chrome) -> str:
    return page.execute_script("return document.querySelector('#said textarea').value")


def upload(page: webdriver.Chrome, path: Path, awaited: str) -> str:
    """Drop a file, and what the page says once that holds `awaited`."""
    page.find_element(By.CSS_SELECTOR, "#photo input[type=file]").send_keys(str(path))
    until(page, lambda: awaited in said(page))
    until(page, lambda: page.find_elements(By.CSS_SELECTOR, "#photo input[type=file]"))
    return said(page)


def move(page: webdriver.Chrome, field: str, value: str) -> None:
    box = page.find_element(By.CSS_SELECTOR, f"#{field} input[type=number]")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(value, Keys.TAB)


def source(page: webdriver.Chrome, word: str) -> str:
    images = page.find_elements(By.CSS_SELECTOR, f"#{word} img")
    return images[0].get_attribute("src") or "" if images else ""


def download(page: webdriver.Chrome, button: str, folder: Path) -> bytes:
    """The file behind a button, as the browser saves it."""
    folder.mkdir()
    settings = {"behavior": "allow", "downloadPath": str(folder)}
    page.execute_cdp_cmd("Browser.setDownloadBehavior", settings)
    page.find_element(By.ID, button).click()
    until(page, lambda: [f for f in folder.iterdir() if f.suffix in (".png", ".jpg")])
    (file,) = folder.iterdir()
    return file.read_bytes()


@pytest.fixture
def photo(sample: Path) -> Path:
    name = json.loads((sample / "val.json").read_text())["images"][2]["file_name"]
    return sample / name


def test_a_slider_refines_anew_and_the_files_are_those_of_predict(
    page: webdriver.Chrome, noisy_run: Path, photo: Path, tmp_path: Path
) -> None:
    def predicted(name: str, *words: str) -> tuple[bytes, bytes]:
        out = tmp_path / name
        predict([str(photo), "--run", str(noisy_run), "--out", str(out), *words])
        files = out / "labels" / f"{photo.name}.png", out / "overlays" / f"{photo.name}.jpg"
        return files[0].read_bytes(), files[1].read_bytes()

    def labels(png: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(png)))

    own = labels(predicted("raw", "--crf", "null")[0])

    def sentence(png: bytes) -> str:
        changed = (labels(png) != own).mean()
        return f"{photo.name}, 64x64: the CRF changed {changed:.1%} of the labels."

    start = predicted("start")
    upload(page, photo, sentence(start[0]))
    until(page, lambda: source(page, "raw") and source(page, "refined"))
    raw, refined = source(page, "raw"), source(page, "refined")
    assert download(page, "mask", tmp_path / "first") == start[0]
    for field, value in TRIED.items():
        move(page, field, value)
    words = [word for field, value in TRIED.items() for word in (f"--crf.{field}", value)]
    mask, picture = predicted("moved", *words)
    assert sentence(mask) != sentence(start[0])
    until(page, lambda: said(page) == sentence(mask))
    assert source(page, "refined") != refined
    assert source(page, "raw") == raw
    assert download(page, "mask", tmp_path / "second") == mask
    assert download(page, "overlay", tmp_path / "third") == picture
    cells = page.find_elements(By.CSS_SELECTOR, "#areas tr td:last-child")
    shown = [int(cell.text.replace(",", "")) for cell in cells]
    counts = np.bincount(labels(mask).ravel())
    assert sorted(n for n in shown if n) == sorted(counts[counts > 0])
    # Without an iteration the CRF leaves the labels as they are.
    move(page, "iterations", "0")
    until(page, lambda: "changed 0.0% of the labels" in said(page))
    page.find_element(By.ID, "reset").click()
    until(page, lambda: said(page) == sentence(start[0]))


def test_odd_files_get_one_sentence_or_their_labels(
    page: webdriver.Chrome, photo: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    whole = io.BytesIO()
    pixels.resize((300, 200)).save(whole, "JPEG")
    grey = Image.fromarray(rng.integers(0, 65536, (20, 30), np.uint16))
    files = {
        "text.jpg": (b"not a photo at all\n", "not a photo in a format that is read"),
        "cut.jpg": (whole.getvalue()[:900], "cannot be decoded"),
        "empty.png": (b"", "not a photo in a format that is read"),
        "large.png": (Image.new("RGB", (500, 401)), "more than the limit of 200,000"),
        "one.png": (pixels.crop((0, 0, 1, 1)), "one.png, 1x1: the CRF changed"),
        "print.jpg": (pixels.convert("CMYK"), "print.jpg, 30x20: the CRF changed"),
        "deep.png": (grey, "deep.png, 30x20: the CRF changed"),
        "turned.jpg": (pixels, "turned.jpg, 20x30: the CRF changed"),
    }
    for name, (content, awaited) in files.items():
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif name == "turned.jpg":
            content.save(path, exif=turned)
        else:
            content.save(path)
        answer = upload(page, path, awaited)
        assert answer.startswith(name)
        assert len(answer.splitlines()) == 1
        until(page, lambda shown="changed" in answer: bool(source(page, "refined")) == shown)
    strange = tmp_path / "<img src=x onerror=window.hacked=1> 写真'.png"
    strange.write_bytes(photo.read_bytes())
    assert "写真" in upload(page, strange, "写真")
    assert page.execute_script("return window.hacked") is None


def test_nothing_leaves_the_machine_and_the_console_is_silent(
    page: webdriver.Chrome, server: Server
) -> None:
    entries = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [
        entry["params"]["request"]["url"]
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent"
    ]
    assert any("/gradio_api/" in url for url in asked)
    hosts = {urllib.parse.urlsplit(url).netloc for url in asked if url.startswith("http")}
    assert hosts == {f"127.0.0.1:{server.port}"}
    assert [e["message"] for e in page.get_log("browser") if e["level"] == "SEVERE"] == []
    assert not server.calls_out()


def test_too_large_a_file_is_refused_and_the_next_photo_works(
    page: webdriver.Chrome, photo: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "heavy.png")  # 1.2 MB
    page.find_element(By.CSS_SELECTOR, "#photo input[type=file]").send_keys(
        str(tmp_path / "heavy.png")
    )
    until(page, lambda: "maximum" in page.find_element(By.TAG_NAME, "body").text.lower())
    until(page, lambda: page.find_elements(By.CSS_SELECTOR, "#photo input[type=file]"))
    assert "the CRF changed" in upload(page, photo, photo.name)


def test_files_beside_the_page_are_not_served(
    server: Server, noisy_run: Path, page: object
) -> None:
    for path in (
        noisy_run / "config.yaml",
        noisy_run / "checkpoints" / "best.ckpt",
        Path("/etc/hostname"),
    ):
        for way in (f"gradio_api/file={path}", f"file={path}", f"gradio_api/file=..{path}"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(server.url + urllib.parse.quote(way))
            assert refused.value.code in (403, 404)


def test_ctrl_c_ends_in_one_line_and_leaves_no_file(server: Server, page: object) -> None:
    (folder,) = server.temporary.glob("segment-demo-*")
    # Of a dozen photos the last one's files are kept.
    assert len([one for one in folder.iterdir() if one.name != "gradio"]) == 1
    server.process.send_signal(signal.SIGINT)
    rest, _ = server.process.communicate(timeout=60)
    assert rest.splitlines()[-1] == "stopped: the page is closed and its files are deleted"
    assert len(rest.splitlines()) == 1, rest
    assert server.process.returncode == 130
    assert list(server.temporary.glob("segment-demo-*")) == []


def test_without_gradio_the_extra_is_named(
    noisy_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"not installed; pip install 'segment\[demo\]'\.$"):
        main(["--run", str(noisy_run)])


def test_a_taken_port_is_told_and_so_is_who_may_come_in(
    noisy_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # so that both are as they were afterwards
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"--port {port}: cannot listen there"):
            main(["--run", str(noisy_run), "--port", str(port)])

    def waits() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segment.demo._wait", waits)
    port = free_port()
    with pytest.raises(SystemExit) as ended:
        main(["--run", str(noisy_run), "--port", str(port), "--host", "0.0.0.0", "--crf", "null"])
    assert ended.value.code == 130
    told, opened, stopped = capsys.readouterr().out.splitlines()
    assert told.startswith(f"Anyone who can reach this machine at 0.0.0.0:{port} can use the page")
    assert opened.startswith("Open http://")
    assert stopped.startswith("stopped: ")
