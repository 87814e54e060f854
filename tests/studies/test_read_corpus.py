"""All odd files in one run: each ends in a score or a sentence."""

import json

import pytest
from corpus import SCORE, write_corpus
from repository import ROOT

read_corpus = pytest.importorskip("read_corpus")


@pytest.mark.slow
def test_every_odd_file_ends_in_a_score_or_a_sentence_in_one_run(tmp_path):
    (tmp_path / "files").mkdir()
    written = write_corpus(tmp_path / "files", changed=2)
    read_corpus.write_checkpoint(tmp_path / "checkpoint", crop_size=512)
    run = read_corpus.score(written, tmp_path / "checkpoint", tmp_path / "scores.jsonl")
    assert run["status"] == 1
    # Standard error is the command's own: nothing of Pillow, libtiff or a traceback.
    failed = sum(map(bool, run["outcomes"].values()))
    assert [line.split()[0] for line in run["stderr"].splitlines()] == ["Wrote", str(failed)]
    assert len(run["outcomes"]) == len(written)
    for case, path in written:
        error = run["outcomes"][str(path)]
        if case.outcome == SCORE:
            assert error is None, case.name
        elif case.outcome is not None:
            assert error is not None and case.outcome in error, case.name


def test_the_table_in_the_documents_is_made_of_the_committed_outcomes():
    results = json.loads((ROOT / "studies/results/corpus.json").read_text())
    page = (ROOT / "docs/concepts/images.md").read_text()
    assert page == read_corpus.with_table(page, results)
    assert results["files"] > 400
    assert results["slowest_decoding_seconds"] < 10 and results["largest_memory_of_a_process_mb"] < 1500
