import json
import math
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("accelerate")
pytest.importorskip("datasets")

from accelerate import Accelerator  # noqa: E402
from repository import ROOT

from modeling_metaqap import MetaQAPImageProcessor, MetaQAPModel, quality_aware_loss
from modeling_metaqap.data.crops import random_crop
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.training import learner as learner_module
from modeling_metaqap.training.backbones import normalization
from modeling_metaqap.training.curves import plot_curves
from modeling_metaqap.training.heads import fit_distortion_head, fit_kernel_head, fit_ridge_head, pooled_features
from modeling_metaqap.training.images import TrainingCrops, WholeImages, collate_crops
from modeling_metaqap.training.learner import (
    freeze_batch_norm,
    freeze_stages,
    model_config,
    move_toward_imagenet,
    new_base_learner,
)
from modeling_metaqap.training.optimizer import make_optimizer, parameter_groups
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.run_folder import RunFolder
from modeling_metaqap.training.samplers import EndlessSampler, EpochSampler
from modeling_metaqap.training.state import Position, begin_state
from modeling_metaqap.training.step import Batch, forward_backward, training_step


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def noise(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


ROWS = [{"image": noise(40 + 7 * index, 60, seed=index), "quality": index / 9} for index in range(10)]


# Recipes


def test_a_recipe_is_read_with_defaults_for_what_it_does_not_say(recipe_file):
    recipe = Recipe.load(recipe_file("backbone: test_resnet\nepochs: 2\n"))
    assert (recipe.backbone, recipe.epochs, recipe.batch_size) == ("test_resnet", 2, Recipe(backbone="x").batch_size)
    assert (recipe.train_split, recipe.validation_split) == ("train", "validation")


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "1E-4"])
def test_numbers_without_a_dot_are_numbers(text, recipe_file):
    # YAML 1.1 reads 1e-4 as a text.
    settings = f"learning_rate: {text}\nridge_penalty: {text}\nmax_grad_norm: 1\n"
    recipe = Recipe.load(recipe_file(f"backbone: test_resnet\n{settings}"))
    assert recipe.learning_rate == recipe.ridge_penalty == 1e-4
    assert type(recipe.max_grad_norm) is float


def test_the_command_line_replaces_what_the_recipe_says(recipe_file):
    recipe = Recipe.load(recipe_file("backbone: test_resnet\nepochs: 2\nseed: 1\n"), epochs=7, seed=None)
    assert (recipe.epochs, recipe.seed) == (7, 1)


