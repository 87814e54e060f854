"""Own photographs and ratings: the same options in each command, script and recipe, and the same data of them."""

import re

import pytest
from iqa_fixtures import write_csv, write_image

pytest.importorskip("datasets")

from typer.main import get_command

from modeling_metaqap.cli import app, evaluate_set, fit, prepare, train
from modeling_metaqap.data.iqa_datasets import load_iqa_dataset, raters_scale
from modeling_metaqap.data.iqa_datasets.prepare import prepare_parquet
from modeling_metaqap.data.rating_options import OPTION_NAMES, RatingOptions
from modeling_metaqap.data.ratings import read_ratings
from modeling_metaqap.errors import DataError, MetaQAPError
from modeling_metaqap.evaluation.evaluating import NamedDataset
from modeling_metaqap.fusion.fusing import FusionSettings
from modeling_metaqap.training.arguments import parse_arguments
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.splits import load_rated

PROGRAMS = [module.PROGRAM for module in (train, fit, evaluate_set, prepare)]
OPTIONS = {"csv": "stars.csv", "image_column": "photo", "mos_column": "stars", "mos_range": [1, 5]}


@pytest.fixture
def photographs(tmp_path):
    """20 photographs with 1 to 5 stars; the file lies in the folder and is named relative to it."""
    folder = tmp_path / "photographs"
    rows = [(f"{index}.png", 1 + index % 5, ("train", "validation")[index % 4 == 0]) for index in range(20)]
    for name, *_ in rows:
        write_image(folder / name)
    write_csv(folder / "stars.csv", ("photo", "stars", "split"), rows)
    write_csv(folder / "another.csv", ("photo",), [])
    return folder


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.command)
def test_programs_have_the_same_options_as_commands_and_as_scripts(program):
    for as_script in (False, True):
        typed = {action.dest: action for action in program.parser(as_script=as_script)._actions}
        for name in OPTION_NAMES:
            option = f"--{name}" if as_script else f"--{name.replace('_', '-')}"
            assert typed[name].option_strings == [option]
        assert typed["mos_range"].nargs == 2


@pytest.mark.parametrize("name", ["evaluate", "adapt"])
def test_commands_for_one_folder_have_them_too(name):
    options = {option.name: option for option in get_command(app.app).commands[name].params}
    assert [options[name].opts for name in OPTION_NAMES] == [[f"--{name.replace('_', '-')}"] for name in OPTION_NAMES]
    assert options["mos_range"].nargs == 2
    assert not any(options[name].required for name in OPTION_NAMES)


def test_each_way_gives_the_same_quality(photographs, tmp_path):
    expected = {f"{index}.png": (index % 5) / 4 for index in range(20)}
    ratings, cache = RatingOptions.of(OPTIONS), str(tmp_path / "cache")

    def loaded(dataset):
        return dict(zip(dataset["image_id"], dataset["quality"], strict=True))

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "backbone: test_resnet\ndataset: folder\ncsv: stars.csv\nimage_column: photo\nmos_column: stars\n"
        "mos_range: [1, 5]\n"
    )
    [source] = Recipe.load(recipe).sets
    training, validation = load_rated(source, **source.where(str(photographs), cache))
    assert len(validation) == 5 and loaded(training) | loaded(validation) == expected
    fusion = FusionSettings(
        models=["x"], dataset="folder", split="all", data_dir=str(photographs), cache_dir=cache, ratings=ratings
    )
    measured = NamedDataset(name="folder", data_dir=photographs, ratings=ratings)
    for where in (fusion.where, measured.where(cache)):
        assert loaded(load_iqa_dataset("folder", split="all", **where)) == expected
    prepare_parquet("folder", tmp_path / "prepared", data_dir=photographs, cache_dir=cache, **ratings.given)
    prepared = {"data_dir": tmp_path / "prepared", "cache_dir": cache}
    assert loaded(load_iqa_dataset("folder", split="all", **prepared)) == expected
    with pytest.raises(DataError, match="prepared has no images in the split 'test'"):
        load_iqa_dataset("folder", split="test", **prepared)
    assert raters_scale("folder", **prepared) == raters_scale("folder", **fusion.where) == (1, 5)
    adapted = read_ratings(photographs, ratings)
    assert dict(zip(adapted.names, adapted.quality, strict=True)) == expected
    with pytest.raises(DataError, match="was prepared with its own ratings and their scale; leave out `mos_range`"):
        load_iqa_dataset("folder", split="all", **prepared, mos_range=(1, 5))


def test_a_row_for_each_rating_is_averaged_for_training_too_and_a_row_without_one_is_left_out(tmp_path):
    for name in "abc":
        write_image(tmp_path / f"{name}.png")
    rows = [("a.png", "x", 1), ("a.png", "y", 3), ("b.png", "x", 5), ("b.png", "y", 5), ("c.png", "x", "")]
    write_csv(tmp_path / "ratings.csv", ("image", "rater", "rating"), rows)
    images = load_iqa_dataset("folder", split="all", data_dir=tmp_path, cache_dir=tmp_path / "cache", mos_range=(1, 5))
    assert sorted(zip(images["image_id"], images["mos"], images["mos_std"], images["quality"], strict=True)) == [
        ("a.png", 2, pytest.approx(2**0.5), 0.25),
        ("b.png", 5, 0, 1),
    ]


