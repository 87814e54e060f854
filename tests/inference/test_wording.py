"""Words for people."""

import pytest

import modeling_metaqap
from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.checkpoint_reading import read_config
from modeling_metaqap.configuration_metaqap import KADID_DISTORTIONS
from modeling_metaqap.inference.records import ScoreRecord
from modeling_metaqap.inference.wording import (
    MAX_QUALITY,
    MIN_FAMILIARITY,
    MIN_PROBABILITY,
    distortion_title,
    grade,
    heading,
    learner_title,
    looks_like,
    unlike_the_known,
)


@pytest.mark.parametrize(
    ("quality", "word"),
    [(-0.4, "bad"), (0.194, "bad"), (0.2, "poor"), (0.4, "fair"), (0.59, "fair"), (0.6, "good"), (1.3, "excellent")],
)
def test_each_fifth_of_the_scale_has_its_word(quality, word):
    assert grade(quality) == word


def test_what_is_shown_as_the_same_number_has_the_same_word():
    for hundredths in range(-20, 121):
        words = {grade(hundredths / 100 + offset) for offset in (-0.0049, 0, 0.0049)}
        assert len(words) == 1, hundredths
    assert grade(0.796) == "excellent" and grade(0.7949) == "good"


def test_the_words_go_with_the_scale():
    for hundredths in range(-20, 121):
        # What is shown on the other scale is as exact as on this one.
        quality = hundredths / 100
        assert grade(1 + 4 * quality, scale=(1, 5)) == grade(quality)
        assert grade(100 * quality, scale=(0, 100)) == grade(quality)
    assert grade(4.196, scale=(1, 5)) == "excellent" and grade(4.194, scale=(1, 5)) == "good"


def test_each_distortion_has_a_name_of_its_own_without_underscores():
    titles = [distortion_title(name) for name in KADID_DISTORTIONS]
    assert len(set(titles)) == len(titles)
    assert not [title for title in titles if "_" in title]
    assert distortion_title("jpeg_compression") == "JPEG compression"
    assert distortion_title("non_eccentricity_patch") == "displaced patches"
    assert distortion_title("gaussian_blur") == "Gaussian blur"
    assert heading(distortion_title("lens_blur")) == "Lens blur"


def test_the_shipped_learners_have_names_for_people():
    assert [learner_title(learner["name"]) for learner in read_config(DEFAULT_CHECKPOINT).base_learners] == [
        "EfficientNet-Lite0", "EfficientNet-Lite1", "MobileNetV2", "MobileNetV2 (frozen)",
    ]  # fmt: skip
    assert learner_title("my learner") == "my learner"


def test_only_a_stranger_is_called_one():
    said = [unlike_the_known(ScoreRecord(path="", familiarity=value)) for value in (0.0, MIN_FAMILIARITY, 1.0, None)]
    assert said == [
        "unlike the photographs that this checkpoint learned from, so trust the score less",
        None,
        None,
        None,
    ]


def test_a_photograph_looks_like_a_distortion_only_where_it_is_poor_and_the_name_is_sure():
    def name(quality, probability, distortion="lens_blur"):
        record = ScoreRecord(path="a", quality=quality, distortion=distortion, distortion_probability=probability)
        return looks_like(record)

    assert name(MAX_QUALITY - 0.01, MIN_PROBABILITY) == "lens blur"
    assert name(MAX_QUALITY, 1.0) is None and name(MAX_QUALITY - 0.01, MIN_PROBABILITY - 0.01) is None
    on_scale = ScoreRecord(path="a", quality=0.3, distortion="lens_blur", distortion_probability=1.0)
    on_scale.put_on_scale((1.0, 5.0))
    assert looks_like(on_scale) == "lens blur"
    assert name(None, None) is None and name(0.1, None, None) is None


def test_programs_can_follow_the_rule_of_the_tables():
    record = ScoreRecord(path="", quality=0.4, distortion="non_eccentricity_patch", distortion_probability=0.95)
    assert modeling_metaqap.looks_like(record) == "displaced patches"
    record.put_on_scale((1, 5))
    assert modeling_metaqap.looks_like(record) == "displaced patches"
    record.distortion_probability = 0.89
    assert modeling_metaqap.looks_like(record) is None
