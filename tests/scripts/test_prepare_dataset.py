"""Preparing a data set as Parquet, from the command line."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import datasets
import huggingface_hub
import pytest
from iqa_fixtures import LAYOUTS  # noqa: E402
from repository import ROOT

from modeling_metaqap.data.iqa_datasets import FEATURES, load_iqa_dataset, load_training_split
from modeling_metaqap.errors import DataError, TestSplitError

SCRIPT = ROOT / "scripts" / "prepare_dataset.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_dataset", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def prepare(script, tmp_path, monkeypatch):
    """Runs the script on a data set's fixture and returns the folder it wrote."""

    def run(name: str, *arguments: str) -> Path:
        source, output = tmp_path / name, tmp_path / "output" / name
        if not source.exists():
            source.mkdir()
            LAYOUTS[name][0](source)
        options = () if name == "folder" else ("--option", "allow_partial=true")
        command = [
            name,
            "--data_dir",
            str(source),
            "--output_dir",
            str(output),
            "--cache_dir",
            str(tmp_path / "cache"),
        ]
        monkeypatch.setattr(sys, "argv", ["prepare_dataset", *command, *options, *arguments])
        script.main()
        return output

    return run


def undecoded(dataset: datasets.Dataset | datasets.IterableDataset) -> list[dict[str, object]]:
    """Rows with the images' files as they are."""
    rows = list(dataset.cast_column("image", datasets.Image(decode=False)))
    return [row | {"image": row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()} for row in rows]


def assert_same_rows(left: datasets.Dataset, right: datasets.Dataset | datasets.IterableDataset) -> None:
    assert len(left) > 0
    assert undecoded(left) == undecoded(right)


@pytest.mark.parametrize("name", ["biq2021", "koniq10k", "kadid10k", "folder"])
def test_parquet_and_streaming_give_the_rows_of_the_publishers_files(prepare, tmp_path, name):
    output = prepare(name)

    for split in ("train", "validation", "test"):
        options = {} if name == "folder" else {"allow_partial": True}
        original = load_iqa_dataset(
            name, split=split, data_dir=tmp_path / name, cache_dir=tmp_path / "cache", **options
        )
        files = str(output / "data" / f"{split}-*.parquet")
        plain = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "plain"))
        streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        by_data_folder = datasets.load_dataset(
            "parquet", data_dir=str(output / "data"), split=split, cache_dir=str(tmp_path / "plain")
        )
        by_folder = datasets.load_dataset(str(output), split=split, cache_dir=str(tmp_path / "plain"))
        assert plain.features == streamed.features == FEATURES
        assert_same_rows(original, plain)
        assert_same_rows(original, by_data_folder)
        assert_same_rows(original, by_folder)
        assert_same_rows(original, streamed)


@pytest.mark.parametrize("name", ["biq2021", "livec"])
@pytest.mark.parametrize("split", ["test", "train_full", "all", "train[2:5]+validation", "test[-2:]", "train[:50%]"])
def test_the_prepared_folder_stands_for_the_publishers_files(prepare, tmp_path, name, split):
    output = prepare(name)
    original = load_iqa_dataset(
        name, split=split, data_dir=tmp_path / name, cache_dir=tmp_path / "cache", allow_partial=True
    )

    assert_same_rows(original, load_iqa_dataset(name, split=split, data_dir=output, cache_dir=tmp_path / "cache"))


def test_numbered_splits_survive_in_the_same_order(prepare, tmp_path):
    output = prepare("tid2013")

    for split in ("train_7", "validation_7", "test_7", "train_full_3"):
        expected = load_iqa_dataset(
            "tid2013", split=split, data_dir=tmp_path / "tid2013", cache_dir=tmp_path / "cache", allow_partial=True
        )
        prepared = load_iqa_dataset("tid2013", split=split, data_dir=output, cache_dir=tmp_path / "cache")
        assert prepared["image_id"][:] == expected["image_id"][:]


def test_images_come_upright_from_parquet_as_well(prepare, tmp_path):
    dataset = load_iqa_dataset("biq2021", split="train_full", data_dir=prepare("biq2021"), cache_dir=tmp_path)

    assert {row["image_id"]: row["image"].size for row in dataset}["ss01 (3).jpg"] == (16, 24)


def test_the_prepared_test_split_is_out_of_reach_of_training_too(prepare):
    with pytest.raises(TestSplitError):
        load_training_split("biq2021", split="test", data_dir=prepare("biq2021"))