def test_a_recipe_survives_saving(tmp_path):
    recipe = Recipe(backbone="test_resnet", learning_rate=1e-4, stages=[1, 2], loss_surrogate="soft_rank")
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 2", "names no `backbone`"),
        ("- a\n- b", "must be a mapping"),
        ("", "must be a mapping"),
        ("backbone: [unclosed", "is not YAML"),
        ("backbone: a\nlearning_rat: 1", "unknown setting 'learning_rat'"),
        ("backbone: a\nlearning_rate: fast", "`learning_rate` in .* must be a number, got 'fast'"),
        ("backbone: a\nlearning_rate: null", "must be a number, got None"),
        ("backbone: a\nepochs: 1.5", "`epochs` in .* must be a whole number, got 1.5"),
        ("backbone: a\nepochs: 0", "`epochs` must be at least 1"),
        ("backbone: a\nepochs: -1\nrefit_head: true", "`epochs` must be at least 1"),
        ("backbone: a\nkernel_components: 8", "`kernel_components` needs `refit_head`"),
        ("backbone: a\nrefit_distortion_head: true", "`refit_distortion_head` needs `refit_head`"),
        ("backbone: a\nimagenet_share: 0.5", "`imagenet_share` needs `refit_head`"),
        ("backbone: a\nrefit_head: true\nimagenet_share: 1.5", r"`imagenet_share` must lie in \[0, 1\]"),
        (
            "backbone: a\nrefit_head: true\nimagenet_share: 0.5\nsynthetic_batch_size: 4",
            "set `refit_distortion_head` too",
        ),
        ("backbone: a\noptimizer: adam", "`optimizer` must be one of adamw, sgd"),
        ("backbone: a\nschedule: linear", "`schedule` must be one of cosine, halving"),
        ("backbone: a\nridge_penalty: much", "`ridge_penalty` in .* must be a number"),
        ("backbone: a\nhold_out: 3", "`hold_out` in .* must be a text"),
        ("backbone: 3", "`backbone` in .* must be a text"),
        ("backbone: a\nridge_penalty: 0", "`ridge_penalty` must be above 0"),
        ("backbone: a\npatience: 0", "`patience` must be a number of epochs from 1, or null, got 0"),
        ("backbone: a\nepochs: true", "`epochs` in .* must be a whole number, got True"),
        ("backbone: a\nstage: finetuning", "`stage` must be one of pretrain, finetune, got 'finetuning'"),
        ("backbone: a\nloss_surrogate: hard_rank", "`loss_surrogate` must be one of softmax, soft_rank"),
        ("backbone: a\nweight_decay: -0.1", "`weight_decay` must not be negative"),
        ("backbone: a\ndistortion_loss_weight: -1", "`distortion_loss_weight` must not be negative"),
        ("backbone: a\nstage: pretrain\nsynthetic_batch_size: 4", "is for fine-tuning"),
        ("backbone: a\nstage: pretrain\nrefit_head: true\ndistorted_weight: 1", "is for fine-tuning"),
        ("backbone: a\ndistorted_weight: 0.1", "`distorted_weight` needs `refit_head`"),
        ("backbone: a\nrefit_head: true\ndistorted_weight: -1", "`distorted_weight` must not be negative"),
        ("backbone: a\nweight_decay: true", "`weight_decay` in .* must be a number, got True"),
        ("backbone: a\nlearning_rate: .inf", "`learning_rate` in .* must be a number, got inf"),
        ("backbone: a\nrefit_head: 'false'", "`refit_head` in .* must be true or false, got 'false'"),
        ("backbone: a\nseed: -1", "`seed` must not be negative, got -1"),
        ("backbone: a\nstages: [1.5]", r"`stages` must be a list of numbers of stages, or null, got \[1.5\]"),
        ("backbone: a\nstages: 1", "`stages` must be a list of numbers of stages, or null, got 1"),
        ("backbone: a\nstages: []", "`stages` must be a list of numbers of stages"),
        ("backbone: a\nbatch_size: 0", "`batch_size` must be at least 1"),
        ("backbone: a\nlearning_rate: 0", "`learning_rate` must be above 0"),
        ("backbone: a\nmax_grad_norm: .nan", "`max_grad_norm` in .* must be a number, got nan"),
        ("backbone: a\nema_decay: 1", r"`ema_decay` must lie in \[0, 1\)"),
        ("backbone: a\nwarmup_fraction: 1.1", r"`warmup_fraction` must lie in \[0, 1\]"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused_with_the_reason(text, message, recipe_file):
    with pytest.raises(MetaQAPError, match=message):
        Recipe.load(recipe_file(text))


def test_a_missing_recipe_is_refused(tmp_path):
    with pytest.raises(MetaQAPError, match="cannot be read: No such file"):
        Recipe.load(tmp_path / "nowhere.yaml")


def test_all_committed_recipes_can_be_read():
    found = sorted(ROOT.glob("scripts/recipes/**/*.yaml"))
    recipes = [path for path in found if path.parent.name != "accelerate"]
    assert len(recipes) > 10
    for path in recipes:
        assert model_config(Recipe.load(path)).base_learners[0]["backbone"]


# Training images


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    sampler = EpochSampler(50, seed=3)
    first = list(sampler)
    assert list(sampler) == first == list(EpochSampler(50, seed=3))
    assert [epoch for epoch, _ in first] == [0] * 50
    assert sorted(index for _, index in first) == list(range(50))
    orders = {tuple(index for _, index in first)}
    for other in (EpochSampler(50, seed=4), sampler):
        other.set_epoch(1)
        assert {epoch for epoch, _ in other} == {1}
        orders.add(tuple(index for _, index in other))
    assert len(orders) == 3


def test_an_epoch_can_be_continued_in_its_middle():
    sampler = EpochSampler(20, seed=0)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_epoch(2, skip=13)
    assert list(sampler) == whole[13:]
    assert len(sampler) == 7


def test_the_endless_order_is_that_of_one_epoch_after_the_other_and_starts_anywhere():
    epochs = EpochSampler(7, seed=5)
    expected = []
    for epoch in range(4):
        epochs.set_epoch(epoch)
        expected += list(epochs)
    sampler = EndlessSampler(7, seed=5)
    for start in (0, 6, 7, 17):
        sampler.start = start
        found = [item for item, _ in zip(sampler, range(28 - start), strict=False)]
        assert found == expected[start:]


def test_distorted_images_bring_the_distortion_and_its_level(make_model):
    row = ROWS[0] | {"distortion": 3, "level": 4}
    for item in (
        TrainingCrops([row], crop_size=16, seed=0)[0, 0],
        WholeImages([row], MetaQAPImageProcessor())[0],
    ):
        assert (item["distortion"].item(), item["level"].item()) == (3, 4)
    assert "distortion" not in TrainingCrops(ROWS, crop_size=16, seed=0)[0, 0]


def test_a_training_crop_depends_on_seed_epoch_and_index_alone():
    crops = TrainingCrops(ROWS, crop_size=32, seed=5)
    again = TrainingCrops(ROWS, crop_size=32, seed=5)
    reference = [crops[1, index] for index in range(10)]
    np.random.seed(0)
    torch.manual_seed(0)
    for index in reversed(range(10)):
        found = again[1, index]
        assert torch.equal(found["pixel_values"], reference[index]["pixel_values"])
        assert found["labels"] == pytest.approx(index / 9)
    for other in (crops[2, 3], TrainingCrops(ROWS, crop_size=32, seed=6)[1, 3]):
        assert not torch.equal(other["pixel_values"], reference[3]["pixel_values"])


def test_training_crops_do_not_depend_on_the_number_of_workers():
    crops = TrainingCrops(ROWS, crop_size=32, seed=5)
    batches = [
        list(torch.utils.data.DataLoader(crops, batch_size=4, sampler=EpochSampler(10, seed=1), num_workers=workers))
        for workers in (0, 2)
    ]
    for alone, together in zip(*batches, strict=True):
        assert torch.equal(alone["pixel_values"], together["pixel_values"])
        assert torch.equal(alone["labels"], together["labels"])


def windows(array, size):
    return np.lib.stride_tricks.sliding_window_view(array, (size, size), axis=(0, 1))


def test_a_random_crop_is_a_window_of_the_image_or_of_its_mirror_image():
    image = noise(40, 60)
    pixels = np.asarray(image)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        crop = random_crop(image, 32, rng)
        assert crop.shape == (3, 32, 32) and crop.dtype == torch.uint8
        matches = {
            (mirrored, int(top), int(left))
            for mirrored, source in ((False, crop.numpy()), (True, crop.numpy()[..., ::-1]))
            for top, left in np.argwhere((windows(pixels, 32) == source).all(axis=(2, 3, 4)))
        }
        assert len(matches) == 1
        seen |= matches
    assert {mirrored for mirrored, _, _ in seen} == {False, True}
    assert {top for _, top, _ in seen} >= {0, 8} and len({left for _, _, left in seen}) > 15


def test_training_sees_an_image_at_the_resolution_of_scoring():
    image = noise(700, 600)
    scored = (MetaQAPImageProcessor()(image, return_tensors="pt")["pixel_values"][0, 0] * 255).round().byte()
    # The shrunk image is 597 x 512 and its first crop the upper 512 rows.
    pixels = scored.permute(1, 2, 0).numpy()
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(4):
        crop = random_crop(image, 64, rng).numpy()
        for source in (crop, crop[..., ::-1]):
            corner = (windows(pixels, 64)[:, :, :, 0, 0] == source[:, 0, 0]).all(axis=2)
            found += any(
                (pixels[y : y + 64, x : x + 64] == source.transpose(1, 2, 0)).all() for y, x in np.argwhere(corner)
            )
    assert found >= 2


def test_an_image_smaller_than_the_training_crop_is_padded_like_for_scoring():
    image = noise(20, 25)
    crop = random_crop(image, 32, np.random.default_rng(0)).numpy()
    padded = np.pad(np.asarray(image), ((6, 6), (3, 4), (0, 0)), mode="reflect").transpose(2, 0, 1)
    assert any(np.array_equal(crop, expected) for expected in (padded, padded[..., ::-1]))


def test_whole_images_come_as_the_image_processor_makes_them():
    processor = MetaQAPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    images = WholeImages(ROWS, processor)
    batch = collate_crops([images[index] for index in range(len(images))])
    expected = processor([row["image"] for row in ROWS], return_tensors="pt")
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    assert torch.equal(batch["crop_weights"], expected["crop_weights"])
    assert batch["crop_weights"].shape[1] > 1
    torch.testing.assert_close(batch["labels"], torch.arange(10) / 9)


# The base learner in training


@pytest.fixture
def no_imagenet(monkeypatch):
    monkeypatch.setattr(learner_module, "load_imagenet_weights", lambda backbone, name: None)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_moving_toward_imagenet_goes_that_part_of_the_way(monkeypatch, make_model, share):
    model = make_model({"backbone": "test_resnet"})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def load(backbone, name):
        assert name == "test_resnet"
        for tensor in backbone.state_dict().values():
            tensor.fill_(2)

    monkeypatch.setattr(learner_module, "load_imagenet_weights", load)
    move_toward_imagenet(model, share)
    for name, tensor in model.state_dict().items():
        if name.startswith("base_learners.0.backbone.") and tensor.is_floating_point():
            assert torch.allclose(tensor, (1 - share) * before[name] + share * 2, atol=1e-6), name
        elif not name.startswith("base_learners.0.backbone."):
            assert torch.equal(tensor, before[name]), "the heads are none of its business"


def test_moving_toward_imagenet_without_its_weights_is_a_sentence(monkeypatch, make_model):
    def load(backbone, name):
        raise OSError("The ImageNet weights could not be downloaded.")

    monkeypatch.setattr(learner_module, "load_imagenet_weights", load)
    with pytest.raises(MetaQAPError, match="could not be downloaded"):
        move_toward_imagenet(make_model({"backbone": "test_resnet"}), 0.5)


def test_a_new_base_learner_depends_on_the_seed_alone(no_imagenet):
    models = [new_base_learner(Recipe(backbone="test_resnet", seed=seed)) for seed in (1, 1, 2)]
    first, same, other = (model.base_learners[0].backbone.conv1[0].weight for model in models)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert models[0].config.distortion_labels == []


def test_a_new_base_learner_takes_imagenet_weights(monkeypatch):
    def fill(backbone, name):
        assert name == "test_resnet"
        torch.nn.init.constant_(backbone.conv1[0].weight, 7)

    monkeypatch.setattr(learner_module, "load_imagenet_weights", fill)
    model = new_base_learner(Recipe(backbone="test_resnet"))
    assert (model.base_learners[0].backbone.conv1[0].weight == 7).all()


def test_a_base_learner_can_start_from_a_trained_one(tmp_path, make_model):
    trained = make_model({"backbone": "test_resnet", **normalization("test_resnet")}, distortion_labels=[])
    trained.save_pretrained(tmp_path)
    model = new_base_learner(Recipe(backbone="test_resnet"), init=tmp_path)
    for name, tensor in model.base_learners[0].state_dict().items():
        assert torch.equal(tensor, trained.base_learners[0].state_dict()[name]), name
    with pytest.raises(MetaQAPError, match="does not hold the base learner"):
        new_base_learner(Recipe(backbone="test_efficientnet"), init=tmp_path)
    with pytest.raises(MetaQAPError, match="has no head for the 25 distortions; pretrain it first"):
        new_base_learner(Recipe(backbone="test_resnet", synthetic_batch_size=4), init=tmp_path)
    with pytest.raises(MetaQAPError, match="nowhere holds no trained base learner"):
        new_base_learner(Recipe(backbone="test_resnet"), init=tmp_path / "nowhere")


def test_a_distortion_head_is_taken_over_where_it_will_be_trained_and_dropped_elsewhere(tmp_path, make_model):
    pretrained = make_model({"backbone": "test_resnet", **normalization("test_resnet")})
    pretrained.save_pretrained(tmp_path)
    kept = new_base_learner(Recipe(backbone="test_resnet", synthetic_batch_size=4), init=tmp_path)
    assert torch.equal(
        kept.base_learners[0].distortion_head.weight, pretrained.base_learners[0].distortion_head.weight
    )
    dropped = new_base_learner(Recipe(backbone="test_resnet"), init=tmp_path)
    assert dropped.base_learners[0].distortion_head is None
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(dropped.eval()(x).logits, pretrained(x).logits)


@pytest.mark.parametrize(("stage", "stream", "labels"), [("pretrain", 0, 25), ("finetune", 2, 25), ("finetune", 0, 0)])
def test_a_learner_has_a_distortion_head_where_it_sees_distorted_images(stage, stream, labels):
    recipe = Recipe(backbone="test_resnet", stage=stage, synthetic_batch_size=stream)
    assert len(model_config(recipe).distortion_labels) == labels


def test_a_backbone_that_timm_does_not_have_is_one_sentence():
    with pytest.raises(MetaQAPError, match="no model 'resnet_fifty'"):
        new_base_learner(Recipe(backbone="resnet_fifty"))


def test_weights_that_cannot_be_had_are_one_sentence(monkeypatch):
    def unreachable(backbone, name):
        raise OSError("The ImageNet weights could not be downloaded.")

    monkeypatch.setattr(learner_module, "load_imagenet_weights", unreachable)
    with pytest.raises(MetaQAPError, match="could not be downloaded"):
        new_base_learner(Recipe(backbone="test_resnet"))


@pytest.mark.parametrize(
    ("backbone", "count", "frozen"),
    [
        ("test_efficientnet", 0, ()),
        ("test_efficientnet", 1, ("conv_stem", "bn1", "blocks.0")),
        ("test_efficientnet", 2, ("conv_stem", "bn1", "blocks.0", "blocks.1")),
        ({"backbone": "test_efficientnet", "stages": [4]}, 2, ("conv_stem", "bn1", "blocks.0", "blocks.1")),
        ("test_resnet", 1, ("conv1", "bn1")),  # the first stage is an activation without weights
        ("test_resnet", 2, ("conv1", "bn1", "layer1")),
        ("test_convnext", 1, ("stem_0", "stem_1", "stages_0")),
    ],
)
def test_the_first_stages_and_all_before_them_are_frozen(backbone, count, frozen, make_model):
    model = make_model(backbone)
    freeze_stages(model, count)
    for name, parameter in model.base_learners[0].named_parameters():
        expected = name.startswith(tuple(f"backbone.{part}." for part in frozen))
        assert parameter.requires_grad is not expected, name


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_convnext"])
@pytest.mark.parametrize("stages", [[0, 2], None])
def test_what_lies_behind_the_last_pooled_stage_waits_for_no_gradient(backbone, stages, make_model):
    model = make_model({"backbone": backbone, "stages": stages}, distortion_labels=[])
    freeze_stages(model, 0)
    model(pixel_values=torch.rand(2, 3, 64, 64)).logits.sum().backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("meta_learner"):
            assert parameter.requires_grad == (parameter.grad is not None), name


@pytest.mark.parametrize("count", [-1, 6])
def test_stages_that_do_not_exist_cannot_be_frozen(count, make_model):
    with pytest.raises(MetaQAPError, match="`freeze_stages` must lie between 0 and 5"):
        freeze_stages(make_model("test_efficientnet"), count)


def test_a_stage_behind_the_last_pooled_one_cannot_be_frozen(make_model):
    with pytest.raises(MetaQAPError, match="`freeze_stages` must lie between 0 and 3"):
        freeze_stages(make_model({"backbone": "test_efficientnet", "stages": [0, 2]}), 4)


def test_batch_norm_keeps_its_statistics_in_training(make_model):
    model = make_model("test_resnet")
    model.train()
    freeze_batch_norm(model)
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        in_training = model(x).logits
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())
    with torch.no_grad():
        torch.testing.assert_close(in_training, model.eval()(x).logits)


