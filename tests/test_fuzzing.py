"""Whatever readers are fed, they give a result or one clear sentence.

The slow tests try many more examples, and the long ones such that nobody has seen: only there is the result of a run
left to chance.
"""

import copy
import csv
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from iqa_fixtures import noise
from PIL import Image

from modeling_metaqap import MetaQAPConfig, MetaQAPImageProcessor
from modeling_metaqap.checkpoint_reading import read_config, read_image_processor
from modeling_metaqap.cli.app import main
from modeling_metaqap.data.rating_options import RatingOptions
from modeling_metaqap.data.ratings import rated_names, read_ratings
from modeling_metaqap.errors import MetaQAPError, sentence
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.modeling_metaqap import MetaQAPModel
from modeling_metaqap.training.recipe import Recipe


class ByChance(int):
    """A number of examples that chance chooses."""


def examples(quick, many):
    """Runs a test with few examples and as a slow test with many, always the same ones; as a long test by chance."""
    slow, by_chance = (
        pytest.param(many, marks=pytest.mark.slow),
        pytest.param(ByChance(4 * many), marks=pytest.mark.long),
    )
    return pytest.mark.parametrize("count", [quick, slow, by_chance], ids=["quick", "many", "chance"])


def fuzz(count, check, **strategies):
    """Calls a check with what the strategies draw."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    options = {
        "max_examples": count,
        "deadline": None,
        "derandomize": not isinstance(count, ByChance),
        "database": None,
    }
    settings(**options, suppress_health_check=checks)(given(**strategies)(check))()


def is_sentence(text):
    """Whether a message is one line with words in it."""
    return bool(text.strip()) and text.isprintable() and " " in text


# Images

KINDS = ["u1", "u2", "i4", "i8", "f2", "f4", "f8", "?", "c16", "U3", "O"]
MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa", "La"]
MODES += ["I;16", "I;16L", "I;16B"]


@st.composite
def pixel_arrays(draw):
    """Arrays of nearly any kind and shape, many of them images."""
    shape = draw(st.one_of(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9), image_shapes()))
    kind = draw(st.sampled_from(KINDS))
    if kind in ("O", "U3"):
        return np.full(shape, draw(st.sampled_from([None, "a", {}, 0.5])), dtype=kind)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    values = random.random(shape) * draw(st.sampled_from([1, 1, 255, 70_000, -1, np.nan, np.inf]))
    with np.errstate(all="ignore"):
        array = np.asarray(values).astype(kind)
    return array[::-1] if array.ndim and draw(st.booleans()) else array


@st.composite
def image_shapes(draw):
    sides = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    return draw(st.sampled_from([sides, (*sides, 1), (*sides, 3), (*sides, 4), (3, *sides), (1, *sides)]))


@st.composite
def tensors(draw):
    array = draw(pixel_arrays().filter(lambda array: array.dtype.kind in "uifb" and array.dtype != np.uint16))
    tensor = torch.from_numpy(array.copy())
    return tensor.bfloat16() if tensor.is_floating_point() and draw(st.booleans()) else tensor


@st.composite
def pillow_images(draw):
    image = Image.new(draw(st.sampled_from(MODES)), (draw(st.integers(0, 70)), draw(st.integers(0, 70))))
    if draw(st.booleans()) and 0 not in image.size and image.mode != "PA":
        size = len(image.tobytes())
        image.frombytes(np.random.default_rng(draw(st.integers(0, 99))).bytes(size))
    if draw(st.booleans()):
        image.info["icc_profile"] = draw(st.sampled_from([b"", b"broken", 3, "text"]))
        image.info["transparency"] = draw(st.sampled_from([0, 300, b"", b"\0" * 300, (1, 2, 3), "red", None]))
        image.getexif()[274] = draw(st.sampled_from([0, 1, 6, 99, "x"]))
    return image


@examples(60, 1500)
def test_the_image_processor_gives_crops_or_a_sentence(count):
    processor = MetaQAPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    one = st.one_of(pixel_arrays(), tensors(), pillow_images())
    others = st.one_of(st.none(), st.text(max_size=5), st.binary(max_size=5), st.integers(), st.lists(one, max_size=3))

    def check(image, input_data_format):
        options = {} if input_data_format is None else {"input_data_format": input_data_format}
        try:
            batch = processor(image, return_tensors="pt", **options)
        except (ValueError, TypeError, OSError) as error:
            assert is_sentence(sentence(error)), repr(error)
        else:
            crops, weights = batch["pixel_values"], batch["crop_weights"]
            assert crops.shape[2:] == (3, 32, 32) and crops.shape[:2] == weights.shape
            assert 0 <= crops.min() and crops.max() <= 1
            torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)))

    formats = st.sampled_from([None, None, None, "channels_first", "channels_last"])
    fuzz(count, check, image=st.one_of(one, one, one, others), input_data_format=formats)


# Ratings

COLUMNS = ["file_name", "Image Name", "mos", "DMOS", "rating", "std", "split", "rater", "better", "worse"]
COLUMNS += ["reference_id", "", " mos", "\ufeffmos", "x\0", "é\n", "mos_range"]
CELLS = ["a.png", "b.png", "c\\a.png", "../a.png", "", " ", "0.5", "1", "5", "-3", "1e400", "nan", "inf", "1e308"]
CELLS += ["test", "x" * 300, "a\0.png", "\ud800"[:0], "é", "=1+1", '"', "\r", "/etc/passwd", "0,5", "1_0", "٣"]


@st.composite
def csv_files(draw):
    """Tables of ratings, most with flaws, and sometimes no tables at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-16"))))
    usual = draw(st.sampled_from([["file_name", "mos"], ["image", "score", "rater"], ["better", "worse"], []]))
    header = usual + draw(st.lists(st.sampled_from(COLUMNS), max_size=3))
    cells = st.one_of(st.sampled_from(CELLS), st.text(st.characters(codec="utf-8"), max_size=4))
    good = st.tuples(st.sampled_from(["a.png", "b.png"]), st.sampled_from(["0.1", "0.5", "a.png", "b.png"]))
    row = st.one_of(
        st.lists(cells, max_size=6), good.map(list), st.tuples(good, cells).map(lambda two: [*two[0], two[1]])
    )
    return table_bytes([header, *draw(st.lists(row, max_size=6))], draw(st.sampled_from(",;\t")))


