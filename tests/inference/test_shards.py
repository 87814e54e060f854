"""A folder of shards: complete, nothing twice, continued after anything."""

import json
import os

import pytest

from modeling_metaqap import ScoreRecord
from modeling_metaqap.data.image_units import ImageUnit, split_into_units
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.inference import shards
from modeling_metaqap.inference.shards import (
    ShardTask,
    Tally,
    begin_shards,
    begin_try,
    check_folder,
    count_rows,
    end_tries,
    names_in,
    open_tasks,
    score_task,
)

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

RUN = {"weights": "abc", "engine": "auto"}
PLACES = [f"{index:02}.jpg" for index in range(20)]


class Killed(Exception):
    pass


@pytest.fixture
def folder(tmp_path):
    begin_shards(tmp_path / "scores", run=RUN, resume=False)
    return tmp_path / "scores"


@pytest.fixture(autouse=True)
def small_units_and_shards(monkeypatch):
    monkeypatch.setattr("modeling_metaqap.data.image_units._SMALLEST", 8)
    monkeypatch.setattr(shards, "SHARD_ROWS", 3)


def score(folder, task, *, die_at=None, seen=None):
    def records(skip):
        for place in task.unit.places:
            if place in skip:
                continue
            if place == die_at:
                raise Killed
            if seen is not None:
                seen.append(place)
            yield ScoreRecord(path=place, quality=0.5, error="broken" if place == "03.jpg" else None)

    return score_task(folder, task, records)


def table(folder):
    return pd.read_parquet(folder)


def test_units_become_one_table_in_the_order_of_the_places(folder):
    tasks = open_tasks(folder, split_into_units(PLACES))
    tallies = [score(folder, task) for task in reversed(tasks)]
    assert sum(tally.rows for tally in tallies) == 20 and sum(tally.failed for tally in tallies) == 1
    assert list(table(folder).path) == PLACES
    assert count_rows(folder) == Tally(20, 1)
    assert open_tasks(folder, split_into_units(PLACES)) == []


