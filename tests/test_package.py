"""The package as users import it: light, with every public name, and with types."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT
from start_up import fresh_python, imported_packages

import modeling_metaqap

HEAVY = {"torch", "transformers", "timm", "numpy", "PIL", "matplotlib", "datasets", "accelerate", "pandas", "typer"}


def test_importing_the_package_imports_nothing_else():
    process, packages = imported_packages("-c", "import modeling_metaqap")
    assert process.returncode == 0
    assert "modeling_metaqap" in packages
    assert not packages & HEAVY


@pytest.mark.parametrize(
    "first",
    [
        "import modeling_metaqap",
        "import transformers.models.auto.modeling_auto",
        "from modeling_metaqap import MetaQAPConfig",
        "from modeling_metaqap import MetaQAPImageProcessor",
        "from modeling_metaqap import Scorer",
    ],
)
def test_auto_classes_know_the_model_whatever_is_imported_first(first):
    program = (
        "from modeling_metaqap import DEFAULT_CHECKPOINT as folder\n"
        "from transformers import AutoConfig, AutoImageProcessor, AutoModel\n"
        "config = AutoConfig.from_pretrained(folder)\n"
        "config.base_learners, config.learner_subsets = config.base_learners[:1], None\n"
        "made = config, AutoImageProcessor.from_pretrained(folder), AutoModel.from_config(config)\n"
        "print(*(type(one).__module__ for one in made))\n"
    )
    process = fresh_python("-c", f"{first}\n{program}")
    files = ("configuration_metaqap", "image_processing_metaqap", "modeling_metaqap")
    assert process.stdout.split() == [f"modeling_metaqap.{name}" for name in files], process.stderr


def test_every_public_name_can_be_imported():
    pytest.importorskip("datasets", reason="needs the train extra")
    for name in modeling_metaqap.__all__:
        assert getattr(modeling_metaqap, name) is not None
    assert set(modeling_metaqap.__all__) <= set(dir(modeling_metaqap))
    with pytest.raises(AttributeError, match="has no attribute 'Scorers'"):
        _ = modeling_metaqap.Scorers


def test_type_checkers_see_the_names_where_they_are_imported_from():
    tree = ast.parse(Path(modeling_metaqap.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    declared = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            # `import X as X` is how a stub says that a name is public.
            assert alias.asname == alias.name
            declared[alias.name] = node.module
    assert declared == modeling_metaqap._PUBLIC


PROGRAM = """
from modeling_metaqap import (
    DEFAULT_CHECKPOINT, MetaQAPConfig, MetaQAPModel, Recipe, Scorer, evaluate_scores, load_iqa_dataset
)

reveal_type(DEFAULT_CHECKPOINT)
scorer = Scorer(DEFAULT_CHECKPOINT, device="cpu")
for record in scorer.score(["photo.jpg"]):
    reveal_type(record.quality)
reveal_type(scorer.model)
load_iqa_dataset("biq2021", splits="validation")
reveal_type(MetaQAPModel(MetaQAPConfig()).base_models())
reveal_type(Recipe.load("recipe.yaml").backbone)
reveal_type(evaluate_scores([0.1, 0.2], [0.3, 0.4]))
Scorer(batch_size="8")
Scorer(bach_size=8)
"""

REVEALED = [
    "pathlib.Path",
    "float | None",
    "modeling_metaqap.modeling_metaqap.MetaQAPModel",
    "list[modeling_metaqap.modeling_metaqap.MetaQAPModel]",
    "str",
    "dict[str, Any]",
]


@pytest.mark.slow
def test_a_users_type_checker_sees_the_public_names(tmp_path):
    pytest.importorskip("mypy", reason="needs the dev extra")
    assert (Path(modeling_metaqap.__file__).parent / "py.typed").is_file()
    (tmp_path / "program.py").write_text(PROGRAM)
    # A package that is installed for editing is invisible to mypy; a link beside the program stands for site-packages.
    (tmp_path / "modeling_metaqap").symlink_to(ROOT / "modeling_metaqap")
    # With the settings of `make lint`, so that what that has read of torch and transformers is not read again.
    options = [f"--config-file={ROOT / 'setup.cfg'}", f"--cache-dir={ROOT / '.mypy_cache'}"]
    command = [sys.executable, "-m", "mypy", *options, "program.py"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    lines = process.stdout.splitlines()
    notes = [line.partition('Revealed type is "')[2].rstrip('"') for line in lines if "Revealed type" in line]
    assert notes == REVEALED, process.stdout + process.stderr
    errors = [line for line in lines if ": error:" in line]
    assert len(errors) == 3, process.stdout
    assert 'Missing named argument "split"' in errors[0]
    assert '"batch_size" to "Scorer" has incompatible type "str"' in errors[1]
    assert 'Unexpected keyword argument "bach_size"' in errors[2]
