"""The split that numbers of a checkpoint are chosen on."""

import argparse

import pytest
from iqa_fixtures import write_csv, write_image

from modeling_metaqap import MetaQAPConfig
from modeling_metaqap.data.unseen_split import add_split_options, load_unseen_split
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.lineage import Stage, rated_images, write_stages


def test_a_split_that_only_the_fusion_has_learned_from_is_taken_and_one_of_a_learner_refused(tmp_path):
    names = [write_image(tmp_path / "images" / f"{number}.png").name for number in range(6)]
    rows = [(name, 0.5, "train" if index < 4 else "validation") for index, name in enumerate(names)]
    write_csv(tmp_path / "images/labels.csv", ["image", "mos", "split"], rows)
    parser = argparse.ArgumentParser()
    add_split_options(parser)
    where = ["--data_dir", str(tmp_path / "images"), "--cache_dir", str(tmp_path / "cache")]
    args = parser.parse_args(["--dataset", "folder", *where])

    learned = Stage(kind="finetune", **rated_images("folder", "train", names[:4]))
    fused = Stage(kind="fusion", **rated_images("folder", "validation", names[4:]))
    learner = {"backbone": "test_resnet", "lineage": write_stages([learned])}
    config = MetaQAPConfig(base_learners=[learner], lineage=write_stages([fused]))
    assert list(load_unseen_split(args, config)["image_id"]) == names[4:]
    args.split = "train"
    with pytest.raises(MetaQAPError, match="has learned from 4 of the 4 images"):
        load_unseen_split(args, config)
