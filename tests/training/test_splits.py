import pytest
from PIL import Image

pytest.importorskip("datasets")

from modeling_metaqap.data.distorted.building import BuildSettings, build  # noqa: E402
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.settings import RunSettings
from modeling_metaqap.training.splits import load_splits


def test_no_distorted_version_of_a_photograph_that_is_validated_on_is_learned_from(rated_sources, tmp_path):
    directories = {}
    # a0.png and b1.png are in the training split, a2.png in the validation split.
    for option, names in (
        ("distorted_dir", ["a0.png", "a2.png"]),
        ("distorted_validation_dir", ["b1.png", "new.png"]),
    ):
        pristine = tmp_path / "pristine" / option
        pristine.mkdir(parents=True)
        for name in names:
            Image.effect_noise((64, 64), 60).save(pristine / name)
        directories[option] = str(tmp_path / option)
        assert all(build(pristine, names, tmp_path / option, BuildSettings(per_image=5, metrics=("gmsd", "psnr"))))
    settings = RunSettings(
        output_dir="run", data_dir=str(rated_sources), cache_dir=str(tmp_path / "cache"), **directories
    )
    recipe = Recipe(backbone="test_resnet", dataset="folder", refit_head=True, distorted_weight=0.1)
    splits = load_splits(recipe, settings)
    [rated] = splits.sets
    assert "a0.png" in rated.training["image_id"] and "a2.png" in rated.validation["image_id"]
    assert set(splits.distorted["reference_id"]) == {"a0.png"}
    assert set(splits.distorted_validation["reference_id"]) == {"new.png"}


def test_a_data_set_that_does_not_exist_is_one_sentence():
    with pytest.raises(MetaQAPError, match="koniq1k"):
        load_splits(Recipe(backbone="test_resnet", dataset="koniq1k"), RunSettings(output_dir="run"))
