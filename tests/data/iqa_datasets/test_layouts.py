"""What is peculiar to one data set each."""

import shutil
import statistics
from pathlib import Path

import datasets
import numpy as np
import pytest
import scipy.io
from iqa_fixtures import LAYOUTS, replace, write_csv, write_image, write_xlsx

from modeling_metaqap.data.iqa_datasets import load_iqa_dataset
from modeling_metaqap.errors import DataError


@pytest.fixture
def source(tmp_path):
    """Writes a data set's fixture and returns its folder."""

    def write(name: str) -> Path:
        root = tmp_path / name
        root.mkdir()
        LAYOUTS[name][0](root)
        return root

    return write


@pytest.fixture
def rows(tmp_path):
    """Loads rows by image id."""

    def load(name: str, root: Path, split: str = "all", **options: object) -> dict[str, dict[str, object]]:
        options = {"allow_partial": True, "cache_dir": tmp_path / "cache"} | options
        return {row["image_id"]: row for row in load_iqa_dataset(name, split=split, data_dir=root, **options)}

    return load


def test_livec_leaves_the_practice_images_out(source, rows):
    loaded = rows("livec", source("livec"))

    assert "3.bmp" in loaded
    assert not any(name.startswith("t") for name in loaded)
    # The eighth of nineteen scores evenly spaced from 5 to 92, and of deviations from 10 to 28.
    assert loaded["3.bmp"]["mos"] == pytest.approx(5 + 87 * 7 / 18)
    assert loaded["3.bmp"]["mos_std"] == pytest.approx(10 + 18 * 7 / 18)
    assert loaded["3.bmp"]["quality"] == pytest.approx(loaded["3.bmp"]["mos"] / 100)


def test_livec_refuses_labels_of_different_length(source, rows):
    root = source("livec")
    scipy.io.savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.ones((1, 5))})

    with pytest.raises(DataError, match="19 of AllImages_release, 5 of AllMOS_release, 19 of AllStdDev_release"):
        rows("livec", root)


def test_livec_refuses_a_file_without_the_variable(source, rows):
    root = source("livec")
    shutil.copy(root / "Data" / "AllStdDev_release.mat", root / "Data" / "AllMOS_release.mat")

    with pytest.raises(DataError, match=r"AllMOS_release\.mat has no variable 'AllMOS_release'"):
        rows("livec", root)


def test_koniq10k_takes_scores_from_0_to_100_and_the_official_split(source, rows):
    root = source("koniq10k")
    first = rows("koniq10k", root, "train")["10004473376.jpg"]

    assert first["mos"] == 78.08
    assert first["quality"] == pytest.approx(0.7808)
    # The published deviation, 0.527, belongs to ratings of 1 to 5, four of whose steps make 100.
    assert first["mos_std"] == pytest.approx(25 * statistics.stdev([3] * 25 + [4] * 73 + [5] * 7))
    assert set(rows("koniq10k", root, "test")) == {f"{10004473376 + i}.jpg" for i in (10, 11, 12)}
    assert len(rows("koniq10k", root, "validation")) == 2


def test_koniq10k_reads_the_smaller_images_on_request_only(source, rows):
    root = source("koniq10k")
    (root / "1024x768").rename(root / "512x384")

    with pytest.raises(DataError, match="1024x768 does not exist; .* resolution='512x384'"):
        rows("koniq10k", root)
    assert len(rows("koniq10k", root, resolution="512x384")) == 13


def test_koniq10k_refuses_an_unknown_set(source, rows):
    root = source("koniq10k")
    replace(root / "koniq10k_distributions_sets.csv", "validation", "dev")

    with pytest.raises(DataError, match=r"'10004473384\.jpg' in .* belongs to the unknown set 'dev'"):
        rows("koniq10k", root)


def test_flive_takes_the_split_from_the_two_other_files(source, rows):
    root = source("flive")

    assert set(rows("flive", root, "test")) == {"voc_emotic_ava/AVA__954182.jpg", "voc_emotic_ava/AVA__871768.JPG"}
    assert set(rows("flive", root, "validation")) == {
        "blur_dataset/motion0044.jpg",
        "blur_dataset/out_of_focus0059.jpg",
    }
    assert len(rows("flive", root, "train")) == 8


def test_flive_refuses_a_split_that_names_unknown_images(source, rows):
    root = source("flive")
    replace(root / "database" / "labels640.csv", "AVA__954182", "AVA__1")

    with pytest.raises(DataError, match=r"1 images of the official split, such as 'voc_emotic_ava/AVA__1\.jpg'"):
        rows("flive", root)


def test_kadid10k_is_better_the_higher_although_it_is_called_dmos(source, rows):
    loaded = rows("kadid10k", source("kadid10k"))

    assert loaded["I01_01_01.png"]["quality"] == pytest.approx((4.25 - 1) / 4)
    assert loaded["I01_01_05.png"]["quality"] == pytest.approx((1.25 - 1) / 4)
    assert loaded["I01_01_01.png"]["mos_std"] == 0.496
    assert loaded["I01_01_01.png"]["reference_id"] == "I01.png"


