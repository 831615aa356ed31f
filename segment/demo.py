"""A page in the browser to try a model: a photo, its labels raw and refined, the CRF's sliders.

python -m segment.demo --run RUN
python -m segment.demo --run RUN --crf RUN/crf/val/crf.yaml --port 8000

The network sees each photo once; a slider refines its answer again. Needs Gradio, which
`pip install 'segment[demo]'` brings. Photos stay on this machine: they lie in a temporary folder
until an hour has passed or the program ends.
"""

import html
import ipaddress
import os
import shutil
import signal
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonargparse
import numpy as np
import pandas as pd
from jsonargparse.typing import PositiveFloat

from segment.answer import (
    SLIDERS,
    Answer,
    areas_table,
    ask,
    classes_of,
    moved,
    range_of,
    to_device,
)
from segment.arguments import add_init_args, add_run, named_run
from segment.cli_errors import SegmentParser, user_errors
from segment.crf import DenseCRF
from segment.data.photos import read_photo
from segment.data.taxonomy import Taxonomy
from segment.interrupt import stopped
from segment.modules.base import SegmentationModule
from segment.modules.loading import load_checkpoint
from segment.prediction import overlay, write_image
from segment.runs import checkpoint_of, read_config
from segment.scoring import write_labels

SESSIONS = 8  # visitors whose last photo is kept in memory; the oldest one's is dropped
KEPT_S = 3600  # seconds that files of a page are kept


def _arguments() -> jsonargparse.ArgumentParser:
    parser = SegmentParser(prog="python -m segment.demo", description=__doc__)
    add_run(parser)
    parser.add_argument(
        "--crf", type=DenseCRF | None, sub_configs=True, help="Where sliders start. Default: run's."
    )
    add_init_args(parser)
    parser.add_argument("--device", type=str | None, help="cpu, cuda, mps; null: the fastest.")
    parser.add_argument(
        "--host", type=str, default="127.0.0.1", help="0.0.0.0 lets other machines in."
    )
    parser.add_argument("--port", type=int, default=7860, help="Of the page.")
    parser.add_argument(
        "--max_upload_mb", type=PositiveFloat, default=25.0, help="Largest file, 10^6 bytes."
    )
    parser.add_argument(
        "--max_megapixels", type=PositiveFloat, default=50.0, help="Largest photo, 10^6 pixels."
    )
    return parser


@dataclass(frozen=True, eq=False)
class Held:
    """What a visitor's page goes on from: the last photo, and a folder for its files."""

    answer: Answer
    name: str
    folder: Path


class Trial:
    """What the page does, without the page.

    Args:
        module: In evaluation mode.
        taxonomy: Its classes.
        crf: Where sliders start.
        folder: For files of visitors.
        max_pixels: Of a photo.
    """

    def __init__(
        self,
        module: SegmentationModule,
        taxonomy: Taxonomy,
        crf: DenseCRF,
        folder: Path,
        max_pixels: int,
    ) -> None:
        self.module, self.taxonomy, self.crf = module, taxonomy, crf
        self.folder, self.max_pixels = folder, max_pixels
        self.colors = np.array(taxonomy.colors, np.uint8)

    def upload(self, path: str, *values: float) -> tuple[Any, ...]:
        """A new photo: what `refine` returns, in front of it what is held and an empty upload."""
        file = Path(path)
        try:
            answer = ask(self.module, read_photo(file, self.max_pixels), self.crf)
        except (ValueError, RuntimeError, MemoryError) as error:
            said = str(error) or "the photo needs more memory than there is; make it smaller."
            return (None, None, *self._nothing(said.replace(str(file), file.name)))
        held = Held(answer, file.name, Path(tempfile.mkdtemp(dir=self.folder)))
        # Whoever lets go of it: the visitor's next photo, an hour, or visitors after him.
        weakref.finalize(held, shutil.rmtree, held.folder, ignore_errors=True)
        write_image(
            held.folder / f"{file.stem}.raw.jpg", overlay(answer.image, answer.raw, self.colors)
        )
        return (held, None, *self.refine(held, *values))

    def refine(self, held: Held | None, *values: float) -> tuple[Any, ...]:
        """A sentence, raw overlay, refined overlay, table, and the files to download."""
        if held is None:
            return self._nothing("Upload a photo first; one of an hour ago is not kept.")
        stem = Path(held.name).stem
        try:
            names = [slider.field for slider in SLIDERS]
            ids = held.answer.refined(moved(self.crf, dict(zip(names, values, strict=True))))
        except (ValueError, RuntimeError, MemoryError) as error:
            return self._nothing(str(error) or "the CRF needs more memory than there is.")
        mask, picture = (held.folder / f"{stem}{end}" for end in (".png", ".overlay.jpg"))
        write_labels(mask, ids)
        write_image(picture, overlay(held.answer.image, ids, self.colors))
        height, width = ids.shape
        changed = (ids != held.answer.raw).mean()
        said = f"{held.name}, {width}x{height}: the CRF changed {changed:.1%} of the labels."
        table = table_html(self.taxonomy, areas_table(self.taxonomy, held.answer.raw, ids))
        raw = held.folder / f"{stem}.raw.jpg"
        return said, str(raw), str(picture), table, str(mask), str(picture)

    def _nothing(self, said: str) -> tuple[Any, ...]:
        return said, None, None, "", None, None


