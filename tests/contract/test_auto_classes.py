"""The model under transformers' auto classes and pipelines: with the package installed, and as code from a folder."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from repository import MODEL_FILES
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
from transformers.models.auto import image_processing_auto
from wide_intervals import WIDE_INTERVALS

import modeling_metaqap
from modeling_metaqap import (
    ImageQualityAssessmentPipeline,
    MetaQAPConfig,
    MetaQAPImageProcessor,
    MetaQAPImageProcessorPil,
    MetaQAPModel,
    MetaQAPOutput,
)

# Runs where the package cannot be imported. Editable installs put it on the path of any interpreter, so it is blocked.
REMOTE_PROGRAM = """
import importlib, json, pathlib, sys, warnings

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_metaqap":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
try:
    importlib.import_module("modeling_metaqap")
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package can be imported, so this shows nothing")

import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

folder, resaved, photo, report = sys.argv[1:]
remote = {"trust_remote_code": True}
found = {}

config = AutoConfig.from_pretrained(folder, **remote)
image_processor = AutoImageProcessor.from_pretrained(folder, **remote)
inputs = image_processor(Image.open(photo), return_tensors="pt")

def scores(model):
    with torch.no_grad():
        output = model.eval()(**inputs, output_quality_map=True)
    names = ("logits", "base_scores", "interval", "familiarity", "distortion_logits")
    return {name: output[name].tolist() for name in names} | {"map_mean": output.quality_map.mean().item()}

model = AutoModel.from_pretrained(folder, **remote)
classifier = AutoModelForImageClassification.from_pretrained(folder, **remote)
found["pixel_sum"] = inputs["pixel_values"].double().sum().item()
found["backends"] = {}
for backend in ("torchvision", "pil"):
    loaded = AutoImageProcessor.from_pretrained(folder, backend=backend, **remote)
    pixels = loaded(Image.open(photo), return_tensors="pt")["pixel_values"]
    found["backends"][type(loaded).__name__] = [loaded.backend, torch.equal(pixels, inputs["pixel_values"])]
found["AutoModel"] = scores(model)
found["AutoModelForImageClassification"] = scores(classifier)
found["from_config"] = type(AutoModel.from_config(config, **remote)).__name__

assess = pipeline("image-quality-assessment", model=folder, **remote)
found["image-quality-assessment"] = assess(photo)
found["image-classification"] = pipeline("image-classification", model=folder, **remote)(photo)

# What was loaded as remote code can be saved again and stands by itself.
assess.save_pretrained(resaved)
found["resaved"] = scores(AutoModel.from_pretrained(resaved, **remote))
found["resaved pipeline"] = pipeline("image-quality-assessment", model=resaved, **remote)(photo)

# So can the model and the image processor alone, as `Trainer` saves them.
apart = resaved + "-apart"
AutoModel.from_pretrained(folder, **remote).save_pretrained(apart)
image_processor.save_pretrained(apart)
found["pipeline of parts"] = pipeline("image-quality-assessment", model=apart, **remote)(photo)

