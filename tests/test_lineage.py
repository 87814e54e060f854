"""What weights were made of, as configurations keep it and people read it."""

import hashlib
import json
import math

import pytest

from modeling_metaqap import MetaQAPConfig, MetaQAPModel
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.lineage import (
    DistortedImages,
    Stage,
    all_stages,
    image_hashes,
    image_ids_sha256,
    in_words,
    learner_stages,
    rated_images,
    read_stages,
    shares_images,
    training_opinions,
    weights_sha256,
    write_stages,
)

IMAGENET = Stage(kind="imagenet", source="a file", licence="Apache-2.0")
PRETRAIN = Stage(kind="pretrain", distorted=DistortedImages.of(["b", "a", "a"], dataset="biq2021"))
FINETUNE = Stage(kind="finetune", started_from="123", **rated_images("biq2021", "train", ["b", "a"]))
HEADS = Stage(
    kind="heads",
    distorted=DistortedImages(num_images=1000),
    **rated_images("folder", "train + validation", ["c"], hold_out="fold 1 of 5"),
)
FUSION = Stage(
    kind="fusion", **rated_images("biq2021", "validation", ["d"]), folds=5, shrinkage=0.5, plcc=0.88, srocc=0.87
)


def test_stages_come_back_from_a_configuration_as_they_were_written(tmp_path):
    learner = {"backbone": "test_resnet", "lineage": write_stages([IMAGENET, PRETRAIN, FINETUNE, HEADS])}
    config = MetaQAPConfig(base_learners=[learner, "test_resnet"], lineage=write_stages([FUSION]))
    config.save_pretrained(tmp_path)
    assert "null" not in json.dumps(json.loads((tmp_path / "config.json").read_text())["lineage"])
    config = MetaQAPConfig.from_pretrained(tmp_path)
    assert learner_stages(config) == [[IMAGENET, PRETRAIN, FINETUNE, HEADS], []]
    assert all_stages(config) == [IMAGENET, PRETRAIN, FINETUNE, HEADS, FUSION]
    assert read_stages(None) == []


def test_an_ensemble_keeps_the_stages_of_each_learner_and_lists_shared_ones_once(make_model):
    models = []
    for stages in ([IMAGENET, FINETUNE], [IMAGENET, HEADS]):
        models.append(make_model({"backbone": "test_resnet", "lineage": write_stages(stages)}))
    ensemble = MetaQAPModel.from_base_models(models)
    assert learner_stages(ensemble.config) == [[IMAGENET, FINETUNE], [IMAGENET, HEADS]]
    assert all_stages(ensemble.config) == [IMAGENET, FINETUNE, HEADS]
    ensemble.config.lineage = write_stages([FUSION])
    # The fusion is the ensemble's, not that of its learners.
    assert [all_stages(model.config) for model in ensemble.base_models()] == [[IMAGENET, FINETUNE], [IMAGENET, HEADS]]
    assert MetaQAPModel.from_base_models(ensemble.base_models()).config.lineage is None


def test_people_read_it_in_words():
    assert in_words([IMAGENET, PRETRAIN, FINETUNE, FINETUNE]) == (
        "ImageNet weights of a file (Apache-2.0); pretrained on 3 distorted images of 2 photographs of biq2021; "
        "fine-tuned on biq2021 train, n 2 (2 times)"
    )
    assert in_words([HEADS, FUSION]) == (
        "heads fitted on folder train+validation without fold 1 of 5, n 1 and 1,000 distorted images; "
        "fused on biq2021 validation, n 1: PLCC 0.8800, SROCC 0.8700"
    )
    assert in_words([Stage(kind="imagenet")]) == "ImageNet weights"
    assert in_words([Stage(kind="pretrain")]) == "pretrained on images that are not known"
    assert in_words([]) == "not known"


def test_the_digest_tells_images_apart_in_whatever_order():
    assert rated_images("folder", "train", ["a", "b"]) == rated_images("folder", "train", ["b", "a"])
    assert FINETUNE.image_ids_sha256 == image_ids_sha256(["a", "b"]) != image_ids_sha256(["a", "c"])
    # `printf 'a\nb\n' | sha256sum`
    assert image_ids_sha256(["a", "b"]) == "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2"
    assert (PRETRAIN.distorted.num_images, PRETRAIN.distorted.num_photographs) == (3, 2)
    assert PRETRAIN.distorted.reference_ids_sha256 == image_ids_sha256(["a", "b"])


def test_what_learners_were_taught_is_told_from_what_the_ensemble_was_fused_on():
    stages = [IMAGENET, PRETRAIN, HEADS, FUSION]
    assert training_opinions(stages) == [HEADS]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"kind": "magic"}], "must be one of imagenet, .*, not 'magic'"),
        ([{"kind": "finetune", "dataset": "biq2021"}], "together with its split"),
        ([{"kind": "finetune", "weather": "fine"}], "unknown entry 'weather'"),
        ([{"dataset": "biq2021", "split": "train"}], "cannot be read"),
        (["finetune"], "unknown entry"),
        (3, "cannot be read"),
    ],
)
def test_what_is_no_lineage_is_one_sentence(entries, message):
    with pytest.raises(MetaQAPError, match=message):
        read_stages(entries)


@pytest.mark.parametrize(
    "value", ["high", math.nan, math.inf, True, [0.9]], ids=["text", "nan", "infinity", "true", "list"]
)
def test_a_figure_that_is_no_number_is_one_sentence(value):
    with pytest.raises(MetaQAPError, match="cannot be read: plcc cannot be"):
        read_stages([{"kind": "fusion", "plcc": value}])
    assert read_stages([{"kind": "fusion", "plcc": 1}])[0].plcc == 1


def test_a_stage_has_the_raters_scale_where_both_ends_are_known():
    assert Stage(kind="adapt", mos_low=1, mos_high=5).mos_range == [1, 5]
    assert Stage(kind="adapt", mos_low=1).mos_range is None
    assert Stage(kind="adapt", mos_high=5).mos_range is None


def test_image_files_are_known_again_by_the_beginning_of_their_digests():
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]
    stage = Stage(kind="adapt", image_hashes=image_hashes(digests))
    assert stage.image_hashes == "".join(sorted(digest[:8] for digest in digests))
    other = hashlib.sha256(b"other").hexdigest()
    assert shares_images(stage, [digests[2], other, digests[0], digests[1]]) == [True, False, True, True]
    assert shares_images(Stage(kind="adapt"), digests) == [False] * 3


def test_the_digest_of_a_checkpoint_is_that_of_its_weight_file(tmp_path):
    assert weights_sha256(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert weights_sha256(tmp_path) == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("wrong", ["finetune", [1]])
def test_a_configuration_takes_only_a_list_of_stages(wrong):
    with pytest.raises(ValueError, match="`lineage` must be a list"):
        MetaQAPConfig(lineage=wrong)
    with pytest.raises(ValueError, match="`lineage` must be a list"):
        MetaQAPConfig(base_learners=[{"backbone": "test_resnet", "lineage": wrong}])
