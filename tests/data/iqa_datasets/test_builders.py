"""What holds for every builder, shown on tiny fixtures in the real layouts."""

import shutil
from pathlib import Path

import datasets
import pytest
from iqa_fixtures import LAYOUTS, live_reference, truncate

from modeling_metaqap.data.iqa_datasets import FEATURES, IQA_DATASETS, load_iqa_dataset, load_training_split
from modeling_metaqap.data.iqa_datasets.base import NUM_RANDOM_SPLITS, hashed_cut
from modeling_metaqap.errors import DataError, TestSplitError

OFFICIAL = ("biq2021", "flive", "koniq10k")
SEEDED = sorted(set(IQA_DATASETS) - set(OFFICIAL))
# Pristine image or scene of an image, by its name.
CONTENT = {
    "cid2013": lambda name: name.split("_")[2],
    "csiq": lambda name: name.split(".")[0],
    "kadid10k": lambda name: f"{name[:3]}.png",
    "live": lambda name: live_reference(name.split("/")[0], int(name.split("img")[1].removesuffix(".bmp"))),
    "tid2013": lambda name: name[:3].upper(),
}


class Loader:
    """Loads splits of a fixture."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def source(self, name: str) -> Path:
        root = self.folder / name
        if not root.exists():
            root.mkdir()
            LAYOUTS[name][0](root)
        return root

    def __call__(self, name: str, split: str, **options: object) -> datasets.Dataset:
        options = {"data_dir": self.source(name), "cache_dir": self.folder / "cache", "allow_partial": True} | options
        return load_iqa_dataset(name, split=split, **options)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    return Loader(tmp_path_factory.mktemp("layouts"))


def ids(dataset: datasets.Dataset) -> set[str]:
    assert len(set(dataset["image_id"])) == len(dataset)
    return set(dataset["image_id"])


@pytest.mark.parametrize("name", IQA_DATASETS)
def test_the_real_layout_is_read_into_the_one_schema(load, name):
    dataset = load(name, "all")

    assert dataset.features == FEATURES
    assert len(dataset) == LAYOUTS[name][1]
    assert all(0 <= quality <= 1 for quality in dataset["quality"])
    for row in dataset:
        assert sorted(row["image"].convert("RGB").size) == [16, 24]
        content = CONTENT[name](row["image_id"]) if name in CONTENT else None
        assert row["reference_id"] == content


@pytest.mark.parametrize("name", IQA_DATASETS)
def test_quality_follows_the_published_score_in_its_direction(load, name):
    dataset = load(name, "all")
    rows = sorted(zip(dataset["mos"], dataset["quality"], strict=True))
    qualities = [quality for _, quality in rows]

    assert rows[0][0] < rows[-1][0]
    assert qualities == sorted(qualities, reverse=name in {"csiq", "live"})


@pytest.mark.parametrize("name", IQA_DATASETS)
def test_facts_about_the_data_set_are_in_its_info(load, name):
    info = load(name, "all").info

    assert info.description
    assert info.license
    low, high = IQA_DATASETS[name].mos_range if name != "folder" else (0, 1)
    direction = "lower is better (DMOS)" if name in {"csiq", "live"} else "higher is better"
    assert f"[{low:g}, {high:g}], {direction}" in info.description
    if name != "folder":
        assert info.homepage.startswith("http")
        assert info.citation.startswith("@")


@pytest.mark.parametrize("name", OFFICIAL)
def test_no_image_crosses_an_official_split(load, name):
    train, validation, test = (ids(load(name, part)) for part in ("train", "validation", "test"))

    assert train and validation and test
    assert not train & validation and not train & test and not validation & test
    assert ids(load(name, "train_full")) == train | validation
    assert ids(load(name, "all")) == train | validation | test


@pytest.mark.parametrize("name", SEEDED)
def test_neither_image_nor_content_crosses_any_of_ten_seeded_splits(load, name):
    everything = ids(load(name, "all"))
    groups = {CONTENT[name](image_id) if name in CONTENT else image_id for image_id in everything}
    test_parts = []
    for number in range(NUM_RANDOM_SPLITS):
        parts = {part: load(name, f"{part}_{number}") for part in ("train", "validation", "test")}
        for key in ("image_id", "reference_id"):
            held = {part: {value for value in dataset[key] if value} for part, dataset in parts.items()}
            assert not held["train"] & held["validation"]
            assert not held["train"] & held["test"]
            assert not held["validation"] & held["test"]
        assert set.union(*(ids(dataset) for dataset in parts.values())) == everything
        assert all(len(dataset) for dataset in parts.values())
        assert ids(load(name, f"train_full_{number}")) == everything - ids(parts["test"])
        test_groups = {CONTENT[name](i) if name in CONTENT else i for i in parts["test"]["image_id"]}
        # The rule as it is documented, so that anybody can repeat it.
        assert test_groups == hashed_cut(groups, 0.2, key=f"{name}/test/{number}")
        assert len(test_groups) == round(0.2 * len(groups))
        test_parts.append(frozenset(ids(parts["test"])))
    assert len(set(test_parts)) > NUM_RANDOM_SPLITS // 2


@pytest.mark.parametrize("name", SEEDED)
def test_a_split_without_a_number_is_the_first(load, name):
    assert load(name, "test")["image_id"] == load(name, "test_0")["image_id"]
    assert load(name, "train[:3]")["image_id"] == load(name, "train_0")["image_id"][:3]


@pytest.mark.parametrize("name", IQA_DATASETS)
@pytest.mark.parametrize("split", ["test", "all", "train+test", "test[:1]", "validation + test", "test_0", "all_3"])
def test_training_code_cannot_get_test_images(name, split):
    # No data are needed: the name of the split alone is refused.
    with pytest.raises(TestSplitError, match="holds test images"):
        load_training_split(name, split=split)


def test_training_code_cannot_mix_splits_of_which_one_tests_the_other():
    with pytest.raises(TestSplitError, match="mixes differently numbered splits"):
        load_training_split("livec", split="train_0+validation_1")


@pytest.mark.parametrize("split", ["train", "validation", "train_full", "train[:5]", "train_0+validation_0"])
def test_training_code_gets_the_other_splits(load, split):
    options = {"data_dir": load.source("livec"), "cache_dir": load.folder / "cache", "allow_partial": True}

    dataset = load_training_split("livec", split=split, **options)

    assert ids(dataset)
    assert not ids(dataset) & ids(load("livec", "test"))


@pytest.mark.parametrize("name", sorted(set(IQA_DATASETS) - {"folder"}))
def test_an_incomplete_data_set_is_refused(load, name):
    published, found = IQA_DATASETS[name].num_images, LAYOUTS[name][1]

    with pytest.raises(DataError, match=f"has {published} images, but the label files in .* list {found};"):
        load(name, "test", allow_partial=False)


@pytest.mark.parametrize("name", sorted(set(IQA_DATASETS) - {"folder"}))
def test_the_published_size_is_accepted(load, name, monkeypatch):
    monkeypatch.setattr(IQA_DATASETS[name], "num_images", LAYOUTS[name][1])

    assert len(load(name, "all", allow_partial=False)) == LAYOUTS[name][1]


@pytest.mark.parametrize("name", IQA_DATASETS)
@pytest.mark.parametrize("damage", [Path.unlink, truncate])
def test_every_missing_or_truncated_file_is_one_clear_error(load, name, damage, tmp_path):
    source, root = load.source(name), tmp_path / name
    # A text that is cut off between two lines is still a text; the number of its lines gives it away.
    kinds = {".csv", ".txt", ".mat", ".xlsx"} if damage is Path.unlink else {".mat", ".xlsx"}
    labels = [path for path in source.rglob("*") if path.suffix in kinds]
    image = Path(load(name, "all", decode=False)[0]["image"]["path"])
    for victim in (*labels, image):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(source, root)
        damage(root / victim.relative_to(source))

        with pytest.raises(DataError) as raised:
            load(name, "test", data_dir=root, cache_dir=tmp_path / "cache")

        message = str(raised.value)
        # Where any name will do, the message names the kind of file.
        assert any(text in message for text in (victim.name, f"{victim.suffix} file", "one CSV file"))
        assert str(root) in message
        assert "\n" not in message
        assert not list((tmp_path / "cache").rglob("*.arrow"))


@pytest.mark.parametrize("name", sorted(set(IQA_DATASETS) - {"biq2021", "folder"}))
def test_what_the_publisher_does_not_let_download_says_where_to_get_it(name, tmp_path):
    with pytest.raises(DataError, match=f"cannot be downloaded.*{IQA_DATASETS[name].homepage}.*data_dir"):
        load_iqa_dataset(name, split="test", cache_dir=tmp_path)


@pytest.mark.parametrize("name", sorted(set(IQA_DATASETS) - {"folder"}))
def test_a_wrong_folder_is_told_from_the_right_one(name, tmp_path):
    (tmp_path / "README.txt").write_text("something else")

    with pytest.raises(DataError, match=f"not found in {tmp_path}; data_dir must be what http"):
        load_iqa_dataset(name, split="test", data_dir=tmp_path, cache_dir=tmp_path / "cache")