def test_datasets_reads_the_folder_as_one_table(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    for task in open_tasks(folder, split_into_units(PLACES)):
        score(folder, task)
    begin_try(folder, ShardTask(9, ImageUnit(("a.jpg",))))
    read = datasets.load_dataset("parquet", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(read["path"]) == PLACES


@pytest.mark.parametrize("die_at", ["00.jpg", "02.jpg", "03.jpg", "04.jpg", "07.jpg"])
def test_a_unit_whose_process_died_is_continued_behind_its_whole_shards(folder, die_at):
    task = open_tasks(folder, split_into_units(PLACES))[0]
    with pytest.raises(Killed):
        score(folder, task, die_at=die_at)
    kept = count_rows(folder).rows
    assert kept % 3 == 0 and kept >= PLACES.index(die_at) - 3
    [again, *_] = open_tasks(folder, split_into_units(PLACES))
    assert again == task
    seen = []
    assert score(folder, again, seen=seen).rows == 8 - kept
    assert seen == PLACES[kept:8]
    assert list(table(folder).path) == PLACES[:8]
    assert score(folder, task) == Tally()  # a second process that was given the same unit


def test_a_process_that_was_believed_dead_writes_the_same_shards(folder):
    task = open_tasks(folder, split_into_units(PLACES))[0]

    def interrupted(skip):
        for index, place in enumerate(task.unit.places):
            if index == 4:  # meanwhile another process is given the unit and does all of it
                score(folder, task)
            yield ScoreRecord(path=place, quality=0.5)

    score_task(folder, task, interrupted)
    assert list(table(folder).path) == PLACES[:8]


def test_photographs_that_were_added_are_scored_and_no_other_one_again(folder):
    for task in open_tasks(folder, split_into_units(PLACES))[:2]:
        score(folder, task)
    more = ["00 new.jpg", *PLACES[:10], "09 new.jpg", *PLACES[10:]]
    begin_shards(folder, run=RUN, resume=True)
    seen = []
    for task in open_tasks(folder, split_into_units(more)):
        score(folder, task, seen=seen)
    assert sorted(seen) == ["00 new.jpg", "09 new.jpg", *PLACES[16:]]
    assert sorted(table(folder).path) == sorted(more)
    assert open_tasks(folder, split_into_units(more)) == []


def test_rows_of_an_archive_that_is_cut_in_another_way_are_not_scored_again(tmp_path, folder):
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"")
    part = ShardTask(0, ImageUnit((str(archive),), range(0, 2)))
    names = [f"{archive}::trip/{index}::b.jpg" for index in range(2)]
    score_task(folder, part, lambda skip: [ScoreRecord(path=name) for name in names])
    [task] = open_tasks(folder, [ImageUnit((str(archive),))])
    assert sorted(task.skip) == names


def test_names_may_hold_any_bytes(folder):
    task = ShardTask(3, ImageUnit((os.fsdecode(b"caf\xe9.jpg"), "file:x.jpg")), skip=("\udcff",))
    assert ShardTask.from_json(task.to_json()) == task
    score(folder, task)
    [shard] = folder.glob("*.parquet")
    assert list(names_in(shard)) == list(task.unit.places)
    spanned = ShardTask(3, ImageUnit(("a.zip",), range(4, 9)))
    assert ShardTask.from_json(spanned.to_json()) == spanned


def test_shards_of_another_run_are_refused_with_the_sentence_of_files(folder):
    score(folder, open_tasks(folder, split_into_units(PLACES))[0])
    with pytest.raises(
        MetaQAPError, match=r"cannot be continued: it was made with the weights abc, and now it is def"
    ):
        begin_shards(folder, run=RUN | {"weights": "def"}, resume=True)
    assert json.loads((folder.parent / "scores.run.json").read_text()) == RUN
    (folder.parent / "scores.run.json").unlink()
    with pytest.raises(MetaQAPError, match=r"no scores\.run\.json that says"):
        begin_shards(folder, run=RUN, resume=True)
    begin_shards(folder, run=RUN | {"weights": "def"}, resume=False)
    assert list(folder.iterdir()) == []


def test_what_a_kill_left_is_tidied_up_and_no_other_file(folder):
    task = open_tasks(folder, split_into_units(PLACES))[0]
    begin_try(folder, task)
    (folder / f".{task.name}-00000-0a1b2c3d.parquet").write_bytes(b"half")
    (folder / ".nfs0001").write_bytes(b"")
    score(folder, task)
    begin_shards(folder, run=RUN, resume=True)
    assert [path.name for path in folder.glob(".*")] == [".nfs0001"]
    assert count_rows(folder).rows == 8


def test_tries_are_counted_until_a_unit_is_finished(folder):
    one, other = open_tasks(folder, split_into_units(PLACES))[:2]
    assert [begin_try(folder, one), begin_try(folder, one), begin_try(folder, other)] == [1, 2, 1]
    end_tries(folder, one)
    assert begin_try(folder, one) == 1


def test_a_full_disk_is_a_sentence_and_leaves_no_half_shard(folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MetaQAPError, match="no space left on device"):
        score(folder, open_tasks(folder, split_into_units(PLACES))[0])
    assert list(folder.iterdir()) == []


def test_a_damaged_shard_is_one_sentence(folder):
    task = open_tasks(folder, split_into_units(PLACES))[0]
    score(folder, task)
    shard = sorted(folder.iterdir())[0]
    shard.write_bytes(b"damaged")
    with pytest.raises(MetaQAPError, match="is damaged; delete it and continue with --resume"):
        count_rows(folder)


@pytest.mark.parametrize(
    ("prepare", "name", "message"),
    [
        (lambda path: None, "scores.csv", "name a folder, not"),
        (lambda path: path.write_text(""), "scores", "it is a file"),
        (lambda path: None, "nowhere/scores", "there is no folder"),
        (lambda path: (path.mkdir(), (path / "a.jpg").touch()), "scores", "holds other files, such as a.jpg"),
    ],
)
def test_a_folder_that_cannot_take_shards_is_refused_before_the_work(tmp_path, prepare, name, message):
    prepare(tmp_path / name)
    with pytest.raises(MetaQAPError, match=message):
        check_folder(tmp_path / name, replace=True)


def test_a_folder_with_scores_is_replaced_or_continued_on_request_only(folder):
    check_folder(folder, replace=False)
    score(folder, open_tasks(folder, split_into_units(PLACES))[0])
    check_folder(folder, replace=True)
    with pytest.raises(MetaQAPError, match="replace them with --overwrite, continue them with --resume"):
        check_folder(folder, replace=False)
