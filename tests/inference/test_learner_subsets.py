"""Fewer learners: those that the checkpoint says serve best."""

import pytest
import torch

from modeling_metaqap import MetaQAPConfig, MetaQAPModel
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference.learner_subsets import keep_learners
from modeling_metaqap.inference.scorer import Scorer

SUBSETS = [
    {"learners": [2], "weights": [0.8], "intercept": 0.1, "interval_radius": 0.3},
    {"learners": [0, 2], "weights": [0.3, 0.6], "intercept": 0.02, "interval_radius": 0.2},
]


@pytest.fixture(scope="module")
def model(make_model):
    learners = ["test_resnet", {"backbone": "test_resnet", "distortion_head": False}, "test_resnet"]
    return make_model(*learners, interval_radius=0.1, learner_subsets=SUBSETS)


@pytest.mark.parametrize("subset", SUBSETS)
def test_they_have_their_own_scores_and_a_meta_learner_of_their_own(model, subset):
    count = len(subset["learners"])
    pixel_values = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, some = model(pixel_values), keep_learners(model, count)(pixel_values)
    expected = whole.base_scores[:, subset["learners"]]
    torch.testing.assert_close(some.base_scores, expected)
    quality = expected @ torch.tensor(subset["weights"]) + subset["intercept"]
    torch.testing.assert_close(some.logits[:, 0], quality)
    torch.testing.assert_close(some.interval[:, 1] - some.logits[:, 0], torch.full((2,), subset["interval_radius"]))
    assert model.config.num_base_learners == 3 and len(model.base_learners) == 3, "the model itself was changed"


def test_all_of_them_are_the_model_itself(model):
    assert keep_learners(model, 3) is model


@pytest.mark.parametrize(("count", "message"), [(0, "3 base learners; 0"), (4, "3 base learners; 4")])
def test_a_number_that_cannot_be_is_one_sentence(model, count, message):
    with pytest.raises(MetaQAPError, match=message):
        keep_learners(model, count)


def test_a_checkpoint_that_does_not_say_which_is_one_sentence(make_model):
    with pytest.raises(MetaQAPError, match="does not say which 1 of its 2 base learners"):
        keep_learners(make_model("test_resnet", "test_resnet"), 1)


@pytest.mark.parametrize(
    "change", [{"learners": [3]}, {"learners": [2, 2], "weights": [1, 1]}, {"weights": []}, {"radius": 1}]
)
def test_subsets_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="learner_subsets"):
        MetaQAPConfig(base_learners=["test_resnet"] * 3, learner_subsets=[SUBSETS[0] | change])


def test_the_scorer_takes_them_and_the_file_keeps_them(model, tmp_path):
    save_checkpoint(model, tmp_path / "tiny")
    assert MetaQAPModel.from_pretrained(tmp_path / "tiny").config.learner_subsets == SUBSETS
    scorer = Scorer(tmp_path / "tiny", device="cpu", learners=2)
    assert scorer.engine.config.num_base_learners == 2 == len(scorer.model.base_learners)
    with pytest.raises(MetaQAPError, match="4 of them"):
        Scorer(tmp_path / "tiny", learners=4)


def test_taken_apart_or_merged_anew_they_are_forgotten(model):
    apart = model.base_models()
    assert all(one.config.learner_subsets is None for one in apart)
    assert MetaQAPModel.from_base_models(apart).config.learner_subsets is None