def test_heads_and_backbone_learn_at_their_own_rates_and_only_matrices_decay(make_model):
    model = make_model("test_efficientnet")
    freeze_stages(model, 1)
    recipe = Recipe(
        backbone="x", learning_rate=1e-4, head_learning_rate=1e-3, distortion_learning_rate=1e-2, weight_decay=0.02
    )
    settings_of = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, recipe)
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in settings_of
        elif ".backbone." in name:
            assert settings_of[id(parameter)] == (1e-4, 0.02 if parameter.ndim > 1 else 0), name
        else:
            rate = 1e-2 if "distortion_head" in name else 1e-3
            assert settings_of[id(parameter)] == (rate, 0), name


def ridge_reference(features, targets, penalties):
    """Ridge regression by the normal equations, the penalty by generalised cross-validation; NumPy only."""
    mean, std = features.mean(axis=0), features.std(axis=0, ddof=1)
    std = np.where(std > 1e-6 * std.max(), std, 1)
    z, centred = (features - mean) / std, targets - targets.mean()
    best = None
    for penalty in penalties:
        inverse = np.linalg.inv(z.T @ z + penalty * np.eye(z.shape[1]))
        weight = inverse @ z.T @ centred
        residual = centred - z @ weight
        gcv = (residual**2).mean() / (1 - np.trace(z @ inverse @ z.T) / len(targets)) ** 2
        if best is None or gcv < best[0]:
            best = (gcv, penalty, weight)
    return mean, std, best[1], best[2]


