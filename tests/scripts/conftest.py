"""Trained learners and their images, made once for all programs that are tested with them."""

import csv

import numpy as np
import pytest
from PIL import Image
from script_loader import call_script
from training_runs import ACCELERATE, RECIPE, ROOT, run, synthetic


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """32 rated images, better ones with less noise; train, validation and test."""
    root = tmp_path_factory.mktemp("rated")
    rng = np.random.default_rng(0)
    rows = []
    for index in range(32):
        quality = index / 31
        flat = np.full((48, 48, 3), rng.integers(60, 200))
        noise = (1 - quality) * 60 * rng.normal(size=flat.shape)
        Image.fromarray((flat + noise).clip(0, 255).astype(np.uint8)).save(root / f"{index}.png")
        rows.append([f"{index}.png", quality, ["train", "train", "validation", "test"][index % 4]])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "mos", "split"], *rows])
    return root


@pytest.fixture(scope="session")
def train(folder, tmp_path_factory):
    recipes = tmp_path_factory.mktemp("recipes")
    cache = tmp_path_factory.mktemp("cache")

    def train(
        output,
        *options,
        stage="finetune",
        change="",
        processes=1,
        script=None,
        launch=False,
        **environment,
    ):
        """Train in this process; with `launch`, another script or several processes as its users do."""
        recipe = recipes / f"{output.name}.yaml"
        recipe.write_text(f"{RECIPE}{change}")
        arguments = ["--stage", stage, "--recipe", recipe, "--data_dir", folder, "--cache_dir", cache]
        arguments += ["--output_dir", output, "--num_workers", 0, "--logging_steps", 1, *options]
        if not (launch or script or environment or processes > 1):
            return call_script("train", "--cpu", *arguments)
        settings = {1: "one_cpu", 2: "two_cpu_processes"}[processes]
        launcher = ["-m", "accelerate.commands.launch", "--config_file"]
        launcher += [ACCELERATE / f"{settings}.yaml"]
        return run(*launcher, script or ROOT / "scripts" / "train.py", *arguments, **environment)

    return train


@pytest.fixture(scope="session")
def distorted(tmp_path_factory):
    """Distorted images of three photographs to learn from and of two others to validate on."""
    root = tmp_path_factory.mktemp("distorted")
    rng = np.random.default_rng(1)
    for part, count in (("train", 3), ("validation", 2)):
        (root / f"{part}-pristine").mkdir()
        for index in range(count):
            smooth = Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).resize((64, 64))
            smooth.save(root / f"{part}-pristine" / f"{part}{index}.png")
        pristine = root / f"{part}-pristine"
        options = ["--per_image", 20, "--metrics", "gmsd,psnr"]
        made = call_script("distort", "--pristine_dir", pristine, "--output_dir", root / part, *options)
        assert made.returncode == 0, made.stderr
    return root


@pytest.fixture(scope="session")
def pretrained(train, distorted, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "pretrained"
    finished = train(output, *synthetic(distorted), stage="pretrain", change="epochs: 1\n")
    assert finished.returncode == 0, finished.stderr
    return output


@pytest.fixture(scope="session")
def trained(train, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "one"
    finished = train(output, launch=True)
    assert finished.returncode == 0, finished.stderr
    return output
