"""The Space as it is published, under load: many clients at once, huge images and bombs, within bounded memory."""

import shutil
import struct
import subprocess
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from repository import EXAMPLES, ROOT
from space_server import running

from modeling_metaqap.inference.scorer import Scorer

pytest.importorskip("gradio", reason="the demo needs Gradio: pip install -e '.[space]'")
gradio_client = pytest.importorskip("gradio_client")
psutil = pytest.importorskip("psutil", reason="the memory of the demo is read with psutil: pip install psutil")

pytestmark = pytest.mark.slow

GIB = 2**30


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A running copy of what `make space` writes, outside the repository."""
    if shutil.which("make") is None:
        pytest.skip("the Space is put together by make: apt-get install make")
    subprocess.run(["make", "--silent", "space"], cwd=ROOT, check=True)
    folder = tmp_path_factory.mktemp("space") / "space"
    shutil.move(ROOT / "build" / "space", folder)
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    # All sixteen clients have one address here, so the limits of one client are out of the way.
    limits = {"METAQAP_CLIENT_RATE": "100000", "METAQAP_CLIENT_WAITING": "1000"}
    with running([str(folder / "app.py")], log=folder.parent / "log", **limits) as server:
        yield server


@pytest.fixture
def peak_memory(space):
    """Most resident bytes of the server so far, by the kernel's own count."""

    def peak():
        for line in Path(f"/proc/{space.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        return psutil.Process(space.pid).memory_info().rss

    return peak


@pytest.fixture(scope="module")
def client(space):
    return connect(space)


@pytest.fixture(scope="module")
def quality():
    paths = sorted(EXAMPLES.glob("*.jpg"))
    records = Scorer(device="cpu").score(paths)
    return {path.name: record.quality for path, record in zip(paths, records, strict=True)}


def connect(space):
    # On a busy machine the default of 5 seconds is less than a queue of 64 takes to answer.
    return gradio_client.Client(space.url, verbose=False, httpx_kwargs={"timeout": 300})


def ask(client, path):
    return client.predict(photo=gradio_client.handle_file(str(path)), api_name="/score")


def assert_alive(client, quality):
    assert ask(client, EXAMPLES / "coffee.jpg")["quality"] == pytest.approx(quality["coffee.jpg"], abs=1e-4)


def test_64_requests_of_16_clients_at_once_are_all_answered_right(space, quality, peak_memory):
    names = sorted(quality)
    with ThreadPoolExecutor(16) as pool:
        clients = list(pool.map(lambda _: connect(space), range(16)))
        start = time.monotonic()
        jobs = [
            (names[(4 * number + turn) % len(names)], client.submit)
            for number, client in enumerate(clients)
            for turn in range(4)
        ]
        waiting = [
            (name, submit(photo=gradio_client.handle_file(str(EXAMPLES / name)), api_name="/score"))
            for name, submit in jobs
        ]
        answers = [(name, job.result(timeout=550)["quality"]) for name, job in waiting]
    assert len(answers) == 64
    assert [answer for _, answer in answers] == pytest.approx([quality[name] for name, _ in answers], abs=1e-4)
    print(f"64 answers in {time.monotonic() - start:.1f} s, peak memory {peak_memory() / GIB:.2f} GiB")
    assert peak_memory() < 3e9


def test_every_function_answers_through_the_api(client, quality, tmp_path):
    coffee, blurred = (gradio_client.handle_file(str(EXAMPLES / f"coffee{end}.jpg")) for end in ("", "_blurred"))
    assert client.predict(left=coffee, right=blurred, api_name="/compare")["left_is_better"] > 0.9
    image, curve = client.predict(photo=coffee, distortion="jpeg_compression", level=5, api_name="/distort")
    assert curve["quality"][0] == pytest.approx(quality["coffee.jpg"], abs=1e-4)
    assert curve["quality"][5] < curve["quality"][0]
    path = image if isinstance(image, str) else image["path"]
    assert Image.open(path).size == (600, 400)
    path = client.predict(photo=coffee, api_name="/quality_map")
    assert Image.open(path if isinstance(path, str) else path["path"]).size == (600, 400)
    rows, file = client.predict(files=[coffee, blurred], api_name="/batch")
    assert [row["quality"] for row in rows] == pytest.approx(
        [quality["coffee.jpg"], quality["coffee_blurred.jpg"]], abs=1e-4
    )
    assert len(Path(file).read_text().splitlines()) == 3


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_100_megapixels_are_scored_within_the_memory(client, quality, peak_memory, tmp_path, suffix):
    photograph = Image.open(EXAMPLES / "coffee.jpg")
    path = tmp_path / f"large.{suffix}"
    photograph.resize((12_250, 8_167), Image.Resampling.BILINEAR).save(path, compress_level=1)
    scores = ask(client, path)
    assert scores["width"] * scores["height"] > 100e6
    # Enlarged twentyfold and shrunk again: the picture is what the model sees of an enlarged one.
    [expected] = Scorer(device="cpu").score([photograph.resize((768, 512), Image.Resampling.BICUBIC)])
    assert scores["quality"] == pytest.approx(expected.quality, abs=0.1)
    assert_alive(client, quality)
    print(f"peak memory after 100 megapixels of {suffix}: {peak_memory() / GIB:.2f} GiB")
    assert peak_memory() < 3e9


def test_a_decompression_bomb_is_refused_with_a_sentence(client, quality, peak_memory, tmp_path):
    # 60,000 x 60,000 black pixels in a few kilobytes, by the header; decoding would take 10 GB.
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000_000), 9)
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    before = peak_memory()
    with pytest.raises(Exception, match=r"bomb\.png cannot be scored: it has more pixels than the limit of"):
        ask(client, bomb)
    assert peak_memory() - before < 100e6
    assert_alive(client, quality)


def test_what_is_no_image_is_refused_with_a_sentence(client, quality, tmp_path):
    (tmp_path / "notes.jpg").write_text("not an image")
    with pytest.raises(
        Exception,
        match=r"notes\.jpg cannot be scored: not an image, or of a format that is not read; save it as JPEG or PNG",
    ):
        ask(client, tmp_path / "notes.jpg")
    assert_alive(client, quality)


def test_an_endless_strip_is_refused_before_it_costs_anything(client, quality, tmp_path):
    Image.fromarray(np.zeros((8, 60_000), dtype=np.uint8)).save(tmp_path / "strip.png")
    with pytest.raises(Exception, match="too long and narrow"):
        ask(client, tmp_path / "strip.png")
    assert_alive(client, quality)
