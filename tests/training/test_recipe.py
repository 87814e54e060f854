import subprocess
import sys

import pytest
from repository import ROOT

from modeling_metaqap import losses_metaqap
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.training import recipe as recipe_module
from modeling_metaqap.training.learner import (
    model_config,
)
from modeling_metaqap.training.recipe import Recipe


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


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
        ("1: 2\nbackbone: a", "must be a mapping"),
        ("day: 2001-99-99", "is not YAML"),
        ("[" * 400, "is not YAML"),
        (f"backbone: a\nlearning_rate: 1{400 * '0'}", "`learning_rate` in .* must be a number"),
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
        ("backbone: a\nstages: [1.5]", r"`stages` must be a list of different numbers of .* got \[1.5\]"),
        ("backbone: a\nstages: 1", "`stages` must be a list of different numbers of stages, or null, got 1"),
        ("backbone: a\nstages: []", "`stages` must be a list of different numbers of stages"),
        ("backbone: a\nscales: [0.5]", r"`scales` must be a list of different whole numbers, or null, got \[0.5\]"),
        ("backbone: a\nscales: [1, 1]", r"`scales` must be a list of different whole numbers, or null, got \[1, 1\]"),
        ("backbone: a\nscales: 2", "`scales` must be a list of different whole numbers, or null, got 2"),
        ("backbone: a\nbatch_size: 0", "`batch_size` must be at least 1"),
        ("backbone: a\nlearning_rate: 0", "`learning_rate` must be above 0"),
        ("backbone: a\nmax_grad_norm: .nan", "`max_grad_norm` in .* must be a number, got nan"),
        ("backbone: a\nema_decay: 1", r"`ema_decay` must lie in \[0, 1\)"),
        ("backbone: a\ndrop_path: 1", r"`drop_path` must lie in \[0, 1\)"),
        ("backbone: a\nmin_scale: 0", r"`min_scale` must lie in \(0, 1\]"),
        ("backbone: a\nmin_scale: 1.5", r"`min_scale` must lie in \(0, 1\]"),
        ("backbone: a\nteacher_weight: 2", r"`teacher_weight` must lie in \[0, 1\]"),
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


def test_reading_a_recipe_imports_nothing_heavy():
    heavy = ["accelerate", "datasets", "matplotlib", "numpy", "pandas", "timm", "torch", "transformers"]
    program = (
        "import sys\nfrom modeling_metaqap.training.recipe import Recipe\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_recipe_knows_the_surrogates_of_the_loss():
    assert set(recipe_module.SURROGATES) == set(losses_metaqap.SURROGATES)
