"""The checkpoints that ship with the package: the ensemble, and the small one that it taught."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from repository import EXAMPLES, ROOT, measured_on

from modeling_metaqap import DEFAULT_CHECKPOINT, MetaQAPConfig
from modeling_metaqap.checkpoint_places import checkpoint_folder
from modeling_metaqap.data.distortions import distort
from modeling_metaqap.inference.scorer import Scorer
from modeling_metaqap.lineage import learner_stages, weights_sha256

NANO = checkpoint_folder("nano")
SHIPPED = [pytest.param(DEFAULT_CHECKPOINT, id="lite"), pytest.param(NANO, id="nano")]


@pytest.fixture(scope="module", params=SHIPPED)
def qualities(request):
    paths = sorted(EXAMPLES.glob("*.jpg"))
    return {record.path.rsplit("/", 1)[1]: record for record in Scorer(request.param, device="cpu").score(paths)}


def test_a_photograph_outranks_its_blurred_and_its_crushed_version(qualities):
    names = [name for name in qualities if "_" not in name]
    assert len(names) >= 3
    for name in names:
        stem = name.removesuffix(".jpg")
        for worse in (f"{stem}_blurred.jpg", f"{stem}_crushed.jpg"):
            assert qualities[name].quality > qualities[worse].quality + 0.05, worse


def test_scores_lie_on_the_training_scale_inside_their_interval(qualities):
    for record in qualities.values():
        assert -0.2 < record.quality < 1.2
        assert record.quality_low < record.quality < record.quality_high


@pytest.mark.parametrize(("checkpoint", "most"), [(DEFAULT_CHECKPOINT, 60e6), (NANO, 12e6)], ids=["lite", "nano"])
def test_the_checkpoint_is_small_and_complete(checkpoint, most):
    assert (checkpoint / "model.safetensors").stat().st_size < most
    assert all(path.exists() for path in checkpoint.iterdir()), "a link to code is broken"


def test_the_small_checkpoint_is_one_learner_that_the_ensemble_taught():
    config = MetaQAPConfig.from_pretrained(NANO)
    assert [learner["backbone"] for learner in config.base_learners] == ["mobilenetv2_100"]
    assert config.interval_radius is not None and config.familiar_distances is not None
    taught = [stage for stage in learner_stages(config)[0] if stage.taught_by is not None]
    assert [stage.kind for stage in taught] == ["finetune"]


def test_the_ensemble_beats_its_learners_and_their_plain_mean():
    figures = json.loads((DEFAULT_CHECKPOINT / "fit.json").read_text())["figures"]
    # Not by the regression on the same images, which cannot lose to what it is made of.
    del figures["meta-learner"]
    fused = figures.pop("meta-learner, cross-fitted")
    for name, row in figures.items():
        for figure in ("plcc", "srocc"):
            assert fused[figure]["value"] > row[figure]["value"], name


def test_it_does_so_on_the_test_split_too():
    row = measured_on("biq2021")["metaqap-lite"]
    for name, figures in row["learners"].items():
        assert row["plcc"]["value"] > figures["plcc"] and row["srocc"]["value"] > figures["srocc"], name


@pytest.mark.parametrize("checkpoint", SHIPPED)
def test_the_checkpoint_names_distortions(checkpoint):
    scorer = Scorer(checkpoint, device="cpu")
    photograph = np.asarray(Image.open(EXAMPLES / "coffee.jpg").convert("RGB"))
    named = []
    for distortion in ("gaussian_blur", "jpeg_compression", "white_noise", "brighten", "pixelate"):
        [record] = scorer.score([Image.fromarray(distort(photograph, distortion, 4, 0))])
        named.append(record.distortion == distortion)
    assert sum(named) >= 3, named


def test_a_large_jpeg_that_is_not_decoded_in_full_scores_within_the_measured_tolerance(tmp_path):
    tile = Image.open(EXAMPLES / "coffee.jpg").convert("RGB").resize((512, 512))
    whole = Image.new("RGB", (2048, 2048))
    for index in range(16):
        whole.paste(tile.rotate(90 * index), (index % 4 * 512, index // 4 * 512))
    whole.save(tmp_path / "large.jpg", quality=90)
    file, decoded = Scorer(device="cpu").score([tmp_path / "large.jpg", Image.open(tmp_path / "large.jpg")])
    assert (file.width, file.height) == (2048, 2048)
    assert 1e-5 < abs(file.quality - decoded.quality) < 0.01


def test_the_committed_shifts_of_scores_by_decoding_less_are_small():
    study = json.loads((ROOT / "studies/results/decoding.json").read_text())
    assert study["images"] >= 300 and study["weights_sha256"] == weights_sha256(DEFAULT_CHECKPOINT)
    # Twice the 512 pixels that the model sees.
    shifts = study["shortest_edges"]["1024"]
    assert shifts["mean_absolute_shift"] < 0.002 and shifts["largest_shift"] < 0.01


@pytest.mark.parametrize("checkpoint", SHIPPED)
def test_the_measured_results_are_of_the_shipped_weights(checkpoint):
    for dataset in ("biq2021", "livec"):
        assert measured_on(dataset)[checkpoint.name]["weights_sha256"] == weights_sha256(checkpoint)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from Linux's /proc")
def test_loading_and_scoring_needs_little_memory_and_no_network(tmp_path):
    code = f"""
import re, socket
def refuse(*_): raise AssertionError("tried to reach the network")
socket.socket.connect = refuse
from modeling_metaqap import Scorer
[record] = Scorer(device="cpu").score([{str(EXAMPLES / "coffee.jpg")!r}])
assert record.error is None, record.error
# Not getrusage: its peak starts from that of the process that started this one.
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
"""
    environment = os.environ | {"HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 1.5 * 1024**2, "kilobytes of peak memory"
