"""A person's own ratings: the kinds of CSV files, and a sentence for each flaw."""

import numpy as np
import pytest

from modeling_metaqap.data.rating_options import RatingOptions
from modeling_metaqap.data.ratings import bradley_terry, read_ratings
from modeling_metaqap.errors import DataError


@pytest.fixture
def photographs(tmp_path):
    """A folder with three files; what is in them is not looked at here."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def read(photographs, tmp_path):
    def from_text(text, **options):
        csv = tmp_path / "ratings.csv"
        csv.write_text(text)
        return read_ratings(photographs, RatingOptions(csv=csv, **options))

    return from_text


def test_a_row_for_each_photograph_has_its_mean_rating(read, photographs):
    ratings = read("Image,MOS,std,reference\na.png,1,.5,x\nB.png,4,1,x\nc.png,3,1,\n", mos_range=(1, 5))
    assert ratings.names == ["a.png", "B.png", "c.png"]
    assert ratings.paths == [photographs / name for name in ("a.png", "b.png", "c.png")]
    np.testing.assert_allclose(ratings.quality, [0, 0.75, 0.5])
    np.testing.assert_allclose(ratings.spread, [0.125, 0.25, 0.25])
    assert ratings.groups[0] == ratings.groups[1] != ratings.groups[2]


def test_a_row_for_each_rating_is_averaged_and_the_spread_kept(read):
    text = "rater;image;rating\nx;a.png;10\ny;a.png;30\nx;b.png;50\ny;b.png;50\n"
    ratings = read(text, mos_range=(0, 100))
    np.testing.assert_allclose(ratings.quality, [0.2, 0.5])
    np.testing.assert_allclose(ratings.spread, [np.sqrt(2) / 10, 0])


def test_lower_ratings_can_be_better_ones(read):
    ratings = read("image,score\na.png,0.2\nb.png,0.9\n", lower_is_better=True)
    np.testing.assert_allclose(ratings.quality, [0.8, 0.1])


def test_photographs_that_are_kept_for_testing_are_left_out(read):
    assert read("image,mos,split\na.png,0.2,train\nb.png,0.9,test\nc.png,0.5,validation\n").names == ["a.png", "c.png"]


def test_comparisons_give_strengths_without_a_scale(read):
    ratings = read("better,worse\na.png,b.png\na.png,b.png\nb.png,c.png\nc.png,b.png\n")
    assert ratings.are_strengths
    strength = dict(zip(ratings.names, ratings.quality, strict=True))
    assert strength["a.png"] > strength["c.png"] > strength["b.png"]


def test_strengths_are_those_of_the_comparisons():
    rng = np.random.default_rng(0)
    true = np.linspace(-1.5, 1.5, 12)
    pairs = np.array([rng.choice(12, 2, replace=False) for _ in range(20_000)])
    wins = rng.random(len(pairs)) < 1 / (1 + np.exp(true[pairs[:, 1]] - true[pairs[:, 0]]))
    pairs[~wins] = pairs[~wins][:, ::-1]
    np.testing.assert_allclose(bradley_terry(pairs, 12), true, atol=0.12)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("image,mos\n", {}, "has no rows"),
        ("photo,mos\na.png,1\n", {}, "none of the columns file_name, .* choose `image_column` from photo, mos"),
        ("image,stars\na.png,1\n", {}, "none of the columns mos, .* choose `mos_column` from image, stars"),
        ("image,mos\na.png,1\n", {"mos_column": "stars"}, "no column 'stars'; choose `mos_column` from image, mos"),
        ("image,mos\na.png,1\nb.png,good\n", {}, "score of 'b.png' in .* is 'good', not a number"),
        ("image,mos\na.png,1\nb.png,nan\n", {}, "the rating 'nan' for b.png, which is not a number"),
        ("image,mos\na.png,1\nb.png,4.5\n", {}, "run from 1 to 4.5; say with `mos_range` .* such as `mos_range` 1 5"),
        ("image,mos\na.png,1\nb.png,6\n", {"mos_range": (1, 5)}, "run from 1 to 6, outside of the range 1 to 5"),
        (
            "image,mos\na.png,1\nb.png,2\n",
            {"mos_range": (5, 1)},
            "must be the lowest and the highest score .* not 5 1",
        ),
        ("image,mos\na.png,0.5\nb.png,0.5\n", {}, "All ratings in .* are 0.5; nothing can be learned"),
        ("image,mos\na.png,0.5\na.png,0.6\n", {}, "more than one row for a.png; keep one"),
        ("image,mos,rater\na.png,0.5,x\na.png,0.6,x\n", {}, "more than one rating of a.png by the rater 'x'"),
        ("image,mos\na.png,0.5\nd.png,0.6\ne.png,0.7\n", {}, "names 2 of its 3 photographs that are not in .*d.png"),
        (f"image,mos\na.png,0.5\n{300 * 'x'},0.6\n", {}, "names 1 of its 2 photographs that are not in .*xxx"),
        ("image,mos\na.png,0.5\nx\0,0.6\n", {}, "names 1 of its 2 photographs that are not in .*x"),
        ("image,mos\na.png,0.5\nb.png,0.6\n", {"mos_range": (0, 10**400)}, "must be the lowest .* not 0 inf"),
        ("image,mos\na.png,0.5\nb.png,0.6\n", {"mos_range": (-1e308, 1e308)}, "must be the lowest and the highest"),
        ("better,worse\na.png,a.png\n", {}, "compares a.png with itself"),
        ("better,worse\na.png,d.png\n", {}, "names 1 of its 2 photographs that are not in"),
    ],
)
def test_each_flaw_is_one_sentence(read, text, options, message):
    with pytest.raises(DataError, match=message) as raised:
        read(text, **options)
    assert "\n" not in str(raised.value)


def test_a_missing_folder_or_file_is_one_sentence(photographs, tmp_path):
    with pytest.raises(DataError, match="folder .*nowhere does not exist"):
        read_ratings(tmp_path / "nowhere", RatingOptions(csv="ratings.csv"))
    with pytest.raises(DataError, match="ratings.csv does not exist"):
        read_ratings(photographs, RatingOptions(csv="ratings.csv"))