def test_a_data_set_whose_lower_scores_are_better_has_no_scale_to_report_on(photographs, tmp_path):
    lower = OPTIONS | {"lower_is_better": True}
    assert raters_scale("folder", data_dir=photographs, **lower) is None
    assert read_ratings(photographs, RatingOptions.of(lower)).mos_range is None
    prepare_parquet("folder", tmp_path / "mine", data_dir=photographs, cache_dir=tmp_path / "cache", **lower)
    assert raters_scale("folder", data_dir=tmp_path / "mine") is None
    assert (raters_scale("koniq10k"), raters_scale("live")) == ((0, 100), None)


@pytest.mark.parametrize(
    ("scores", "advice"),
    [((1, 4.5), "1 5"), ((0, 4), "0 5"), ((2.5, 6), "1 7"), ((3.4, 92), "0 100"), ((-2.5, 140), "-3 140")],
)
def test_a_scale_is_asked_for_with_one_that_would_do(tmp_path, scores, advice):
    write_csv(tmp_path / "ratings.csv", ("image", "mos"), zip(("a.png", "b.png"), scores, strict=True))
    with pytest.raises(DataError, match=f"; say with `mos_range` which .*, such as `mos_range` {advice}\\.$"):
        read_ratings(tmp_path, RatingOptions())


@pytest.mark.parametrize(
    "wrong", ["1,5", (1,), (1, 2, 3), 5, ("1", "5"), (True, 5), (5, 1), (1, 1), (0, float("inf"))]
)
def test_a_range_that_is_none_is_one_sentence(wrong):
    with pytest.raises(
        DataError, match="`mos_range` must be the lowest and the highest score .* such as 1 and 5, not"
    ):
        RatingOptions(mos_range=wrong)


def test_options_of_ratings_need_a_folder_of_ratings(tmp_path):
    message = "`{}` is for your own photographs, the data set `folder`, and not for "
    with pytest.raises(MetaQAPError, match=message.format("csv") + "biq2021"):
        Recipe(backbone="test_resnet", csv="x.csv")
    lower = RatingOptions(lower_is_better=True)
    with pytest.raises(MetaQAPError, match=message.format("lower_is_better") + "livec"):
        load_iqa_dataset("livec", split="all", **NamedDataset(name="livec", ratings=lower).where(None))
    assert RatingOptions(csv="x.csv").of_dataset("livec", "folder") == {"csv": "x.csv"}


def test_the_command_line_goes_before_the_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text("backbone: test_resnet\nmos_range: [0, 10]\ndataset: folder\n")
    call = ["--recipe", str(tmp_path / "recipe.yaml"), "--output_dir", "x"]
    assert parse_arguments(call)[0].sets[0].ratings == RatingOptions(mos_range=(0, 10))
    own = ["--csv", "mine.csv", "--mos_range", "1", "5", "--lower_is_better"]
    recipe, settings = parse_arguments([*call, *own])
    assert recipe.sets[0].ratings == RatingOptions(csv="mine.csv", mos_range=(1, 5), lower_is_better=True)
    assert not hasattr(settings, "csv")
    recipe.save(tmp_path / "saved.yaml")
    assert Recipe.load(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize("value", ["1,5", "1 5", "[5, 1]", "[1, five]", "5"])
def test_a_wrong_range_in_a_recipe_names_the_setting_and_the_file(tmp_path, value):
    (tmp_path / "recipe.yaml").write_text(f"backbone: test_resnet\ndataset: folder\nmos_range: {value}\n")
    with pytest.raises(DataError, match="^`mos_range` in .*recipe.yaml must be the lowest and the highest score"):
        Recipe.load(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (train.PROGRAM, ["--recipe", "ablation", "--output{}dir", "x", "--dataset", "folder"]),
        (fit.PROGRAM, ["--dataset", "folder", "--data{}dir", "x", "--output{}dir", "y", "--models", "z"]),
        (evaluate_set.PROGRAM, ["--dataset", "folder"]),
        (prepare.PROGRAM, ["folder", "--output{}dir", "x"]),
    ],
    ids=lambda one: getattr(one, "command", ""),
)
def test_a_wrong_range_is_named_as_it_was_typed(program, arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call, sign in ((program.call, "-"), (program.main, "_")):
        words = [argument.format(sign) for argument in arguments]
        for wrong in (["5", "1"], ["1,5"]):
            with pytest.raises(SystemExit) as end:
                call([*words, f"--mos{sign}range", *wrong])
            err = capsys.readouterr().err
            assert end.value.code == 2
            assert len(err.splitlines()) == 1 and "Traceback" not in err
            assert re.search(rf"--mos{sign}range(:| must be the lowest and the highest score)", err)
