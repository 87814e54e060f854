import subprocess
import sys

import pytest

from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.training.arguments import parse_arguments
from modeling_metaqap.training.settings import RunSettings


@pytest.fixture
def needed(tmp_path):
    (tmp_path / "recipe.yaml").write_text("backbone: test_resnet\nepochs: 2\n")
    return ["--stage", "finetune", "--recipe", str(tmp_path / "recipe.yaml"), "--output_dir", "runs/one"]


def test_what_is_left_out_has_its_default(needed):
    recipe, settings = parse_arguments(needed)
    assert (recipe.backbone, recipe.epochs) == ("test_resnet", 2)
    assert settings == RunSettings(output_dir="runs/one")


def test_the_command_line_goes_before_the_recipe(needed):
    options = ["--epochs", "5", "--hold_out", "fold 1 of 5", "--seed", "3", "--num_workers", "0", "--init", "learner"]
    recipe, settings = parse_arguments([*needed, *options])
    assert (recipe.epochs, recipe.hold_out, recipe.seed) == (5, "fold 1 of 5", 3)
    assert settings == RunSettings(output_dir="runs/one", num_workers=0, init="learner")


@pytest.mark.parametrize("option", ["logging_steps", "gradient_accumulation_steps"])
def test_a_number_that_is_too_small_is_refused(option, needed):
    with pytest.raises(MetaQAPError, match=f"`{option}` must be at least 1, got 0"):
        parse_arguments([*needed, f"--{option}", "0"])


def test_a_wrong_option_is_answered_without_importing_torch(needed):
    """By the module that there is after `pip install`, too."""
    program = (
        "import runpy, sys\n"
        "try:\n"
        "    runpy.run_module('modeling_metaqap.training', run_name='__main__')\n"
        "finally:\n"
        "    print([name for name in ('torch', 'transformers', 'accelerate', 'datasets') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", program, *needed, "--epoch_s", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "unrecognized arguments: --epoch_s 3" in ended.stderr
    assert ended.stdout == "[]\n"