def table_bytes(rows, delimiter):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """A folder with two photographs."""
    folder = tmp_path_factory.mktemp("rated")
    for name in ("a.png", "b.png"):
        noise(40, 48).save(folder / name)
    return folder


@examples(40, 1500)
def test_readers_of_ratings_give_ratings_or_a_sentence(count, rated):
    numbers = st.one_of(st.floats(), st.integers(), st.just(10**400), st.text(max_size=3), st.booleans(), st.none())
    ranges = st.one_of(st.none(), st.none(), st.just((0, 1)), st.lists(numbers, max_size=3), numbers)
    columns = st.one_of(st.none(), st.none(), st.sampled_from(COLUMNS), st.text(max_size=3))

    def check(data, mos_range, image_column, mos_column, lower_is_better):
        (rated / "ratings.csv").write_bytes(data)
        try:
            options = RatingOptions(
                mos_range=mos_range,
                image_column=image_column,
                mos_column=mos_column,
                lower_is_better=lower_is_better,
            )
            ratings = read_ratings(rated, options)
            assert all(path.is_file() for path in ratings.paths) and len(ratings) == len(ratings.quality)
            assert np.isfinite(ratings.quality).all()
            assert ratings.are_strengths or (ratings.quality.min() >= 0 and ratings.quality.max() <= 1)
        except MetaQAPError as error:
            assert is_sentence(sentence(error)), repr(error)
        try:
            rated_names(rated / "ratings.csv", image_column=image_column)
        except MetaQAPError as error:
            assert is_sentence(sentence(error)), repr(error)

    fuzz(
        count,
        check,
        data=csv_files(),
        mos_range=ranges,
        image_column=columns,
        mos_column=columns,
        lower_is_better=st.booleans(),
    )


# Configurations

ODD = st.sampled_from(
    [None, True, 0, 1, -1, 64, 1e308, 10**400, float("nan"), "", "x", "\x1b[2J", [], [[]], {}, {"a": 1}]
)
JSON = st.recursive(
    ODD, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner))
)


@st.composite
def changed(draw, values, names=()):
    """Settings of which some were replaced by odd ones, at any depth."""
    values = json.loads(json.dumps(values))
    for _ in range(draw(st.integers(1, 3))):
        place, keys = values, sorted({*values, *names})
        key = draw(st.sampled_from(keys))
        while isinstance(place.get(key) if isinstance(place, dict) else place[key], (dict, list)) and draw(
            st.booleans()
        ):
            inner = place[key]
            if not inner:
                break
            place, key = inner, draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        place[key] = copy.deepcopy(draw(JSON))  # sampled objects are shared, and the next turn may change one
    return values


@examples(40, 1500)
def test_readers_of_configurations_give_one_or_a_sentence(count, tmp_path):
    learner = {"backbone": "test_resnet", "kernel_head": {"num_components": 2, "num_centers": 3}}
    subset = {"learners": [0], "weights": [1.0], "intercept": 0.0, "interval_radius": 0.1}
    config = MetaQAPConfig(
        base_learners=[learner], mos_range=[1, 5], learner_subsets=[subset], lineage=[{"kind": "fusion"}]
    ).to_dict()
    processor = MetaQAPImageProcessor().to_dict()

    def check(config, processor, raw):
        for name, read, values in (
            ("config.json", read_config, config),
            ("preprocessor_config.json", read_image_processor, processor),
        ):
            (tmp_path / name).write_bytes(json.dumps(values).encode() if raw is None else raw)
            try:
                read(tmp_path)
            except MetaQAPError as error:
                assert is_sentence(sentence(error)), repr(error)
        try:
            MetaQAPConfig(**config)
        except (ValueError, TypeError) as error:
            assert is_sentence(sentence(error)), repr(error)

    raw = st.one_of(
        st.none(), st.none(), st.none(), st.binary(max_size=30), JSON.map(lambda one: json.dumps(one).encode())
    )
    fuzz(count, check, config=changed(config), processor=changed(processor), raw=raw)