@pytest.mark.parametrize("whole_images", [False, True])
def test_the_ridge_head_is_the_solution_of_the_normal_equations(whole_images, make_model):
    model = make_model({"backbone": "test_efficientnet", "stages": [0, 2]}, distortion_labels=[])
    generator = torch.Generator().manual_seed(8)
    shape = (60, 2, 3, 32, 32) if whole_images else (60, 3, 32, 32)
    brightness = torch.rand(60, *[1] * (len(shape) - 1), generator=generator)
    pixels = (255 * brightness * torch.rand(shape, generator=generator)).to(torch.uint8)
    labels = brightness.flatten() + 0.1 * torch.randn(60, generator=generator)
    weights = torch.tensor([0.25, 0.75]).repeat(60, 1)
    batch = {"pixel_values": pixels, "labels": labels}
    if whole_images:
        batch |= {"pixel_values": pixels.float() / 255, "crop_weights": weights}
    batches = [{name: tensor[start : start + 16] for name, tensor in batch.items()} for start in range(0, 60, 16)]
    with torch.no_grad():
        # A dead channel of the first stage.
        model.base_learners[0].backbone.blocks[0][-1].bn1.weight[3] = 0
        model.base_learners[0].backbone.blocks[0][-1].bn1.bias[3] = 0
        stages = model.base_learners[0].stage_activations(pixels.flatten(0, -4).float() / 255)
    features = model.base_learners[0].pool(stages).double().numpy()
    if whole_images:
        features = 0.25 * features[::2] + 0.75 * features[1::2]

    found = fit_ridge_head(model, *pooled_features(model, batches, device=torch.device("cpu")))

    mean, std, penalty, weight = ridge_reference(features, labels.double().numpy(), 10 ** np.arange(-1, 5.01, 0.5))
    learner = model.base_learners[0]
    assert found["ridge_penalty"] == pytest.approx(penalty / 60)
    np.testing.assert_allclose(learner.feature_mean.numpy(), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learner.feature_std.numpy(), std, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learner.quality_head.weight[0].detach().numpy(), weight, rtol=1e-3, atol=1e-4)
    fitted = (features - mean) / std @ weight + labels.mean().item()
    with torch.no_grad():
        arguments = {"crop_weights": weights} if whole_images else {}
        scores = model(pixels.float() / 255, **arguments).logits[:, 0].numpy()
    np.testing.assert_allclose(scores, fitted, atol=1e-3)
    assert found["train_rmse"] == pytest.approx(np.sqrt(((fitted - labels.numpy()) ** 2).mean()), rel=1e-3)
    assert np.corrcoef(scores, labels.numpy())[0, 1] > 0.9


