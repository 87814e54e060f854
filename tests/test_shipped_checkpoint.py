"""The ensemble that ships with the package."""

import json
import os
import subprocess
import sys

import ablate
import compare_fusions
import compare_heads
import numpy as np
import pytest
import sweep
from PIL import Image
from repository import ROOT

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.data.distortions import distort
from modeling_metaqap.evaluation.results_files import read_results
from modeling_metaqap.evaluation.tables import plcc_srocc, results_table, sentences
from modeling_metaqap.inference.scorer import Scorer
from modeling_metaqap.lineage import weights_sha256

EXAMPLES = ROOT / "space" / "examples"


@pytest.fixture(scope="module")
def qualities():
    paths = sorted(EXAMPLES.glob("*.jpg"))
    return {record.path.rsplit("/", 1)[1]: record for record in Scorer(device="cpu").score(paths)}


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


def test_the_checkpoint_is_small_and_complete():
    assert (DEFAULT_CHECKPOINT / "model.safetensors").stat().st_size < 60e6
    assert all(path.exists() for path in DEFAULT_CHECKPOINT.iterdir()), "a link to code is broken"


def test_the_readme_quotes_the_measured_results():
    rows = read_results(ROOT / "hub_card" / "results.json")
    assert {row["checkpoint"] for row in rows} >= {"metaqap-lite", "brisque", "piqe"}
    # The same images in the same order.
    assert len({(row["dataset"], row["split"], row["images_sha256"], row["n"]) for row in rows}) == 1
    assert results_table(rows) in (ROOT / "README.md").read_text()


def test_the_readme_quotes_the_interval_the_fit_the_comparisons_the_ablation_and_the_sweep():
    readme = (ROOT / "README.md").read_text()
    [shipped] = [
        row for row in read_results(ROOT / "hub_card" / "results.json") if row["checkpoint"] == "metaqap-lite"
    ]
    for sentence in sentences(shipped):
        assert sentence in " ".join(readme.split())
    figures = json.loads((DEFAULT_CHECKPOINT / "fit.json").read_text())["figures"]
    for name, row in figures.items():
        shown = {"mobilenetv2_100": "MobileNetV2 alone", "mobilenetv2_100 (frozen)": "MobileNetV2, frozen, alone"}
        shown |= {f"tf_efficientnet_lite{number}": f"EfficientNet-Lite{number} alone" for number in range(2)}
        cells = [f"{row[figure]['value']:.3f}" for figure in ("plcc", "srocc")]
        assert f"| {shown.get(name, name)} | {' | '.join(cells)} |" in readme
    heads = json.loads((ROOT / "studies" / "results" / "heads.json").read_text())
    assert compare_heads.heads_table(heads) in readme
    fusions = json.loads((ROOT / "studies" / "results" / "fusions.json").read_text())
    assert compare_fusions.fusions_table(fusions) in readme
    ablation = json.loads((ROOT / "studies" / "results" / "ablation.json").read_text())
    assert ablate.ablation_table(ablation) in readme
    points = json.loads((ROOT / "studies" / "results" / "sweep.json").read_text())
    assert sweep.sweep_table(points) in readme


def test_the_readme_says_what_the_meta_learner_is_worth_at_home_and_elsewhere():
    figures = json.loads((DEFAULT_CHECKPOINT / "fit.json").read_text())["figures"]
    fusions = json.loads((ROOT / "studies" / "results" / "fusions.json").read_text())
    [test] = [row for row in read_results(ROOT / "hub_card" / "results.json") if row["checkpoint"] == "metaqap-lite"]
    # By what can be known at home, without the test split.
    best = max(fusions["learners"], key=lambda name: figures[name]["srocc"]["value"])
    there = max(fusions["learners"], key=lambda name: sum(row["srocc"] for row in fusions["rows"][name].values()))
    [shipped] = [label for label in fusions["rows"] if label.endswith("(shipped)")]
    rows = {
        "the meta-learner": ("meta-learner, cross-fitted", test, shipped),
        "without it: plain mean": ("plain mean", test["parts"]["plain mean"], "plain mean"),
        f"without it: best single learner ({best})": (best, test["parts"][best], best),
        f"without it: best single learner elsewhere ({there})": (there, test["parts"][there], there),
    }
    readme = (ROOT / "README.md").read_text()
    for name, (at_home, tested, elsewhere) in rows.items():
        places = [figures[at_home], tested, *(fusions["rows"][elsewhere][source] for source in fusions["n"])]
        assert f"| {name} | {' | '.join(map(plain_plcc_srocc, places))} |" in readme, name


def plain_plcc_srocc(figures):
    """Of figures with intervals or without."""
    plain = {name: figures[name] for name in ("plcc", "srocc")}
    return plcc_srocc({name: value["value"] if isinstance(value, dict) else value for name, value in plain.items()})


def test_the_ensemble_beats_its_learners_and_their_plain_mean():
    figures = json.loads((DEFAULT_CHECKPOINT / "fit.json").read_text())["figures"]
    # Not by the regression on the same images, which cannot lose to what it is made of.
    del figures["meta-learner"]
    fused = figures.pop("meta-learner, cross-fitted")
    for name, row in figures.items():
        for figure in ("plcc", "srocc"):
            assert fused[figure]["value"] > row[figure]["value"], name


def test_it_does_so_on_the_test_split_too():
    [row] = [row for row in read_results(ROOT / "hub_card" / "results.json") if row["checkpoint"] == "metaqap-lite"]
    for name, figures in row["parts"].items():
        assert row["plcc"]["value"] > figures["plcc"] and row["srocc"]["value"] > figures["srocc"], name


def test_the_checkpoint_names_distortions():
    scorer = Scorer(device="cpu")
    photograph = np.asarray(Image.open(EXAMPLES / "coffee.jpg").convert("RGB"))
    named = []
    for distortion in ("gaussian_blur", "jpeg_compression", "white_noise", "brighten", "pixelate"):
        [record] = scorer.score([Image.fromarray(distort(photograph, distortion, 4, 0))])
        named.append(record.distortion == distortion)
    assert sum(named) >= 3, named


def test_the_measured_results_are_of_the_shipped_weights():
    rows = read_results(ROOT / "hub_card" / "results.json")
    [shipped] = [row for row in rows if row["checkpoint"] == "metaqap-lite"]
    assert shipped["weights_sha256"] == weights_sha256(DEFAULT_CHECKPOINT)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from Linux's /proc")
def test_loading_and_scoring_needs_little_memory_and_no_network(tmp_path):
    code = f"""
import re, socket
def refuse(*_): raise AssertionError("tried to reach the network")
socket.socket.connect = refuse
from modeling_metaqap.scoring import Scorer
[record] = Scorer(device="cpu").score([{str(EXAMPLES / "coffee.jpg")!r}])
assert record.error is None, record.error
# Not getrusage: its peak starts from that of the process that started this one.
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
"""
    environment = os.environ | {"HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 1.5 * 1024**2, "kilobytes of peak memory"
