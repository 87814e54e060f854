"""Files of score records."""

import pytest

from modeling_metaqap import ScoreRecord
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.inference.record_files import record_writer


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_what_fails_between_records_is_not_taken_for_a_failure_to_write(tmp_path, suffix):
    with pytest.raises(OSError, match="the photograph is gone"):
        with record_writer(tmp_path / f"records{suffix}") as write:
            write(ScoreRecord(path="a.jpg", quality=0.5))
            raise OSError("the photograph is gone")
    assert (tmp_path / f"records{suffix}").stat().st_size > 0


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_full_disk_is_a_sentence_that_names_the_file(suffix, tmp_path, monkeypatch):
    full = tmp_path / f"records{suffix}"
    full.symlink_to("/dev/full")
    with pytest.raises(MetaQAPError, match=f"Cannot write {full}: no space left on device"):
        with record_writer(full) as write:
            write(ScoreRecord(path="a.jpg", quality=0.5))