def new_base_learner_without_weights(backbone):
    return MetaQAPModel(model_config(Recipe(backbone=backbone))).eval()


def features_and_targets(model, n=50):
    generator = torch.Generator().manual_seed(0)
    features = 3 + 2 * torch.rand(n, model.base_learners[0].feature_mean.numel(), generator=generator).double()
    return features, torch.rand(n, generator=generator).double()


def test_a_given_ridge_penalty_is_for_each_image(make_model):
    model = make_model("test_resnet", distortion_labels=[])
    features, targets = features_and_targets(model)
    assert fit_ridge_head(model, features, targets, penalty=2.0)["ridge_penalty"] == 2.0
    x = (features - features.mean(dim=0)) / features.std(dim=0)
    expected = torch.linalg.solve(
        x.T @ x + 2 * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (targets - targets.mean())
    )
    torch.testing.assert_close(model.base_learners[0].quality_head.weight[0].double(), expected, rtol=1e-4, atol=1e-6)


def test_distorted_images_weigh_in_with_an_intercept_of_their_own(make_model):
    model = make_model("test_resnet", distortion_labels=[])
    features, targets = features_and_targets(model)
    others, scores = features.flip(0)[:20] * 1.5, targets[:20] * 0.7
    arguments = {"penalty": 2.0, "distorted_weight": 0.3}
    fit_ridge_head(model, features, targets, distorted=(others, scores), **arguments)
    learner = model.base_learners[0]
    found = learner.quality_head.weight[0].detach().double().numpy()

    # The same in one weighted least squares problem, with a column of ones for each kind of images.
    mean, std = features.mean(dim=0), features.std(dim=0)
    x = torch.cat([(features - mean) / std, (others - mean) / std]).numpy()
    photograph = np.repeat([1.0, 0.0], [50, 20])
    x = np.column_stack([x, photograph, 1 - photograph])
    y = torch.cat([targets, scores]).numpy()
    weights = np.where(photograph, 1.0, 0.3 * 50 / 20)
    penalties = np.diag(np.append(np.full(len(found), 2.0 * 50), [0.0, 0.0]))
    expected = np.linalg.solve(x.T @ (weights[:, None] * x) + penalties, x.T @ (weights * y))
    np.testing.assert_allclose(found, expected[:-2], rtol=1e-3, atol=1e-6)
    assert learner.quality_head.bias.item() == pytest.approx(targets.mean().item(), abs=1e-6)

    fit_ridge_head(model, features, targets, penalty=2.0, distorted=(others, scores))
    without = learner.quality_head.weight[0].detach().double().numpy().copy()
    assert not np.allclose(found, without, rtol=1e-2)
    fit_ridge_head(model, features, targets, penalty=2.0)
    np.testing.assert_array_equal(learner.quality_head.weight[0].detach().double().numpy(), without)


def test_the_penalty_is_chosen_by_the_photographs_alone(make_model):
    """Many distorted images of little weight do not pretend that there is much to learn from."""
    model = make_model("test_resnet", distortion_labels=[])
    size = model.base_learners[0].feature_mean.numel()
    features, targets = features_and_targets(model, n=2 * size)  # of which nothing can be learned
    generator = torch.Generator().manual_seed(1)
    others = torch.rand(20 * size, size, generator=generator).double()
    scores = torch.rand(20 * size, generator=generator).double()
    alone = fit_ridge_head(model, features, targets)
    together = fit_ridge_head(model, features, targets, distorted=(others, scores), distorted_weight=0.01)
    assert alone["ridge_penalty"] > 10 and together["ridge_penalty"] > 10