@examples(30, 800)
def test_the_reader_of_recipes_gives_one_or_a_sentence(count, tmp_path):
    recipe = yaml.safe_load(
        yaml.safe_dump(vars(Recipe(backbone="test_resnet", dataset="folder", mos_range=[1, 5], stages=[1])))
    )
    texts = [
        "- a",
        "a: [",
        "2001-99-99",
        "backbone: !!python/name:os.system",
        "&a [*a]",
        "1: 2\nb: 3",
        "[" * 400,
        "\0",
    ]
    raw = st.one_of(
        st.binary(max_size=30), st.text(max_size=30).map(str.encode), st.sampled_from(texts).map(str.encode)
    )

    def check(values, raw):
        (tmp_path / "recipe.yaml").write_bytes(yaml.safe_dump(values).encode() if raw is None else raw)
        try:
            Recipe.load(tmp_path / "recipe.yaml")
        except MetaQAPError as error:
            assert is_sentence(sentence(error)), repr(error)

    fuzz(count, check, values=changed(recipe, names=("unknown", "")), raw=st.one_of(st.none(), st.none(), raw))


# The command line

#: The options of each command; those of commands that serve, train or push are called with a mistake only.
WORDS = {
    "score": "-o --json --overwrite --engine --dtype --scale --raters-scale --learners --batch-size -r -0 --resume "
    "--image-column --workers --sort --explain --device",
    "report": "-o --overwrite --title --maps --thumbnail --learners --batch-size -r",
    "distort": "-o --seed --cell",
    "adapt": "-o --csv --image-column --mos-column --mos-range --lower-is-better --seed",
    "suggest": "-n -o --csv --image-column -r",
    "info": "--json",
    "evaluate": "--csv --image-column --mos-column --mos-range --lower-is-better -o --worst --seed --bootstrap",
    "recipes": "-o",
    "prepare": "--data-dir --csv --mos-range --output-dir --option",
    "fit": "--models --mean --shrinkage --folds --split --output-dir --coverage --dataset --mos-range",
    "distort-set": "--pristine-dir --output-dir --per-image --num-workers --seed --shard --list",
    "select-pristine": "--dataset --split --count --data-dir --output-dir",
    "evaluate-set": "--checkpoint --dataset --split --data-dir --bootstrap --repeat-splits",
    "push": "--checkpoint --no-such",
    "train": "--stage --recipe --output-dir --no-such",
    "serve": "--port --concurrency --max-bytes --no-such",
    "export": "--int8 --photos --no-such",
    "benchmark": "--sections --count --no-such",
    "": "--version --help -h",
    "scoer": "--help",
}
VALUES = [
    "",
    " ",
    "0",
    "1",
    "-1",
    "5",
    "1e400",
    "nan",
    "inf",
    "x",
    "é",
    "\udcff",
    "-",
    "--",
    ".",
    "..",
    "a.png",
    "b.png",
]
VALUES += ["ratings.csv", "new.csv", "new/x.html", "auto", "torch", "worst", "folder", "@list.txt", "*.png", "x" * 300]
VALUES += [
    "http://127.0.0.1:9/x.png",
    "s3://",
    "zip://",
    "a.zip",
    "train[:50%]",
    "=",
    "--=",
    "--output=x",
    "1/2",
    "[",
    "a:b",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(MetaQAPModel(MetaQAPConfig(base_learners=["test_resnet"], interval_radius=0.2)), folder)
    MetaQAPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


@st.composite
def command_lines(draw):
    command = draw(st.sampled_from(list(WORDS)))
    options = WORDS[command].split()
    words = draw(
        st.lists(st.one_of(st.sampled_from(options), st.sampled_from(VALUES), st.text(max_size=3)), max_size=6)
    )
    return [command, *words, *(["--no-such"] if "--no-such" in options else [])]


@examples(20, 400)
def test_any_command_line_ends_without_a_traceback(count, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modeling_metaqap.cli.options.SHIPPED", str(tiny))

    def check(words):
        for name in ("a.png", "b.png"):
            noise(40, 48).save(tmp_path / name)
        (tmp_path / "ratings.csv").write_text("file_name,mos\na.png,0.5\nb.png,0.6\n")
        told, stdin = io.StringIO(), io.TextIOWrapper(io.BytesIO(b"a.png\n"))
        arguments = ["metaqap", *words, *(["--checkpoint", str(tiny)] if words[0] in WITH_CHECKPOINT else [])]
        with (
            mock.patch.multiple(sys, argv=arguments, stdin=stdin),
            redirect_stdout(io.StringIO()),
            redirect_stderr(told),
        ):
            with pytest.raises(SystemExit) as exit_:
                main()
        message = told.getvalue()
        assert exit_.value.code in (0, 1, 2, None) and "Traceback" not in message, (arguments, message)
        if exit_.value.code == 2:
            assert is_sentence(message.removesuffix("\n").splitlines()[-1]), (arguments, message)

    fuzz(count, check, words=command_lines())


WITH_CHECKPOINT = ("score", "report", "adapt", "suggest", "info", "evaluate")
