"""BIQ2021 in the layout of its repository, with its warts."""

import shutil
from pathlib import Path

import pytest
from iqa_fixtures import replace, truncate, write_biq2021

from modeling_metaqap.data.iqa_datasets import load_iqa_dataset
from modeling_metaqap.errors import DataError

TEST_CSV = "Test (Images and MOS).csv"
ROTATED = "ss01 (3).jpg"
MISSPELT = "ss02 (1014).jpg"


@pytest.fixture
def biq2021(tmp_path: Path) -> Path:
    root = tmp_path / "BIQ2021"
    write_biq2021(root)
    return root


@pytest.fixture
def load(biq2021: Path, tmp_path: Path):
    def load_split(split: str, **options):
        options = {"data_dir": biq2021, "cache_dir": tmp_path / "cache", "allow_partial": True} | options
        return load_iqa_dataset("biq2021", split=split, **options)

    return load_split


def test_the_official_split_is_kept_and_validation_is_cut_from_training(load):
    ids = {split: set(load(split)["image_id"]) for split in ("train", "validation", "test", "train_full", "all")}

    assert ids["test"] == {f"ss03 ({i}).jpg" for i in range(1, 5)}
    assert len(ids["validation"]) == 2
    assert not ids["train"] & ids["validation"]
    assert ids["train"] | ids["validation"] == ids["train_full"]
    assert len(ids["train_full"]) == 20
    assert ids["all"] == ids["train_full"] | ids["test"]


def test_the_validation_part_is_the_same_on_every_machine(load):
    # The names with the smallest SHA-256 of "biq2021/validation/0\n<name>", computed with sha256sum.
    assert set(load("validation")["image_id"]) == {"ss01 (13).jpg", "ss01 (15).jpg"}


def test_rows_follow_the_schema(load):
    row = load("test")[3]

    assert row.keys() == {"image", "image_id", "mos", "mos_std", "quality", "reference_id"}
    assert row["image_id"] == "ss03 (4).jpg"
    assert row["mos"] == row["quality"] == pytest.approx(0.9)
    assert row["mos_std"] is None
    assert row["reference_id"] is None
    assert row["image"].size == (24, 16)


def test_a_file_whose_case_differs_from_the_label_file_is_found(load):
    rows = {row["image_id"]: row for row in load("train_full")}

    assert rows[MISSPELT]["image"].convert("RGB").size == (24, 16)


def test_images_come_upright(load):
    rows = {row["image_id"]: row for row in load("train_full")}

    assert rows[ROTATED]["image"].size == (16, 24)


def test_images_are_never_re_encoded(load, biq2021):
    undecoded = load("test", decode=False)[0]["image"]

    assert Path(undecoded["path"]) == biq2021 / "Images" / "ss03 (1).jpg"


def test_the_folder_may_lie_inside_data_dir_as_in_the_archive(load, biq2021, tmp_path):
    shutil.move(biq2021, tmp_path / "unpacked" / "BIQ2021-main")

    assert len(load("test", data_dir=tmp_path / "unpacked")) == 4


def test_a_changed_label_file_is_read_anew(load, biq2021):
    before = load("test")["mos"][0]
    labels = biq2021 / TEST_CSV
    labels.write_text(labels.read_text().replace("0.0000", "0.5000"))

    assert (before, load("test")["mos"][0]) == (0.0, 0.5)


def test_an_incomplete_data_set_is_refused(load):
    with pytest.raises(DataError, match=r"BIQ2021 has 12000 images, but .* list 24"):
        load("train", allow_partial=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "Images" / ROTATED).unlink(), r"Images/ss01 \(3\)\.jpg is listed .* does not exist"),
        (lambda root: truncate(root / "Images" / ROTATED), r"Images/ss01 \(3\)\.jpg cannot be read: it is cut short"),
        (lambda root: (root / "Images" / ROTATED).write_bytes(b"<html>"), r"cannot be read: it is a web page"),
        (lambda root: (root / "Images" / ROTATED).write_bytes(b""), r"\(3\)\.jpg cannot be read: the file is empty"),
        (lambda root: (root / TEST_CSV).unlink(), r"'Test \(Images and MOS\)\.csv' not found in"),
        (
            lambda root: (root / TEST_CSV).write_text("name;score\n"),
            r"has no column 'Image Name' or 'MOS'; its columns are 'name', 's",
        ),
        (lambda root: replace(root / TEST_CSV, "0.3000", "good"), r"ss03 \(2\)\.jpg' in .* is 'good', not a number"),
        (lambda root: replace(root / TEST_CSV, "0.3000", "73.2"), r"ss03 \(2\)\.jpg' is 73\.2, outside"),
        (lambda root: replace(root / TEST_CSV, "0.3000", "nan"), r"ss03 \(2\)\.jpg' is nan, outside"),
        (lambda root: replace(root / TEST_CSV, ",0.3000", ""), r"ss03 \(2\)\.jpg' in .* is '', not a number"),
        (lambda root: replace(root / TEST_CSV, "ss03 (2)", "ss01 (1)"), r"'ss01 \(1\)\.jpg' is listed twice"),
    ],
)
def test_damage_is_one_clear_error_and_leaves_nothing_behind(load, biq2021, tmp_path, damage, message):
    damage(biq2021)

    with pytest.raises(DataError, match=message):
        load("train")

    assert not list((tmp_path / "cache").rglob("*.arrow*"))
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


def test_damage_is_noticed_although_the_data_set_was_cached_before(load, biq2021):
    load("test")
    truncate(biq2021 / "Images" / ROTATED)

    with pytest.raises(DataError, match="cannot be read"):
        load("test")


def test_a_folder_that_does_not_exist_is_named(load, tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        load("test", data_dir=tmp_path / "nowhere")