def test_the_distortion_head_is_fitted_by_logistic_regression(make_model):
    """At the minimum the gradient of the penalised cross-entropy, written out in NumPy, is zero."""
    model = make_model("test_resnet", distortion_labels=["a", "b", "c"])
    features, _ = features_and_targets(model, n=90)
    distortions = torch.arange(90) % 3
    features[:, :2] += 5 * torch.nn.functional.one_hot(distortions)[:, :2]
    found = fit_distortion_head(model, features, distortions, penalty=0.01)
    learner = model.base_learners[0]
    with torch.no_grad():
        logits = learner.distortion_head(learner.standardize(features.float())).double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.eye(3)[distortions]
    assert found["distortion_cross_entropy"] == pytest.approx(-np.log(probabilities[truth == 1]).mean(), rel=1e-3)
    x = ((features - features.mean(dim=0)) / features.std(dim=0)).numpy()
    spread = features.std(dim=0) / learner.feature_std.double()
    weight = (learner.distortion_head.weight.detach().double() * spread).numpy().T
    np.testing.assert_allclose(x.T @ (probabilities - truth) / 90 + 0.01 * weight, 0, atol=2e-3)
    assert (logits.argmax(axis=1) == distortions.numpy()).mean() > 0.95
    with pytest.raises(ValueError, match="no distortion head"):
        fit_distortion_head(make_model("test_resnet", distortion_labels=[]), features, distortions)


KERNEL = {"num_components": 5, "gamma": 2.0, "penalty": 0.1, "seed": 0}


@pytest.mark.parametrize("num_centers", [100, 30])
def test_the_kernel_head_is_the_kernel_ridge_regression_of_the_residual(num_centers, make_model):
    model = make_model("test_resnet", distortion_labels=[])
    features, targets = features_and_targets(model)
    fit_ridge_head(model, features, targets)
    learner = model.base_learners[0]
    with torch.no_grad():
        standardized = learner.standardize(features.float())
        residual = (targets - learner.score(standardized)).numpy()
        fitted = fit_kernel_head(model, features, targets, num_centers=num_centers, **KERNEL)
        found = learner.kernel_head(standardized).numpy()
    assert model.config.base_learners[0]["kernel_head"] == {"num_components": 5, "num_centers": min(50, num_centers)}
    points = standardized.double().numpy() @ np.linalg.svd(standardized.double().numpy())[2][:5].T
    gamma = 2.0 / points.var(axis=0, ddof=1).sum()
    kernel = np.exp(-gamma * ((points[:, None] - points) ** 2).sum(axis=2))
    if num_centers == 100:  # all images: kernel ridge regression in its closed form
        expected = kernel @ np.linalg.solve(kernel + 0.1 * np.eye(50), residual)
        np.testing.assert_allclose(found, expected, atol=5e-3)
        assert fitted["train_rmse"] < 0.9 * np.sqrt((residual**2).mean())
    else:
        assert len(learner.kernel_head.centers.unique(dim=0)) == 30
        assert ((found - residual) ** 2).mean() < (residual**2).mean()
    assert fitted["train_rmse"] == pytest.approx(np.sqrt(((found - residual) ** 2).mean()), rel=1e-3)


@pytest.mark.parametrize("num_centers", [100, 99])
def test_a_kernel_head_bears_photographs_that_are_there_twice(num_centers, make_model):
    model = make_model("test_resnet", distortion_labels=[])
    features, targets = (torch.cat([tensor, tensor]) for tensor in features_and_targets(model))
    fit_ridge_head(model, features, targets)
    assert fit_kernel_head(model, features, targets, num_centers=num_centers, **KERNEL)["train_rmse"] < 0.3


def test_a_kernel_head_stays_out_of_what_follows(make_model, tmp_path):
    """Neither fitting the linear head anew nor training on starts from the kernel head of before."""
    model = new_base_learner_without_weights("test_resnet")
    features, targets = features_and_targets(model)
    fit_ridge_head(model, features, targets)
    fit_kernel_head(model, features, targets, num_centers=100, **KERNEL)
    model.save_pretrained(tmp_path)
    begun = new_base_learner(Recipe(backbone="test_resnet"), init=tmp_path)
    assert begun.base_learners[0].kernel_head is None
    torch.testing.assert_close(begun.base_learners[0].quality_head.weight, model.base_learners[0].quality_head.weight)
    fit_ridge_head(model, features, targets)
    assert model.base_learners[0].kernel_head is None and model.config.base_learners[0]["kernel_head"] is None


def test_fitting_the_quality_head_leaves_what_the_distortion_head_says(make_model):
    model = make_model("test_resnet")
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
        generator = torch.Generator().manual_seed(0)
        features = 3 + 2 * torch.rand(50, model.base_learners[0].feature_mean.numel(), generator=generator).double()
        fit_ridge_head(model, features, torch.rand(50, generator=generator).double())
        after = model(x)
    assert not torch.allclose(before.logits, after.logits)
    torch.testing.assert_close(before.distortion_logits, after.distortion_logits, rtol=1e-4, atol=1e-4)


# The run folder


def write_state(run, step):
    run.clear_pending_state(step)
    pending = run.pending_state(step)
    pending.mkdir(parents=True)
    (pending / "random_states_0.pkl").write_text(str(step))
    return pending


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start(Recipe(backbone="test_resnet"), resume=False)
    return folder


def test_a_folder_with_a_run_is_not_overwritten(run):
    with pytest.raises(MetaQAPError, match="already holds a run.*--resume_from_checkpoint latest"):
        run.start(Recipe(backbone="test_resnet"), resume=False)


def test_a_run_that_never_began_begins_when_it_is_resumed(tmp_path):
    run = RunFolder(tmp_path / "new")
    assert run.state_to_resume("latest") is None
    run.start(Recipe(backbone="test_resnet"), resume=True)
    assert Recipe.load(run.path / "recipe.yaml").backbone == "test_resnet"


