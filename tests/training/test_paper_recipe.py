"""The recipes of the paper's ensemble: its five backbones, with random weights, through every stage of their life."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("accelerate")

from accelerate import Accelerator  # noqa: E402
from repository import ROOT

from modeling_metaqap import MetaQAPImageProcessor, MetaQAPModel
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.training.learner import freeze_batch_norm, model_config
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.state import begin_state
from modeling_metaqap.training.step import Batch, training_step

RECIPES = sorted((ROOT / "scripts" / "recipes" / "metaqap-paper").glob("*.yaml"))
LARGE = {"nasnet-large", "inception-resnet-v2", "densenet-201"}
BACKBONES = {"nasnetalarge", "inception_resnet_v2", "densenet201", "legacy_xception", "resnet50"}


def test_there_is_a_recipe_for_each_backbone_of_the_paper():
    recipes = [Recipe.load(path) for path in RECIPES]
    assert {recipe.backbone for recipe in recipes} == BACKBONES
    for recipe in recipes:
        assert (recipe.optimizer, recipe.schedule, recipe.batch_size, recipe.patience) == ("sgd", "halving", 16, 5)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=pytest.mark.long if path.stem in LARGE else pytest.mark.slow)
        for path in RECIPES
    ],
)
def test_a_backbone_of_the_paper_is_built_trained_for_a_step_saved_and_exported(path, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    from modeling_metaqap.inference.onnx_export import export_onnx

    recipe = Recipe.load(path)
    torch.manual_seed(0)
    model = MetaQAPModel(model_config(recipe))
    accelerator = Accelerator(cpu=True)
    state = begin_state(model, recipe, accelerator, steps_per_epoch=10)
    freeze_batch_norm(model.train())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    batch = Batch(torch.randint(256, (2, 3, 96, 96), dtype=torch.uint8), torch.tensor([0.2, 0.9]))
    assert math.isfinite(training_step(accelerator, state, recipe, batch))
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert len(changed) > 0.5 * len(before), "the gradient reaches the backbone"

    save_checkpoint(model.eval(), tmp_path / "checkpoint")
    MetaQAPImageProcessor(size={"shortest_edge": 96}, crop_size=96).save_pretrained(tmp_path / "checkpoint")
    noise = np.random.default_rng(0).integers(256, size=(3, 100, 120, 3), dtype=np.uint8)
    photographs = [tmp_path / f"{index}.png" for index in range(3)]
    for photograph, pixels in zip(photographs, noise, strict=True):
        Image.fromarray(pixels).save(photograph)
    # The export compares with PyTorch and keeps nothing that differs.
    export = export_onnx(tmp_path / "checkpoint", photographs=photographs)
    assert (export.folder / "onnx" / "model.onnx").exists()