def test_tid2013_forgives_the_case_of_names(source, rows):
    loaded = rows("tid2013", source("tid2013"))

    assert loaded["I01_01_1.bmp"]["mos"] == pytest.approx(5.41429)
    assert loaded["I01_01_1.bmp"]["quality"] == pytest.approx(5.41429 / 9)
    assert loaded["I01_01_1.bmp"]["mos_std"] == 0.13013
    assert loaded["i09_24_1.bmp"]["reference_id"] == "I09"
    assert loaded["I25_24_1.bmp"]["image"].size == (24, 16)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("mos_std.txt", "0.13013", "", r"do not match: 20 of mos_with_names\.txt, 19 of mos_std\.txt"),
        ("mos_with_names.txt", "5.41429 ", "", r"'I01_01_1\.bmp' in .*mos_with_names\.txt is not a score and a name"),
        ("mos_with_names.txt", "5.41429", "5,41429", r"'I01_01_1\.bmp' in .* is '5,41429', not a number"),
    ],
)
def test_tid2013_refuses_damaged_lists(source, rows, file, old, new, message):
    root = source("tid2013")
    (root / file).write_text((root / file).read_text().replace(old, new, 1))

    with pytest.raises(DataError, match=message):
        rows("tid2013", root)


def test_csiq_reads_numeric_names_and_turns_dmos_round(source, rows):
    loaded = rows("csiq", source("csiq"))
    row = loaded["1600.AWGN.1.png"]

    assert (row["mos"], row["mos_std"], row["reference_id"]) == (0.062, 0.05, "1600")
    assert row["quality"] == pytest.approx(1 - 0.062)
    assert {"boston.jpeg2000.1.png", "boston.contrast.1.png"} <= set(loaded)


def test_csiq_refuses_an_unknown_distortion(source, rows):
    root = source("csiq")
    header = ("image", "dst_type", "dst_lev", "dmos_std", "dmos")
    write_xlsx(root / "csiq.DMOS.xlsx", {"all": [header, ("1600", "smear", 1, 0.1, 0.1)]})

    with pytest.raises(DataError, match="unknown distortion 'smear'"):
        rows("csiq", root)


def test_live_leaves_the_copies_of_pristine_images_out_and_turns_dmos_round(source, rows):
    loaded = rows("live", source("live"))
    worst = loaded["fastfading/img4.bmp"]

    assert set(loaded) == {
        f"{folder}/img{i}.bmp" for folder in ("jp2k", "jpeg", "wn", "gblur", "fastfading") for i in (1, 2, 3, 4)
    }
    assert loaded["jp2k/img1.bmp"]["mos"] == pytest.approx(-2.6)
    assert loaded["jp2k/img1.bmp"]["quality"] == pytest.approx(1 - 2.4 / 120)
    assert worst["quality"] == pytest.approx(1 - (worst["mos"] + 5) / 120)


def test_cid2013_takes_the_realigned_scores(source, rows):
    row = rows("cid2013", source("cid2013"))["IS_III_C05_D02.jpg"]

    assert row["mos"] == 10 * 5 - 8 * 2
    assert row["quality"] == pytest.approx((row["mos"] + 10) / 110)
    assert row["reference_id"] == "C05"


def test_cid2013_without_scores_by_image_is_refused(source, rows):
    root = source("cid2013")
    write_xlsx(root / "CID2013 data - version 12112014.xlsx", {"Observers": [("Age", "MOS"), (27, 3)]})

    with pytest.raises(DataError, match=r"no \.xlsx file .* looked in CID2013 data - version 12112014\.xlsx"):
        rows("cid2013", root)


