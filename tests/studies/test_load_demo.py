"""The demo under load: what was committed of it."""

import json

import pytest

load_demo = pytest.importorskip("load_demo", reason="needs gradio_client and psutil")


def test_answers_were_right_hostile_requests_refused_and_memory_did_not_grow():
    results = json.loads(load_demo.OUTPUT.read_text())
    assert (results["wrong_answers"], results["hostile_requests_not_refused"]) == (0, 0)
    assert results["requests"] >= 256 and results["hostile_requests"] > 0
    memory = [one["server_mb"] for one in results["after_each_round"]]
    assert memory[-1] < 1.1 * memory[0] and max(memory) < 2000


def test_files_that_must_be_refused_are_refused_by_their_headers(tmp_path):
    from modeling_metaqap.decoding_metaqap import UnreadableImage
    from modeling_metaqap.inference.decoding import Seen, read_as_seen

    for path in load_demo.write_hostile(tmp_path):
        with pytest.raises(UnreadableImage):
            read_as_seen(path, Seen(max_pixels=120_000_000))