def table_html(taxonomy: Taxonomy, areas: pd.DataFrame) -> str:
    """The areas of a photo as HTML, which is also the legend; names are shown as they are."""
    rows = []
    for index, row in areas.iterrows():
        color = "#{:02x}{:02x}{:02x}".format(*taxonomy.colors[int(str(index))])
        cells = [f"{row['raw %']:.1f}", f"{row['refined %']:.1f}", f"{row['pixels']:,}"]
        chip = f"<span style='background:{color};border:1px solid #888'>&emsp;</span>"
        numbers = "".join(f"<td style='text-align:right'>{cell}</td>" for cell in cells)
        rows.append(f"<tr><td>{chip} {html.escape(row['class'])}</td>{numbers}</tr>")
    heads = "".join(f"<th>{head}</th>" for head in ("class", "raw, %", "refined, %", "pixels"))
    return f"<table id='areas'><tr>{heads}</tr>{''.join(rows)}</table>"


def page_of(gr: ModuleType, trial: Trial, title: str) -> Any:
    """The page, not yet served: Gradio's Blocks."""
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, KEPT_S)) as page:
        gr.HTML(f"<h1>{html.escape(title)}</h1>")
        held = gr.State(None, time_to_live=KEPT_S)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                photo = gr.File(label="Photo", file_types=["image"], height=140, elem_id="photo")
                said = gr.Textbox(
                    "Upload a photo.", show_label=False, interactive=False, elem_id="said", lines=2
                )
                moving = []
                for slider in SLIDERS:
                    low, high, value = range_of(slider, trial.crf)
                    step = {"step": slider.step, "elem_id": slider.field}
                    moving.append(gr.Slider(low, high, value, label=slider.label, **step))
                reset = gr.Button("Back to the start values", size="sm", elem_id="reset")
            with gr.Column(scale=3):
                with gr.Row():
                    raw, refined = (
                        gr.Image(
                            label=word, interactive=False, buttons=["fullscreen"], elem_id=word
                        )
                        for word in ("raw", "refined")
                    )
                with gr.Row():
                    mask = gr.DownloadButton("Download mask (PNG of train ids)", elem_id="mask")
                    picture = gr.DownloadButton("Download overlay (JPEG)", elem_id="overlay")
                table = gr.HTML()
        shown = [said, raw, refined, table, mask, picture]
        private = {"api_visibility": "private"}
        photo.upload(trial.upload, [photo, *moving], [held, photo, *shown], **private)
        gr.on(
            [slider.change for slider in moving],
            trial.refine,
            [held, *moving],
            shown,
            trigger_mode="always_last",
            show_progress="minimal",
            **private,
        )
        starts = [getattr(trial.crf, slider.field) for slider in SLIDERS]
        reset.click(lambda: starts, None, moving, **private)
    return page.queue(default_concurrency_limit=1, max_size=50, api_open=False)


def main(args: Sequence[str]) -> None:
    """Run the verb with its command line."""
    parser = _arguments()
    run = named_run(args)
    if run is not None:  # the run's own CRF is the default
        parser.set_defaults(crf=read_config(run).get("crf"))
    config = parser.parse_args(list(args))
    crf: DenseCRF = parser.instantiate(config).crf or DenseCRF()
    with tempfile.TemporaryDirectory(prefix="segment-demo-") as folder:
        gr = _gradio(Path(folder) / "gradio")
        checkpoint = checkpoint_of(Path(config.run), config.checkpoint)
        module = load_checkpoint(checkpoint, config.init_args)
        to_device(module, config.device)
        taxonomy = classes_of(module, checkpoint)
        crf.check_fits(taxonomy.num_classes, 1, 1)
        # The folder goes also with a service that is stopped.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        trial = Trial(module, taxonomy, crf, Path(folder), int(1e6 * config.max_megapixels))
        page = page_of(gr, trial, f"{Path(config.run).resolve().parent.name}: try a photo")
        try:
            _serve(page, config.host, config.port, int(1e6 * config.max_upload_mb))
        except KeyboardInterrupt as interrupt:
            stopped(interrupt, "the page is closed and its files are deleted")
        finally:
            page.close(verbose=False)


def _gradio(folder: Path) -> ModuleType:
    """Gradio, without telemetry, and with its files in a folder of ours."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        import gradio
    except ImportError as error:
        raise ValueError(
            "segment.demo: Gradio is not installed; pip install 'segment[demo]'."
        ) from error
    return gradio


def _serve(page: Any, host: str, port: int, max_bytes: int) -> None:
    """Serve until Ctrl-C."""
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=max_bytes,
            state_session_capacity=SESSIONS,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
        )
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port}: cannot listen there; is the port taken?"
        ) from error
    if not _is_loopback(host):
        print(f"Anyone who can reach this machine at {host}:{port} can use the page: no password.")
    print(f"Open {url} (Ctrl-C ends it)", flush=True)
    _wait()


def _wait() -> None:
    threading.Event().wait()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    user_errors(lambda: main(sys.argv[1:]))
