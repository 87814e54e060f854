"""Files of score records."""

import csv
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_metaqap import ScoreRecord
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.inference.choices import Order
from modeling_metaqap.inference.record_files import holds_records, open_records, read_records, read_run

RUN = {"weights": "abc"}
FORMATS = pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])


def record(index, **values):
    return ScoreRecord(path=f'{index}, \n "photo".jpg', quality=0.1 * index, width=3, height=4, **values)


@FORMATS
def test_what_fails_between_records_is_not_taken_for_a_failure_to_write(tmp_path, suffix):
    with pytest.raises(OSError, match="the photograph is gone"):
        with open_records(tmp_path / f"records{suffix}", run=RUN) as file:
            file.write(record(1))
            raise OSError("the photograph is gone")
    with open_records(tmp_path / f"records{suffix}", run=RUN, resume=True) as file:
        assert list(file.records()) == [record(1)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_full_disk_is_a_sentence_that_names_the_file(suffix, tmp_path):
    full = tmp_path / f"records{suffix}"
    full.symlink_to("/dev/full")
    with pytest.raises(MetaQAPError, match=f"Cannot write {full}: no space left on device"):
        with open_records(full) as file:
            file.write(record(1))


@FORMATS
def test_a_disk_that_is_full_in_the_middle_of_a_row_leaves_whole_rows(suffix, tmp_path, monkeypatch):
    output = tmp_path / f"records{suffix}"
    with pytest.raises(MetaQAPError, match="no space left on device"):
        with open_records(output, run=RUN) as file:
            file.write(record(1))
            real = file._file

            class Full:
                def write(self, data):
                    if len(data) > 20:
                        return real.write(data[:20])
                    raise OSError(28, os.strerror(28))

                def __getattr__(self, name):
                    return getattr(real, name)

            file._file = Full()
            file.write(record(2))
    rows = output if suffix != ".parquet" else output.with_name(f"{output.name}.part")
    assert rows.read_bytes().endswith(b"\n")
    with open_records(output, run=RUN, resume=True) as file:
        assert list(file.records()) == [record(1)]


@FORMATS
@pytest.mark.parametrize("order", list(Order))
def test_the_finished_file_is_sorted_and_has_all_rows(suffix, order, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_metaqap.inference.record_files.ROW_GROUP", 2)
    records = [record(index) for index in (3, 1, 2, 5, 4)] + [ScoreRecord(path="0 broken", error="damaged")]
    with open_records(tmp_path / f"records{suffix}", run=RUN) as file:
        for one in records:
            file.write(one)
        file.finish(order)
    expected = {
        Order.input: records,
        Order.worst: [*sorted(records[:-1], key=lambda one: one.quality), records[-1]],
        Order.best: [*sorted(records[:-1], key=lambda one: -one.quality), records[-1]],
        Order.path: sorted(records, key=lambda one: one.path),
    }
    with open_records(tmp_path / f"records{suffix}", run=RUN, resume=True) as file:
        assert list(file.records()) == expected[order]
        assert file.failed == 1
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        file.finish()
        assert parquet.ParquetFile(tmp_path / "records.parquet").num_row_groups == 3


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_wherever_a_row_is_torn_the_whole_ones_before_it_are_kept(suffix, tmp_path):
    output = tmp_path / f"records{suffix}"
    with open_records(output, run=RUN) as file:
        for index in range(3):
            file.write(record(index))
    whole = output.read_bytes()
    with open_records(output, run=RUN, resume=True) as file:
        begins = [row.begin for row in file.rows()]
    for cut in range(begins[2], len(whole)):
        output.write_bytes(whole[:cut])
        with open_records(output, run=RUN, resume=True) as file:
            assert len(file.done) == 2, cut
            file.write(record(2))
        assert output.read_bytes() == whole


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_that_was_changed_by_something_else_is_one_sentence(suffix, tmp_path):
    output = tmp_path / f"records{suffix}"
    with open_records(output, run=RUN) as file:
        for index in range(3):
            file.write(ScoreRecord(path=f"{index}.jpg"))
    lines = output.read_bytes().split(b"\n")
    output.write_bytes(b"\n".join([*lines[:2], b"something else", *lines[2:]]))
    with pytest.raises(MetaQAPError, match="is damaged"):
        with open_records(output, run=RUN, resume=True):
            pass


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=30).filter(lambda name: 0 not in name), st.text(min_size=1))),
    st.sampled_from([".csv", ".jsonl"]),
)
@settings(max_examples=60, deadline=None)
def test_any_names_and_messages_come_back_as_they_were(rows, suffix):
    records = [ScoreRecord(path=os.fsdecode(name), error=error) for name, error in rows]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / f"records{suffix}"
        with open_records(output, run=RUN) as file:
            for one in records:
                file.write(one)
        with open_records(output, run=RUN, resume=True) as file:
            assert list(file.records()) == records