def test_large_data_sets_are_cut_into_shards(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_metaqap.data.iqa_datasets.prepare._SHARD_BYTES", 5_000)
    monkeypatch.setattr("modeling_metaqap.data.iqa_datasets.prepare._ROW_GROUP_BYTES", 2_000)

    output = prepare("kadid10k")

    names = [path.name for path in sorted((output / "data").glob("train-*"))]
    assert len(names) > 2
    assert names == [f"train-{i:05d}-of-{len(names):05d}.parquet" for i in range(len(names))]
    original = load_iqa_dataset(
        "kadid10k", split="all", data_dir=tmp_path / "kadid10k", cache_dir=tmp_path / "cache", allow_partial=True
    )
    assert_same_rows(original, load_iqa_dataset("kadid10k", split="all", data_dir=output, cache_dir=tmp_path / "c"))


def test_the_card_says_what_the_data_are(prepare):
    official, seeded = (prepare(name) / "README.md" for name in ("biq2021", "csiq"))
    card = huggingface_hub.DatasetCard.load(official)

    assert card.data.pretty_name == "BIQ2021"
    assert card.data.configs[0]["data_files"][2] == {"split": "test", "path": "data/test-*.parquet"}
    for text in ("not stated by the publisher", "in [0, 1], higher is better", "ahmed2022biq2021", "18 train, 2 val"):
        assert text in card.text
    assert "SHA-256 of `biq2021/validation/0`" in card.text
    assert "in [0, 1], lower is better" in seeded.read_text()
    assert "SHA-256 of `csiq/test/NUMBER`" in seeded.read_text()


def test_a_folder_with_something_in_it_is_left_alone(prepare, tmp_path, capsys):
    precious = tmp_path / "output" / "biq2021" / "precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")

    with pytest.raises(SystemExit) as raised:
        prepare("biq2021")

    assert raised.value.code == 2
    assert "is not empty; choose another folder" in capsys.readouterr().err
    assert precious.read_text() == "mine"


def test_damage_leaves_no_output(prepare, tmp_path, capsys):
    source = tmp_path / "biq2021"
    source.mkdir()
    LAYOUTS["biq2021"][0](source)
    (source / "Images" / "ss03 (1).jpg").unlink()

    with pytest.raises(SystemExit) as raised:
        prepare("biq2021")

    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert raised.value.code == 2
    assert error.startswith("prepare_dataset: BIQ2021: the image ") and error.endswith("does not exist.")
    assert not list((tmp_path / "output").glob("*"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "colour=red",
            "folder has no option 'colour'; its options are allow_partial, csv, image_column, lower_is_better",
        ),
        ("mos_range=[5,1]", "--mos_range must be the lowest and the highest score"),
        ("mos_range=1,5", "--mos_range must be the lowest and the highest score .* such as 1 and 5, not '1,5'"),
    ],
)
def test_wrong_options_are_one_sentence(prepare, capsys, option, message):
    with pytest.raises(SystemExit) as raised:
        prepare("folder", "--option", option)

    assert raised.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_options_reach_the_builder(prepare, tmp_path):
    output = prepare("folder", "--mos_range", "-1", "1", "--lower_is_better")

    row = load_iqa_dataset("folder", split="all", data_dir=output, cache_dir=tmp_path / "cache")[0]
    assert row["quality"] == pytest.approx(1 - (row["mos"] + 1) / 2)


def test_another_data_sets_folder_is_refused(prepare):
    with pytest.raises(DataError, match="holds the data set 'livec', not 'spaq'"):
        load_iqa_dataset("spaq", split="test", data_dir=prepare("livec"))


def test_a_damaged_prepared_folder_is_one_clear_error(prepare, tmp_path):
    output = prepare("livec")
    ids = json.loads((output / "splits.json").read_text())
    ids["splits"]["test_0"].append("x.bmp")
    (output / "splits.json").write_text(json.dumps(ids))
    with pytest.raises(DataError, match=r"lacks 1 images of 'test', such as 'x\.bmp'"):
        load_iqa_dataset("livec", split="test", data_dir=output, cache_dir=tmp_path / "cache")

    (output / "splits.json").write_text("{")
    with pytest.raises(DataError, match=r"splits\.json is damaged"):
        load_iqa_dataset("livec", split="test", data_dir=output, cache_dir=tmp_path / "cache")


def test_uploads_are_private_unless_asked_otherwise(prepare, monkeypatch, capsys):
    calls = []

    class Api:
        def create_repo(self, repository: str, **options: object) -> str:
            calls.append(("create", repository, options))
            return f"https://hub.example/datasets/{repository}"

        def upload_folder(self, **options: object) -> None:
            assert (options["folder_path"] / "README.md").is_file()
            calls.append(("upload", options["repo_id"], options["repo_type"]))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)

    prepare("livec", "--push_to_hub", "me/livec")
    prepare("spaq", "--push_to_hub", "me/spaq", "--public")

    assert [call[2]["private"] for call in calls if call[0] == "create"] == [True, False]
    assert calls[1] == ("upload", "me/livec", "dataset")
    assert "Uploaded to https://hub.example/datasets/me/livec" in capsys.readouterr().out


def test_the_script_says_what_it_wrote_and_how_long_it_took(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    LAYOUTS["folder"][0](source)
    command = [sys.executable, str(SCRIPT), "folder", "--data_dir", str(source), "--output_dir", str(tmp_path / "out")]

    done = subprocess.run(
        [*command, "--cache_dir", str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])},
    )

    assert done.returncode == 0, done.stderr
    assert "Wrote 9 train, 1 validation, 2 test images" in done.stdout
    assert "GB of memory" in done.stdout


def test_where_the_system_does_not_tell_the_memory_it_is_left_out(prepare, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    prepare("folder")
    assert re.search(r"Wrote 9 train, 1 validation, 2 test images to \S+ in \d+ s\.\n", capsys.readouterr().out)


def test_an_unknown_name_is_refused_with_the_known_ones(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prepare_dataset", "imagenet", "--output_dir", "x"])

    with pytest.raises(SystemExit) as raised:
        script.main()

    assert raised.value.code == 2
    assert "koniq10k" in capsys.readouterr().err