class TestFolder:
    """A user's own images."""

    def test_columns_are_recognised_in_any_case_and_subfolders_are_read(self, source, rows):
        loaded = rows("folder", source("folder"))

        assert loaded["holiday/photo 1.png"]["quality"] == pytest.approx(1 / 12)

    def test_thirty_splits_do_not_show_thirty_bars(self, source, rows, capfd):
        datasets.enable_progress_bars()  # whatever was tested before
        rows("folder", source("folder"))

        assert "Generating" not in capfd.readouterr().err
        assert not datasets.are_progress_bars_disabled()

    def test_columns_scale_and_direction_can_be_named(self, tmp_path, rows):
        write_image(tmp_path / "a.png")
        write_image(tmp_path / "b.png")
        labels = write_csv(
            tmp_path / "elsewhere" / "x.csv", ("photo", "badness", "sd"), [("a.png", 2, 0.5), ("b.png", 5, "")]
        )
        options = {"csv": labels, "image_column": "photo", "mos_column": "badness"}

        loaded = rows("folder", tmp_path, mos_range=(1, 5), lower_is_better=True, **options)

        assert {name: row["quality"] for name, row in loaded.items()} == {"a.png": 0.75, "b.png": 0.0}
        assert (loaded["a.png"]["mos_std"], loaded["b.png"]["mos_std"]) == (0.5, None)

    def test_a_split_column_is_the_official_split(self, tmp_path, rows):
        for name in "abcde":
            write_image(tmp_path / f"{name}.png")
        parts = ("training", "Train", "val", "test", "test")
        table = [(f"{name}.png", 0.5, part, "x") for name, part in zip("abcde", parts, strict=True)]
        write_csv(tmp_path / "labels.csv", ("image", "score", "split", "reference"), table)

        assert set(rows("folder", tmp_path, "train")) == {"a.png", "b.png"}
        assert set(rows("folder", tmp_path, "validation")) == {"c.png"}
        assert set(rows("folder", tmp_path, "test")) == {"d.png", "e.png"}
        assert set(rows("folder", tmp_path, "all")) == {f"{name}.png" for name in "abcde"}

    def test_a_folder_may_have_nothing_but_test_images(self, tmp_path, rows):
        write_image(tmp_path / "a.png")
        write_csv(tmp_path / "labels.csv", ("image", "mos", "split"), [("a.png", 0.5, "test")])

        assert set(rows("folder", tmp_path, "all")) == {"a.png"}
        with pytest.raises(DataError, match="has no images in the split 'train'"):
            rows("folder", tmp_path, "train")

    def test_images_of_one_content_stay_together(self, tmp_path, rows):
        table = []
        for i in range(20):
            write_image(tmp_path / f"{i}.png")
            table.append((f"{i}.png", 0.5, f"scene {i // 4}"))
        write_csv(tmp_path / "labels.csv", ("image", "mos", "reference_id"), table)

        train, test = rows("folder", tmp_path, "train_full_3"), rows("folder", tmp_path, "test_3")

        assert (len(train), len(test)) == (16, 4)
        assert len({row["reference_id"] for row in test.values()}) == 1

    def test_an_edited_csv_elsewhere_is_read_anew(self, tmp_path, rows):
        write_image(tmp_path / "images" / "a.png")
        labels = write_csv(tmp_path / "labels.csv", ("image", "mos"), [("a.png", 0.25)])
        before = rows("folder", tmp_path / "images", csv=labels)["a.png"]["mos"]
        replace(labels, "0.25", "0.75")

        assert (before, rows("folder", tmp_path / "images", csv=labels)["a.png"]["mos"]) == (0.25, 0.75)

    @pytest.mark.parametrize(
        ("change", "options", "message"),
        [
            (
                lambda root: (root / "scores.csv").unlink(),
                {},
                "must hold one CSV file .found: none.; name the one with the scores with `csv`",
            ),
            (lambda root: write_csv(root / "b.csv", ("a",), []), {}, r"found: b\.csv, scores\.csv"),
            (lambda root: None, {"csv": "x.csv"}, r"label file .*x\.csv does not exist"),
            (
                lambda root: None,
                {"mos_column": "stars"},
                "no column 'stars'; choose `mos_column` from File_Name, MOS",
            ),
            (
                lambda root: replace(root / "scores.csv", "MOS", "stars"),
                {},
                "has none of the columns mos, .*; choose `mos_column` from File_Name, stars",
            ),
            (lambda root: (root / "scores.csv").write_text(""), {}, r"scores\.csv has no rows"),
            (
                lambda root: replace(root / "scores.csv", "0.75", "4"),
                {},
                r"scores\.csv run from 0 to 4; say with `mos_range` which lowest and .* such as `mos_range` 0 5",
            ),
            (lambda root: None, {"mos_range": (0, 0.5)}, "run from 0 to 0.916667, outside of the range 0 to 0.5"),
            (lambda root: None, {"mos_range": (5, 1)}, "`mos_range` must be the lowest and the highest score"),
            (lambda root: None, {"mos_range": "1,5"}, "two numbers such as 1 and 5, not '1,5'"),
            (lambda root: replace(root / "scores.csv", "photo 2.png", "gone.png"), {}, r"gone\.png .* does not exist"),
            (
                lambda root: replace(root / "scores.csv", "File_Name,MOS", "File_Name,MOS,split"),
                {},
                r"puts 'photo 0\.jpg' into the split ''; use train, validation or test",
            ),
        ],
    )
    def test_mistakes_are_one_clear_error(self, source, rows, change, options, message):
        root = source("folder")
        change(root)

        with pytest.raises(DataError, match=message):
            rows("folder", root, **options)

    def test_the_folder_must_be_given(self):
        with pytest.raises(DataError, match="needs `data_dir`"):
            load_iqa_dataset("folder", split="all")