def test_a_run_is_resumed_from_the_newest_state_or_the_one_named(run):
    for step in (5, 10):
        run.commit_state(write_state(run, step))
    assert run.state_to_resume(None) is None
    assert run.state_to_resume("latest").name == "step_10"
    assert run.state_to_resume(str(run.states / "step_5")).name == "step_5"
    for wrong in (run.states / "step_7", run.path, write_state(run, 7)):
        with pytest.raises(MetaQAPError, match=f"no state to resume from in {wrong}; name one of its folders"):
            run.state_to_resume(str(wrong))


def test_a_run_is_resumed_with_its_own_recipe_only(run):
    run.start(Recipe(backbone="test_resnet"), resume=True)
    with pytest.raises(MetaQAPError, match="was started with another recipe"):
        run.start(Recipe(backbone="test_resnet", seed=1), resume=True)


def test_the_newest_complete_state_is_the_one_to_resume_from(run):
    assert run.latest_state() is None
    for step in (5, 100, 20):
        run.commit_state(write_state(run, step), keep=9)
    assert run.latest_state().name == "step_100"
    assert (run.latest_state() / "random_states_0.pkl").read_text() == "100"


def test_a_half_written_state_is_ignored_and_written_anew(run):
    run.commit_state(write_state(run, 10))
    write_state(run, 20)  # and then the machine went off
    assert run.latest_state().name == "step_10"
    (run.states / "step_20.tmp" / "leftover").touch()
    run.commit_state(write_state(run, 20))
    assert run.latest_state().name == "step_20"
    assert [path.name for path in run.latest_state().iterdir()] == ["random_states_0.pkl"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(8))
def test_whatever_moment_a_kill_comes_at_what_is_left_are_whole_states(moment, run, monkeypatch):
    for step in (5, 10):
        run.commit_state(write_state(run, step))
    pending = write_state(run, 10)
    (pending / "newer").touch()
    calls = iter(range(99))

    def or_killed(function):
        def call(path, *args, **options):
            if next(calls) == moment:
                if function is shutil.rmtree and Path(path).is_dir():  # in the middle of it
                    next(Path(path).iterdir()).unlink()
                raise Killed
            return function(path, *args, **options)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", or_killed(shutil.rmtree))
        patched.setattr(Path, "rename", or_killed(Path.rename))
        with suppress(Killed):
            run.commit_state(pending, keep=1)
        done = next(calls) <= moment
    assert all((path / "random_states_0.pkl").exists() for path in run.states.iterdir() if path.suffix != ".tmp")
    assert run.latest_state() is not None
    run.commit_state(write_state(run, 20), keep=1)  # and it goes on
    assert [path.name for path in run.states.iterdir() if path.suffix != ".tmp"] == ["step_20"]
    assert done == (moment >= 7)


def test_only_the_newest_states_are_kept(run):
    for step in (5, 50, 500):
        run.commit_state(write_state(run, step))
    assert sorted(path.name for path in run.states.iterdir()) == ["step_50", "step_500"]
    run.commit_state(write_state(run, 500))
    assert sorted(path.name for path in run.states.iterdir()) == ["step_50", "step_500"]


def test_metrics_of_steps_that_are_done_again_are_forgotten(run):
    run.forget_after(3)
    for step in (0, 10, 20, 30):
        run.log(step=step, loss=1 / (step + 1))
    with run.metrics_file.open("a") as file:
        file.write('{"step": 40, "lo')  # cut off by a kill
    run.log(step=20, refit_head=True)
    for step in (20, 30):
        run.commit_state(write_state(run, step))
    run.forget_after(20)
    assert run.latest_state().name == "step_20", "the run takes another way from here"
    run.log(step=30, loss=0.5)
    rows = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 10, 20, 30]
    assert rows[-1]["loss"] == 0.5


def test_curves_are_drawn_from_what_was_logged(run):
    plot_curves(run.rows(), run.path / "curves.png")  # of nothing
    empty = (run.path / "curves.png").read_bytes()
    for step in (10, 20):
        run.log(step=step, epoch=0, loss=1 / step)
    run.log(step=20, epoch=1, validation_plcc=0.5, validation_srocc=0.4)
    plot_curves(run.rows(), run.path / "curves.png")
    drawn = Image.open(run.path / "curves.png")
    assert drawn.size == (1200, 480)
    assert (run.path / "curves.png").read_bytes() != empty


def test_a_run_says_with_which_versions_it_was_made(run):
    versions = json.loads((run.path / "versions.json").read_text())
    assert (versions["torch"], versions["accelerate"]) == (version("torch"), version("accelerate"))


def test_training_is_over_when_the_last_epochs_were_no_better():
    position = Position(epoch=5, best_epoch=3)
    assert [position.is_over(patience) for patience in (None, 1, 2, 3)] == [False, True, True, False]


def rates(recipe, model, steps):
    optimizer, scheduler = make_optimizer(model, recipe, steps_per_epoch=10)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return optimizer, seen


def test_rates_rise_and_fall_as_the_recipe_says(make_model):
    model = make_model("test_resnet", distortion_labels=[])
    recipe = Recipe(backbone="x", epochs=6, learning_rate=0.1, head_learning_rate=0.1, warmup_fraction=0.1)
    optimizer, cosine = rates(recipe, model, 60)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert cosine[0] == 0 and cosine[6] == pytest.approx(0.1) and max(cosine) == cosine[6] and cosine[-1] < 1e-3
    recipe = replace(recipe, optimizer="sgd", schedule="halving", halving_epochs=2, warmup_fraction=0.0)
    optimizer, halving = rates(recipe, model, 60)
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"] == 0.9
    assert halving == pytest.approx([0.1] * 20 + [0.05] * 20 + [0.025] * 20)