classes = (config, image_processor, model, classifier, assess)
found["modules"] = [type(item).__module__ for item in classes]
found["imported"] = [name for name in sys.modules if name.partition(".")[0] == "modeling_metaqap"]
pathlib.Path(report).write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("test_efficientnet", "test_resnet", **WIDE_INTERVALS)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A picture of 150 x 90 pixels, in PNG."""
    y, x = np.mgrid[0:90, 0:150]
    pixels = np.stack([x % 256, (y * 2) % 256, (x * y // 40) % 256], axis=-1).astype(np.uint8)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def image_processor():
    return MetaQAPImageProcessor(size={"shortest_edge": 64}, crop_size=64)


@pytest.fixture(scope="module")
def expected(model, image_processor, photo):
    """The scores of the photograph by the classes of the package, called directly."""
    inputs = image_processor(Image.open(photo), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 2, 3, 64, 64)
    with torch.no_grad():
        return model(**inputs, output_quality_map=True)


@pytest.fixture(scope="module")
def folder(model, image_processor, tmp_path_factory):
    """What `save_pretrained` of the pipeline writes; it calls the model's and the image processor's."""
    path = tmp_path_factory.mktemp("saved") / "checkpoint"
    pipeline("image-quality-assessment", model=model, image_processor=image_processor).save_pretrained(path)
    return path


def check_assessment(found, expected):
    assert found["quality"] == pytest.approx(expected.logits.item(), abs=1e-6)
    assert [found["quality_low"], found["quality_high"]] == pytest.approx(expected.interval[0].tolist(), abs=1e-6)
    assert found["base_scores"] == pytest.approx(expected.base_scores[0].tolist(), abs=1e-6)
    probabilities = expected.distortion_logits[0].softmax(dim=0)
    assert found["distortion"] == MetaQAPConfig().distortion_labels[int(probabilities.argmax())]
    assert found["distortion_probability"] == pytest.approx(probabilities.max().item(), abs=1e-6)


def check_classification(found, expected):
    assert [item["label"] for item in found] == ["quality"]
    # A regression: no sigmoid or softmax may be applied to the score.
    assert found[0]["score"] == pytest.approx(expected.logits.item(), abs=1e-6)


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForImageClassification])
def test_an_auto_class_gives_the_installed_model(auto_class, folder, image_processor, photo, expected):
    model = auto_class.from_pretrained(folder)
    assert type(model) is MetaQAPModel
    with torch.no_grad():
        output = model(**image_processor(Image.open(photo), return_tensors="pt"))
    assert isinstance(output, MetaQAPOutput)
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=1e-6)


def test_auto_config_and_auto_image_processor_give_the_installed_classes(folder, model, image_processor):
    config = AutoConfig.from_pretrained(folder)
    assert type(config) is MetaQAPConfig
    assert config.base_learners == model.config.base_learners
    assert type(AutoModel.from_config(config)) is MetaQAPModel
    loaded = AutoImageProcessor.from_pretrained(folder)
    assert type(loaded) is MetaQAPImageProcessor
    assert loaded.to_dict() == image_processor.to_dict()


@pytest.mark.parametrize(
    "options, expected_class",
    [
        ({}, MetaQAPImageProcessor),
        ({"backend": "torchvision"}, MetaQAPImageProcessor),
        ({"backend": "pil"}, MetaQAPImageProcessorPil),
    ],
    ids=str,
)
def test_each_backend_of_the_image_processor_is_there_and_none_falls_back(
    options, expected_class, folder, photo, image_processor, tmp_path, monkeypatch
):
    warnings = []
    monkeypatch.setattr(image_processing_auto.logger, "warning_once", warnings.append)
    loaded = AutoImageProcessor.from_pretrained(folder, **options)
    loaded.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path, **options)
    assert type(loaded) is type(again) is expected_class
    assert loaded.backend == options.get("backend", "torchvision")
    assert warnings == []
    pixels = image_processor(Image.open(photo), return_tensors="pt")["pixel_values"]
    assert torch.equal(loaded(Image.open(photo), return_tensors="pt")["pixel_values"], pixels)


def test_the_quality_pipeline_runs_with_the_package_installed(folder, photo, expected):
    assess = pipeline("image-quality-assessment", model=str(folder))
    assert type(assess) is ImageQualityAssessmentPipeline
    check_assessment(assess(str(photo)), expected)


@pytest.mark.parametrize("task", ["image-quality-assessment", "image-classification"])
def test_a_pipeline_asks_for_no_leave_to_run_code(task, folder, monkeypatch):
    # transformers catches what goes wrong here, so the questions are counted.
    questions = []
    monkeypatch.setattr("builtins.input", lambda question="": questions.append(question) or "n")
    assert pipeline(task, model=str(folder)).video_processor is None
    assert questions == []


def test_the_stock_classification_pipeline_runs_with_the_package_installed(folder, photo, expected):
    classify = pipeline("image-classification", model=str(folder))
    check_classification(classify(str(photo)), expected)
    # Images with the same number of crops go through it in batches, too.
    for found in classify([str(photo)] * 3, batch_size=2):
        check_classification(found, expected)


def test_the_stock_classification_pipeline_takes_photographs_of_several_sizes_in_a_batch(folder, photo, tmp_path):
    Image.open(photo).crop((0, 0, 80, 90)).save(tmp_path / "square.png")
    Image.open(photo).resize((300, 64)).save(tmp_path / "wide.png")
    photos = [str(photo), str(tmp_path / "square.png"), str(tmp_path / "wide.png")]
    alone = [pipeline("image-classification", model=str(folder))(path)[0]["score"] for path in photos]
    image_processor = AutoImageProcessor.from_pretrained(folder, do_pad=False)
    assert [len(image_processor(Image.open(path))["pixel_values"]) for path in photos] == [2, 2, 5]
    for batch_size in (2, 3):
        classify = pipeline("image-classification", model=str(folder), image_processor=image_processor)
        found = [item[0]["score"] for item in classify(photos, batch_size=batch_size)]
        assert found == pytest.approx(alone, abs=1e-6)


def test_a_saved_folder_works_as_remote_code_without_the_package_and_the_hub(folder, photo, expected, tmp_path):
    program, report = tmp_path / "program.py", tmp_path / "report.json"
    program.write_text(REMOTE_PROGRAM)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }
    # -I: neither the working directory nor the environment's paths are searched for modules.
    done = subprocess.run(
        [sys.executable, "-I", str(program), str(folder), str(tmp_path / "resaved"), str(photo), str(report)],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(report.read_text())
    assert found["imported"] == []
    assert all(module.startswith("transformers_modules.") for module in found["modules"]), found["modules"]
    assert found["from_config"] == "MetaQAPModel"
    assert found["backends"] == {
        "MetaQAPImageProcessor": ["torchvision", True],
        "MetaQAPImageProcessorPil": ["pil", True],
    }
    assert "alling back" not in done.stderr
    for name in ("AutoModel", "AutoModelForImageClassification", "resaved"):
        for field in ("logits", "base_scores", "interval", "familiarity", "distortion_logits"):
            np.testing.assert_allclose(found[name][field], expected[field].numpy(), rtol=0, atol=1e-6)
        assert found[name]["map_mean"] == pytest.approx(expected.logits.item(), abs=1e-5)
    check_assessment(found["image-quality-assessment"], expected)
    check_assessment(found["resaved pipeline"], expected)
    check_assessment(found["pipeline of parts"], expected)
    check_classification(found["image-classification"], expected)
    assert sorted(path.name for path in (tmp_path / "resaved").glob("*.py")) == MODEL_FILES


def imports_of(file: Path) -> tuple[set[str], set[str]]:
    """Names of the outer and of the relative modules that a file needs, wherever in it.

    What it can do without, as it catches an `ImportError`, is not among them; transformers does not ask for it either.
    """
    outer, relative = set(), set()
    tree = ast.parse(file.read_text())
    attempts = [node for node in ast.walk(tree) if isinstance(node, ast.Try)]
    optional = {
        inner
        for attempt in attempts
        if any(isinstance(one.type, ast.Name) and one.type.id == "ImportError" for one in attempt.handlers)
        for statement in attempt.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in optional:
            continue
        if isinstance(node, ast.Import):
            outer |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"{file.name} reaches outside of its folder"
            (relative if node.level else outer).add((node.module or "").partition(".")[0])
    return outer, relative


def test_the_saved_code_is_complete_and_needs_few_packages(folder):
    files = sorted(folder.glob("*.py"))
    assert [file.name for file in files] == MODEL_FILES
    allowed = {"torch", "timm", "transformers", "numpy", "PIL"} | set(sys.stdlib_module_names)
    for file in files:
        outer, relative = imports_of(file)
        assert outer <= allowed, f"{file.name} needs {sorted(outer - allowed)}"
        assert {f"{name}.py" for name in relative} <= set(MODEL_FILES)
        assert file.read_text() == (Path(modeling_metaqap.__file__).parent / file.name).read_text()


def test_the_package_lists_the_files_that_travel_to_the_hub():
    package = Path(modeling_metaqap.__file__).parent
    assert sorted(path.name for path in package.glob("*_metaqap.py")) == MODEL_FILES


def test_each_auto_class_has_an_entry_in_the_saved_configuration(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_metaqap.MetaQAPConfig",
        "AutoImageProcessor": "image_processing_metaqap.MetaQAPImageProcessor",
        "AutoModel": "modeling_metaqap.MetaQAPModel",
        "AutoModelForImageClassification": "modeling_metaqap.MetaQAPModel",
    }
    task = config["custom_pipelines"]["image-quality-assessment"]
    assert task["impl"] == "pipeline_metaqap.ImageQualityAssessmentPipeline"
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["auto_map"] == {
        "AutoImageProcessor": {
            "torchvision": "image_processing_metaqap.MetaQAPImageProcessor",
            "pil": "image_processing_metaqap.MetaQAPImageProcessorPil",
        }
    }


def test_the_model_alone_saves_all_code_that_it_needs(model, tmp_path):
    before = vars(model.config).get("custom_pipelines")
    model.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.glob("*.py")}
    assert files == set(MODEL_FILES)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["custom_pipelines"]["image-quality-assessment"]["impl"].startswith("pipeline_metaqap.")
    assert vars(model.config).get("custom_pipelines") == before
    for file in tmp_path.glob("*.py"):
        assert {f"{name}.py" for name in imports_of(file)[1]} <= files