@FORMATS
def test_a_disk_that_is_full_at_the_end_keeps_all_rows_and_leaves_no_half_file(suffix, tmp_path, monkeypatch):
    output = tmp_path / f"records{suffix}"

    def full(descriptor):
        raise OSError(28, os.strerror(28))

    with pytest.raises(MetaQAPError, match="no space left on device"):
        with open_records(output, run=RUN) as file:
            for index in (2, 1):
                file.write(record(index))
            monkeypatch.setattr(os, "fsync", full)
            file.finish(Order.worst)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*.tmp"))
    with open_records(output, run=RUN, resume=True) as file:
        assert sorted(file.done) == sorted(record(index).path for index in (1, 2))
        file.finish(Order.worst)
        assert output.exists()


def test_formulas_are_harmless_in_csv_and_numbers_stay_numbers(tmp_path):
    names = ["=cmd|'calc'!A1.jpg", "+1.jpg", "-1.jpg", "@a.jpg", "\ta.jpg", "\ra.jpg", "'a.jpg", "a.jpg"]
    with open_records(tmp_path / "records.csv", run=RUN) as file:
        for name in names:
            file.write(ScoreRecord(path=name, quality=-0.25, error=None))
    with (tmp_path / "records.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["path"] for row in rows] == [*(f"'{name}" for name in names[:-1]), "a.jpg"]
    assert {row["quality"] for row in rows} == {"-0.25"}
    with open_records(tmp_path / "records.csv", run=RUN, resume=True) as file:
        assert [one.path for one in file.records()] == names


@FORMATS
def test_finished_records_are_read_again_with_what_they_were_made_with(tmp_path, suffix):
    path = tmp_path / f"records{suffix}"
    records = [record(1, warning="=1+1"), record(2), ScoreRecord(path="caf\udce9.jpg", error="it is broken")]
    with open_records(path, run=RUN) as file:
        for one in records:
            file.write(one)
        file.finish()
    assert list(read_records(path)) == records
    assert read_run(path) == RUN
    with open_records(path, run=RUN | {"scale": "1 to 5"}) as file:
        file.write(record(1))
        file.finish()
    assert [one.scale for one in read_records(path)] == [(1.0, 5.0)]
    assert holds_records(str(path)) and not holds_records(str(tmp_path / f"absent{suffix}"))


@FORMATS
def test_a_scale_that_is_not_known_any_more_is_said_and_a_wrong_one_is_refused(tmp_path, suffix):
    path = tmp_path / f"records{suffix}"
    with open_records(path) as file:
        for one in (replace(record(1), quality=4.2), ScoreRecord(path="a.jpg", error="it is broken")):
            file.write(one)
        file.finish()
    assert [one.scale for one in read_records(path, scale=(1.0, 5.0))] == [(1.0, 5.0)] * 2
    assert [one.scale for one in read_records(path, run={"scale": "0 to 10"})] == [(0.0, 10.0)] * 2
    for scale, title in (((0.0, 1.0), "0 to 1"), ((10.0, 20.0), "10 to 20")):
        message = f"has the score 4.2, which cannot be on the scale from {title}; say with `scale` which one it is on"
        with pytest.raises(MetaQAPError, match=message):
            list(read_records(path, scale=scale))


def test_other_files_hold_no_records(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [b"photo"]}), tmp_path / "photos.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    assert not any(holds_records(str(path)) for path in tmp_path.iterdir())
    (tmp_path / "ratings.csv").write_text("file_name,mos\na.jpg,3\n")
    with pytest.raises(MetaQAPError, match=r"ratings.csv holds no results of `metaqap score`: its columns are others"):
        list(read_records(tmp_path / "ratings.csv"))
    with open_records(tmp_path / "records.csv") as file:
        file.write(record(1))
    (tmp_path / "records.csv").write_bytes((tmp_path / "records.csv").read_bytes().replace(b",0.1,", b",nan,"))
    with pytest.raises(MetaQAPError, match=r"records.csv is damaged: a number is not finite"):
        list(read_records(tmp_path / "records.csv"))
    with pytest.raises(MetaQAPError, match=r"photos.parquet is damaged: a row has other columns"):
        list(read_records(tmp_path / "photos.parquet"))


@FORMATS
@pytest.mark.parametrize("resume", [False, True])
def test_only_one_at_a_time_writes_an_output(tmp_path, suffix, resume):
    output = tmp_path / f"records{suffix}"
    with open_records(output, run=RUN) as file:
        file.write(record(1))
        with pytest.raises(MetaQAPError, match="Another process is writing .*; wait until it has ended, or write to"):
            with open_records(output, run=RUN, resume=resume):
                pass
        file.write(record(2))
    with open_records(output, run=RUN, resume=True) as file:
        assert list(file.records()) == [record(1), record(2)]
        assert (tmp_path / f".records{suffix}.lock").exists()
    assert not (tmp_path / f".records{suffix}.lock").exists()


def test_a_run_that_is_begun_anew_leaves_no_old_description(tmp_path):
    output = tmp_path / "records.csv"
    with open_records(output, run=RUN) as file:
        file.write(record(1))
    with open_records(output, run={"weights": "other"}):
        pass
    with open_records(output, run={"weights": "other"}, resume=True) as file:
        assert file.done == set()