# One step, in chunks or on several processes


@pytest.mark.parametrize("chunks", [2, 3, 8])
@pytest.mark.parametrize("synthetic", [0, 3])
def test_a_step_computed_in_chunks_has_the_loss_and_gradients_of_the_whole(chunks, synthetic, make_model):
    recipe = Recipe(backbone="x", synthetic_batch_size=synthetic, loss_surrogate="soft_rank")
    torch.manual_seed(0)
    pixels = torch.randint(256, (5 + synthetic, 3, 32, 32), dtype=torch.uint8)
    labels, distortions = torch.rand(5), torch.tensor([3, 1, 24]) if synthetic else None
    found = []
    for count in (1, chunks):
        model = make_model("test_resnet", distortion_labels=None if synthetic else [])
        loss = forward_backward(Accelerator(cpu=True), model, recipe, Batch(pixels, labels, distortions), chunks=count)
        found.append((loss, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (whole, expected), (in_chunks, gradients) = found
    torch.testing.assert_close(in_chunks, whole)
    assert any(gradient.abs().max() > 0 for gradient in expected.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


def test_a_step_that_diverges_updates_nothing(make_model):
    model = make_model("test_resnet", distortion_labels=[])
    recipe = Recipe(backbone="x", head_learning_rate=0.1, warmup_fraction=0.0)
    accelerator = Accelerator(cpu=True)
    state = begin_state(model, recipe, accelerator, steps_per_epoch=10)
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}

    def step(labels):
        return training_step(accelerator, state, recipe, Batch(pixels, labels))

    assert math.isnan(step(torch.full((4,), torch.inf)))
    # A loss that is finite may still have a gradient that is not.
    hook = model.base_learners[0].quality_head.weight.register_hook(lambda gradient: gradient * torch.nan)
    assert math.isnan(step(torch.rand(4)))
    hook.remove()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not state.optimizer.state and state.average.updates == 0 and state.scheduler.last_epoch == 0
    assert math.isfinite(step(torch.rand(4)))
    assert not torch.equal(model.base_learners[0].quality_head.weight, before["base_learners.0.quality_head.weight"])
    assert state.average.updates == 1


TWO_PROCESSES = """
import json, sys
import torch
from accelerate import Accelerator, debug_launcher
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.step import distortion_loss, quality_loss

def work(report):
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    data = torch.load(report + ".pt", weights_only=True)
    mine = slice(4 * accelerator.process_index, 4 * accelerator.process_index + 4)
    found = {}
    for surrogate in ("softmax", "soft_rank"):
        layer = torch.nn.Linear(6, 4)
        layer.load_state_dict(data["layer"])
        layer = accelerator.prepare(layer)
        recipe = Recipe(backbone="x", loss_surrogate=surrogate, loss_mse_weight=0.3, loss_srocc_weight=0.7)
        outputs = layer(data["x"][mine])
        quality = quality_loss(accelerator, outputs[:, :1], data["y"][mine], recipe)
        distortion = distortion_loss(accelerator, outputs[:, 1:], data["classes"][mine])
        accelerator.backward((quality + distortion) * accelerator.num_processes)
        losses = [quality.item(), accelerator.reduce(distortion.detach(), "sum").item()]
        found[surrogate] = [losses, [p.grad.flatten().tolist() for p in layer.parameters()]]
    with open(f"{report}.{accelerator.process_index}", "w") as file:
        json.dump(found, file)

if __name__ == "__main__":
    debug_launcher(work, (sys.argv[1],), num_processes=2)
"""


def test_two_processes_have_the_loss_and_gradient_of_one_with_the_whole_batch(tmp_path):
    torch.manual_seed(9)
    layer, x, y, classes = torch.nn.Linear(6, 4), torch.rand(8, 6), torch.rand(8), torch.randint(3, (8,))
    report = tmp_path / "report"
    torch.save({"layer": layer.state_dict(), "x": x, "y": y, "classes": classes}, f"{report}.pt")
    program = tmp_path / "program.py"
    program.write_text(TWO_PROCESSES)
    tests = ROOT / "tests"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, runpy; sys.path[:0] = [{str(tests)!r}, {str(tests.parent)!r}]\n"
            f"sys.argv = [{str(program)!r}, {str(report)!r}]; runpy.run_path({str(program)!r}, run_name='__main__')",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for surrogate in ("softmax", "soft_rank"):
        layer.zero_grad()
        quality = quality_aware_loss(layer(x)[:, 0], y, lambda_mse=0.3, lambda_srocc=0.7, surrogate=surrogate)
        distortion = torch.nn.functional.cross_entropy(layer(x)[:, 1:], classes)
        (quality + distortion).backward()
        expected = [parameter.grad.flatten().tolist() for parameter in layer.parameters()]
        for process in range(2):
            found_losses, gradients = json.loads(Path(f"{report}.{process}").read_text())[surrogate]
            assert found_losses == pytest.approx([quality.item(), distortion.item()], abs=1e-6)
            for found, reference in zip(gradients, expected, strict=True):
                assert found == pytest.approx(reference, abs=1e-6)


def test_a_trained_model_is_a_model_like_any_other(no_imagenet, tmp_path):
    model = new_base_learner(Recipe(backbone="test_resnet", loss_surrogate="soft_rank"))
    model.save_pretrained(tmp_path)
    loaded = MetaQAPModel.from_pretrained(tmp_path)
    assert loaded.config.loss_surrogate == "soft_rank"
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x).logits, model.eval()(x).logits)
