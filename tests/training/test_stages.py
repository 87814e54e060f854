"""What a run notes of the images that it learned from."""

from dataclasses import replace

from datasets import Dataset

from modeling_metaqap.lineage import DistortedImages, Stage, rated_images, read_stages
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.splits import SetSplits, Splits
from modeling_metaqap.training.stages import add_stages, gradient_stages, heads_stages

RATED = Dataset.from_dict({"image_id": ["a", "b", "c"]})
BIQ = SetSplits(training=RATED, validation=RATED, source=Recipe(backbone="x").sets[0])
DISTORTED_OF_RATED = Dataset.from_dict({"reference_id": ["a", "a", "b"]})


def test_a_learner_remembers_the_scale_of_its_raters(make_model):
    model = make_model("test_resnet")
    stages = [
        Stage(kind="finetune", **rated_images("folder", "train", "abc", mos_range=(1.0, 5.0))),
        Stage(kind="pretrain", distorted=DistortedImages.of(["a"])),
        Stage(kind="heads", **rated_images("live", "train", "abc")),
    ]
    remembered = []
    for stage in stages:
        add_stages(model, [stage])
        remembered.append(model.config.mos_range)
    assert remembered == [[1, 5], [1, 5], None]
    assert read_stages(model.config.base_learners[0]["lineage"]) == stages


def test_a_run_notes_what_it_learned_from():
    splits = Splits((BIQ,), DISTORTED_OF_RATED)
    recipe = Recipe(backbone="test_resnet", refit_head=True)
    tuned = Stage(kind="finetune", started_from="123", **rated_images("biq2021", "train", "abc"))
    assert gradient_stages(recipe, splits, started_from="123") == [tuned], "no distorted image was used"
    recipe = replace(recipe, hold_out="fold 1 of 5", synthetic_batch_size=2, distorted_weight=0.1)
    splits = replace(splits, sets=(replace(BIQ, source=recipe.sets[0]),))
    stages = [function(recipe, splits, started_from=None) for function in (gradient_stages, heads_stages)]
    for [stage], kind in zip(stages, ("finetune", "heads"), strict=True):
        assert (stage.kind, stage.opinions) == (kind, "biq2021 train+validation without fold 1 of 5")
        assert str(stage.distorted) == "3 distorted images of 2 photographs of biq2021"
    scaled = replace(splits, sets=(replace(splits.sets[0], mos_range=(1.0, 5.0)),))
    [stage] = heads_stages(recipe, scaled, started_from=None)
    assert stage.mos_range == [1, 5] and ", n 3, rated from 1 to 5 and" in str(stage)
    elsewhere = Splits((BIQ,), Dataset.from_dict({"reference_id": ["a", "other"]}))
    assert heads_stages(recipe, elsewhere, started_from=None)[0].distorted.dataset is None
    pretrained = gradient_stages(
        Recipe(backbone="test_resnet", stage="pretrain"),
        Splits(
            (SetSplits(training=DISTORTED_OF_RATED, validation=DISTORTED_OF_RATED),),
            DISTORTED_OF_RATED,
            DISTORTED_OF_RATED,
        ),
        started_from=None,
    )
    assert pretrained == [Stage(kind="pretrain", distorted=DistortedImages.of(["a", "a", "b"]))]
