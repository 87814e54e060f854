"""What the running demo reads: uploads, and nothing else that lies on the server or elsewhere."""

import asyncio
import json
import os
import shutil
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio", reason="the demo needs Gradio: pip install -e '.[space]'")
import gradio as gr
import httpx
from gradio.data_classes import FileData, ListFiles
from gradio.utils import get_upload_folder

from modeling_metaqap import MetaQAPConfig, MetaQAPModel, Scorer
from modeling_metaqap.demo.app import build_app, launch_options
from modeling_metaqap.demo.assessment import Assessor
from modeling_metaqap.demo.uploads import uploaded_files_field
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """Address of a running demo's API."""
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    torch.manual_seed(0)
    save_checkpoint(MetaQAPModel(MetaQAPConfig(base_learners=["test_resnet"])), folder)
    examples = tmp_path_factory.mktemp("examples")
    for name in ("one", "one_crushed"):
        Image.radial_gradient("L").save(examples / f"{name}.png")
    app = build_app(Assessor(Scorer(folder, device="cpu")), examples=examples)
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **launch_options())
    yield f"{url}gradio_api"
    app.close()


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A picture on the server that nobody uploaded."""
    path = tmp_path_factory.mktemp("private") / "secret.png"
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def call(api, name, *arguments):
    """What the API answers: the kind of its last event, and the text of all of them."""
    event = httpx.post(f"{api}/call/{name}", json={"data": list(arguments)}, timeout=60)
    if event.status_code != 200:
        return "error", event.text
    text = httpx.get(f"{api}/call/{name}/{event.json()['event_id']}", timeout=60).text
    events = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    return events[-1], text


def marked(path):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


FUNCTIONS = {
    "score": lambda file: [file],
    "quality_map": lambda file: [file],
    "compare": lambda file: [file, file],
    "distort": lambda file: [file, "gaussian_blur", 0],
    "batch": lambda file: [[file]],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("file", [lambda path: {"path": str(path)}, marked], ids=["bare", "marked as a file"])
def test_a_picture_that_nobody_uploaded_is_not_read(api, private, name, file):
    kind, text = call(api, name, *FUNCTIONS[name](file(private)))
    assert kind == "error"
    assert '"quality"' not in text and "image/" not in text


def test_an_answer_does_not_tell_which_files_there_are(api, private):
    there, absent = (call(api, "score", {"path": str(path)}) for path in (private, private.with_name("absent.png")))
    assert there == absent


def test_a_link_in_the_upload_folder_does_not_lead_out_of_it(api, private):
    link = os.path.join(get_upload_folder(), "metaqap-test-link.png")
    os.makedirs(get_upload_folder(), exist_ok=True)
    os.symlink(private, link)
    try:
        assert call(api, "score", {"path": link})[0] == "error"
    finally:
        os.unlink(link)


def test_a_named_pipe_is_refused_and_blocks_nobody(api, tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert call(api, "score", {"path": str(pipe)})[0] == "error"


def test_a_web_address_is_not_fetched(api):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/photo.png"
        for file in ({"path": url}, marked(url), {"url": url}, {"path": url, "url": url}):
            kind, text = call(api, "score", file)
            assert kind == "error" and '"quality"' not in text
        assert call(api, "batch", [marked(url)])[0] == "error"
        server.shutdown()
    assert asked == []


@pytest.fixture
def field():
    return uploaded_files_field("Files", file_types=[".csv", "image"], elem_id="files")


def test_a_field_of_many_files_takes_uploads_only_too(field, private):
    with pytest.raises(gr.Error, match="Upload the photograph"):
        field.preprocess(ListFiles([FileData(path=str(private), orig_name="a.png")]))
    with pytest.raises(gr.Error, match="Upload the photograph"):
        asyncio.run(field.async_move_resource_to_block_cache(str(private)))
    assert not field.preprocess(None) and not field.preprocess(ListFiles([]))


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("R&B #1.csv", "R&B #1.csv"),
        ("../../etc/passwd", "passwd"),
        (r"C:\secret\a.csv", "a.csv"),
        (None, "kept.csv"),
        ("..", "kept.csv"),
        ("a\0.csv", "kept.csv"),
        ("a" * 300, "kept.csv"),
    ],
)
def test_a_file_is_called_as_the_visitor_calls_it_but_never_leads_elsewhere(field, called, name):
    folder = Path(get_upload_folder(), "metaqap-test")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "kept.csv"
    path.touch()
    try:
        [upload] = field.preprocess(ListFiles([FileData(path=str(path), orig_name=called)]))
    finally:
        shutil.rmtree(folder)
    assert (upload.name, upload.path) == (name, path.resolve())


def test_an_upload_is_scored(api, private):
    with private.open("rb") as file:
        [path] = httpx.post(f"{api}/upload", files={"files": ("photo.png", file, "image/png")}, timeout=60).json()
    kind, text = call(api, "score", marked(path))
    assert kind == "complete"
    [record] = json.loads(text.split("data: ")[-1].splitlines()[0])
    assert isinstance(record["quality"], float) and record["width"] == 64


def test_the_description_of_the_page_and_of_the_api_gives_no_path_away(api):
    for address in (f"{api}/info", api.replace("gradio_api", "config"), api.replace("gradio_api", "")):
        text = httpx.get(address, timeout=60).raise_for_status().text
        assert "one, crushed" in text or address.endswith("info")
        assert tempfile.gettempdir() not in text and str(Path.cwd()) not in text, address
