"""Images are decoded in processes that may die."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
from corpus import photograph
from PIL import Image

from modeling_metaqap.decoding_metaqap import UnreadableImage
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.inference import isolation
from modeling_metaqap.inference.decoding import Seen, read_as_seen
from modeling_metaqap.inference.isolation import IsolatedDecoder

SEEN = Seen(shortest_edge=48, crop_size=48)

# What a hostile file would do, by its name; the worker's Python runs this before it begins.
SABOTAGE = """
import os, sys
if "modeling_metaqap.inference.decoding_worker" in " ".join(sys.orig_argv):
    import modeling_metaqap.decoding_metaqap as decoding
    load = decoding.to_rgb
    def to_rgb(image, **options):
        name = os.path.basename(getattr(image, "filename", ""))
        if "crash" in name:
            os.kill(os.getpid(), 11)
        while "loop" in name:
            pass
        if "gigabytes" in name:
            bytearray(16 << 30)
        return load(image, **options)
    decoding.to_rgb = to_rgb
"""


@pytest.fixture
def sabotaged(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def decoder():
    return IsolatedDecoder(seconds=1)


def test_an_isolated_decoder_gives_the_same_pixels_and_the_same_reasons(tmp_path, decoder, monkeypatch):
    path = tmp_path / os.fsdecode(b"caf\xe9 \n.png")
    photograph(90, 60).save(path)
    expected, found = read_as_seen(path, SEEN), decoder.read(path, SEEN)
    assert found[1:] == expected[1:]
    np.testing.assert_array_equal(np.asarray(found.pixels), np.asarray(expected.pixels))
    path.write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match="not an image"):
        decoder.read(path, SEEN)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    photograph(90, 60).save(path)
    with pytest.raises(UnreadableImage, match="more pixels than the limit of 2,000"):
        decoder.read(path, SEEN)
    assert decoder._idle.qsize() == len(decoder._all) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash.png", "its decoder crashed"),
        ("loop.png", "longer to decode than the limit of 1 s"),
        ("gigabytes.png", "more memory than there is"),
    ],
)
def test_a_file_that_ends_its_process_gets_an_error_and_the_next_one_is_read(
    tmp_path, sabotaged, decoder, name, reason
):
    photograph().save(tmp_path / name)
    photograph().save(tmp_path / "good.png")
    with pytest.raises(UnreadableImage, match=reason):
        decoder.read(tmp_path / name, SEEN)
    assert decoder.read(tmp_path / "good.png", SEEN).pixels.size == (72, 48)
    assert len(decoder._all) == 1


def test_processes_end_with_their_decoder(tmp_path):
    decoder = IsolatedDecoder()
    photograph().save(tmp_path / "a.png")
    decoder.read(tmp_path / "a.png", SEEN)
    [worker] = decoder._all
    del decoder
    assert worker.process.wait(timeout=10) == -signal.SIGKILL


def test_a_process_ends_when_the_program_is_killed(tmp_path):
    decoder = IsolatedDecoder()
    photograph().save(tmp_path / "a.png")
    decoder.read(tmp_path / "a.png", SEEN)
    [worker] = decoder._all
    worker._input.close()  # as the kernel does
    deadline = time.monotonic() + 10
    while worker.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker.process.poll() == 0


def test_a_decoder_that_the_system_ended_says_so_and_the_next_image_is_read(tmp_path, decoder):
    photograph().save(tmp_path / "a.png")
    decoder.read(tmp_path / "a.png", SEEN)
    [worker] = decoder._all
    worker.process.kill()
    worker.process.wait()
    with pytest.raises(UnreadableImage, match="ended by the system, mostly for want of memory"):
        decoder.read(tmp_path / "a.png", SEEN)
    assert decoder.read(tmp_path / "a.png", SEEN).width == 96


def test_a_decoder_that_does_not_start_is_a_mistake_of_the_machine_and_not_of_the_image(tmp_path, monkeypatch):
    monkeypatch.setattr(isolation.sys, "executable", shutil.which("false"))
    decoder = IsolatedDecoder()
    with pytest.raises(MetaQAPError, match="does not start; leave out --isolate"):
        decoder.read(tmp_path / "a.png", SEEN)


def test_ctrl_c_is_no_fault_of_the_image(tmp_path, decoder, monkeypatch):
    photograph().save(tmp_path / "a.png")
    decoder.read(tmp_path / "a.png", SEEN)
    [worker] = decoder._all

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "ask", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decoder.read(tmp_path / "a.png", SEEN)
    assert worker.process.poll() is not None and decoder._all == set()
