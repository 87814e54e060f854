"""Figures of checkpoints and baselines: the same for any batch, process and form of the data, and fully described."""

import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from iqa_fixtures import write_biq2021, write_koniq10k  # noqa: E402
from PIL import Image
from repository import ROOT
from script_loader import load_script

from modeling_metaqap import MetaQAPConfig
from modeling_metaqap.data.iqa_datasets import load_iqa_dataset
from modeling_metaqap.data.iqa_datasets.prepare import prepare_parquet
from modeling_metaqap.data.rating_options import RatingOptions
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.evaluation.evaluating import (
    NamedDataset,
    evaluate,
    evaluate_folder,
    open_scorer,
)
from modeling_metaqap.evaluation.metrics import METRICS, evaluate_scores, plcc, srocc
from modeling_metaqap.evaluation.tables import results_markdown, sentences
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference.predicting import distinct_names, predict, short_names
from modeling_metaqap.inference.records import ScoreRecord
from modeling_metaqap.inference.scorer import Scorer
from modeling_metaqap.lineage import Stage, rated_images, weights_sha256, write_stages


def write_folder(root, count, *, split=None):
    """Rated images of several sizes: the better ones have less noise."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        noise = (1 - index / count) * 60 * rng.normal(size=(40 + 8 * (index % 3), 64, 3))
        Image.fromarray((120 + noise).clip(0, 255).astype(np.uint8)).save(root / f"{index}.png")
        quality = 0.1 + 0.8 * index / count + rng.uniform(-0.1, 0.1)
        rows.append([f"{index}.png", f"{quality:.3f}", *([split] if split else [])])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "mos", *(["split"] if split else [])], *rows])
    return root


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def rated(work):
    return write_folder(work / "rated", 7, split="test")


@pytest.fixture(scope="module")
def without_split(work):
    return write_folder(work / "without_split", 30)


def learner_of(dataset, split, *image_ids):
    """A base learner that was trained on some images."""
    stage = Stage(kind="finetune", **rated_images(dataset, split, image_ids))
    return {"backbone": "test_resnet", "lineage": write_stages([stage])}


def fused_on(dataset, split, *image_ids):
    [stage] = write_stages([Stage(kind="fusion", **rated_images(dataset, split, image_ids))])
    return stage


@pytest.fixture(scope="module")
def checkpoint(work, make_model):
    model = make_model(learner_of("live", "train", "fair"), lineage=[fused_on("live", "validation")])
    save_checkpoint(model, work / "tiny")
    return str(work / "tiny")


@pytest.fixture
def evaluate_all(tmp_path):
    def run(*arguments, **options):
        return list(evaluate(*arguments, cache_dir=tmp_path / "cache", **{"n_bootstrap": 4} | options))

    return run


def test_every_checkpoint_is_measured_on_every_data_set_and_split(
    evaluate_all, rated, checkpoint, work, tmp_path, make_model
):
    write_koniq10k(tmp_path / "koniq")
    prepare_parquet(
        "koniq10k", tmp_path / "parquet", data_dir=tmp_path / "koniq", cache_dir=tmp_path, allow_partial=True
    )
    save_checkpoint(make_model("test_resnet", seed=1), tmp_path / "other")
    named_datasets = [
        NamedDataset(name="folder", data_dir=rated),
        NamedDataset(name="koniq10k", data_dir=tmp_path / "parquet"),
    ]
    checkpoints = [checkpoint, str(tmp_path / "other"), "piqe"]
    rows = [measurement.row for measurement in evaluate_all(checkpoints, named_datasets, splits=["test", "all"])]
    assert [(row["checkpoint"], row["dataset"], row["split"]) for row in rows] == [
        (name, dataset, split)
        for name in ("tiny", "other", "piqe")
        for dataset in ("folder", "koniq10k")
        for split in ("test", "all")
    ]
    assert rows[0]["n"] == 7
    assert rows[0]["trained_on"] == "live train", "what it was fused on is no training"
    assert rows[0]["srocc"]["value"] != rows[4]["srocc"]["value"]


def test_a_row_says_what_it_is_about_and_holds_the_figures_of_the_scores(evaluate_all, rated, checkpoint):
    [measurement] = evaluate_all([checkpoint], [NamedDataset(name="folder", data_dir=rated)], seed=3)
    row = measurement.row
    weights = (Path(checkpoint) / "model.safetensors").read_bytes()
    assert row["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert row["images_sha256"] == hashlib.sha256(b"".join(b"%d.png\n" % index for index in range(7))).hexdigest()
    assert row["software"]["torch"] and row["software"]["metaqap"]
    with (rated / "labels.csv").open() as file:
        ratings = [float(line["mos"]) for line in csv.DictReader(file)]
    assert measurement.qualities.tolist() == ratings
    scores = [record.quality for record in Scorer(checkpoint).score([rated / name for name in measurement.image_ids])]
    assert measurement.predictions == pytest.approx(scores, abs=1e-6)
    expected = evaluate_scores(measurement.predictions, ratings, seed=3, n_bootstrap=4)
    assert {key: row[key] for key in expected} == expected


def test_a_score_has_the_same_bits_alone_in_any_batch_and_in_any_share(rated, checkpoint, tmp_path):
    dataset = load_iqa_dataset("folder", split="test", data_dir=rated, cache_dir=tmp_path)
    scorer = open_scorer(checkpoint, device="cpu", batch_size=4)
    together = predict(scorer, dataset)
    shares = [predict(scorer, dataset.select(rows)) for rows in ([0, 1, 2, 3, 4], [5], [6])]
    for scores, parts in zip(together, zip(*shares, strict=True), strict=True):
        assert np.array_equal(scores, np.concatenate(parts))


def test_the_last_batch_is_filled_up_on_request(checkpoint):
    sizes = []
    scorer = Scorer(checkpoint, device="cpu", batch_size=4, pad_batches=True)
    scorer.model.register_forward_hook(
        lambda module, args, kwargs, output: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    assert len(list(scorer.score([Image.new("RGB", (64, 64), colour) for colour in ("red", "tan", "blue")]))) == 3
    assert sum(sizes) == 4  # one crop in each thread


def test_parquet_gives_the_scores_of_the_folder(checkpoint, tmp_path):
    write_biq2021(tmp_path / "biq")
    options = {"cache_dir": tmp_path / "cache", "allow_partial": True}
    prepare_parquet("biq2021", tmp_path / "parquet", data_dir=tmp_path / "biq", **options)
    scorer = open_scorer(checkpoint, device="cpu")
    scores = []
    for data_dir in (tmp_path / "biq", tmp_path / "parquet"):
        dataset = load_iqa_dataset("biq2021", split="all", data_dir=data_dir, **options)
        scores.append(dict(zip(dataset["image_id"], predict(scorer, dataset).quality, strict=True)))
    assert len(scores[0]) == 24
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_it_is_counted_how_many_opinions_the_interval_holds(evaluate_all, without_split, make_model, tmp_path):
    source = NamedDataset(name="folder", data_dir=without_split)
    save_checkpoint(make_model("test_resnet", interval_radius=0.25, interval_coverage=0.8), tmp_path / "calibrated")
    [measurement] = evaluate_all([str(tmp_path / "calibrated")], [source], splits=["all"])
    distance = np.abs(measurement.predictions - measurement.qualities)
    assert measurement.row["interval"] == {
        "calibrated_for": 0.8,
        "coverage": (distance <= 0.25).mean(),
        "width": 0.5,
    }
    assert 0 < measurement.row["interval"]["coverage"] < 1
    sentence = "The 80 % interval of calibrated is 0.500 wide and holds the opinion scores of "
    assert f"{sentence}{100 * (distance <= 0.25).mean():.1f} % of these 30 images." in results_markdown(
        [measurement.row]
    )

    [repeated] = evaluate_all([str(tmp_path / "calibrated")], [source], repeat_splits=10)
    held = [split["interval"]["coverage"] for split in repeated.row["splits"]]
    assert len(set(held)) > 1
    assert repeated.row["interval"] == {"calibrated_for": 0.8, "coverage": statistics.median(held), "width": 0.5}
    assert "of these images (median of 10 splits)." in results_markdown([repeated.row])


def test_without_an_interval_nothing_is_counted(evaluate_all, without_split, checkpoint):
    source = NamedDataset(name="folder", data_dir=without_split)
    rows = [measurement.row for measurement in evaluate_all(["piqe", checkpoint], [source], splits=["all"])]
    assert [row["interval"] for row in rows] == [None, None]
    assert "interval of" not in results_markdown(rows)


def test_repeated_splits_give_the_median_with_the_range(evaluate_all, without_split):
    source = NamedDataset(name="folder", data_dir=without_split)
    [measurement] = evaluate_all(["piqe"], [source], repeat_splits=10, n_bootstrap=0)
    row = measurement.row
    splits = [f"test_{i}" for i in range(10)]
    single = [one.row for one in evaluate_all(["piqe"], [source], splits=splits, n_bootstrap=0)]
    assert [part["split"] for part in row["splits"]] == [f"test_{i}" for i in range(10)]
    assert (row["split"], row["median_of"], row["n"]) == ("test_0 to test_9", 10, 6)
    for name in ("plcc", "srocc", "krocc", "plcc_logistic"):
        values = [one[name]["value"] for one in single]
        assert len(set(values)) > 2
        assert row[name] == {"value": statistics.median(values), "min": min(values), "max": max(values)}
        assert [part[name] for part in row["splits"]] == [one[name] for one in single]


def test_no_image_is_scored_twice_over_repeated_splits(evaluate_all, without_split, monkeypatch):
    counts = []
    score = sys.modules["modeling_metaqap.evaluation.evaluating"].predict
    monkeypatch.setattr(
        "modeling_metaqap.evaluation.evaluating.predict",
        lambda scorer, data: (counts.append(len(data)), score(scorer, data))[1],
    )
    evaluate_all(["piqe"], [NamedDataset(name="folder", data_dir=without_split)], repeat_splits=10, n_bootstrap=0)
    assert len(counts) == 10
    assert counts[0] == 6
    assert sum(counts) <= 30


def test_each_repeated_split_can_have_the_checkpoint_that_was_trained_on_it(
    evaluate_all, without_split, make_model, tmp_path
):
    for number in range(2):
        save_checkpoint(make_model("test_resnet", seed=number), tmp_path / f"run-{number}")
    source = NamedDataset(name="folder", data_dir=without_split)
    pattern = str(tmp_path / "run-{split}")
    [measurement] = evaluate_all([pattern], [source], repeat_splits=2, n_bootstrap=0)
    assert measurement.row["weights_sha256"] is None
    for number, part in enumerate(measurement.row["splits"]):
        path = tmp_path / f"run-{number}"
        [alone] = evaluate_all([str(path)], [source], splits=[f"test_{number}"], n_bootstrap=0)
        assert part["weights_sha256"] == weights_sha256(path)
        assert part["plcc"] == alone.row["plcc"]
    with pytest.raises(MetaQAPError, match="needs repeated splits"):
        evaluate_all([pattern], [source])


def test_images_that_a_learner_was_trained_on_are_refused(evaluate_all, without_split, make_model, tmp_path):
    source = NamedDataset(name="folder", data_dir=without_split)
    for number in range(2):
        split = f"train_{number}"
        images = load_iqa_dataset("folder", split=split, data_dir=without_split, cache_dir=tmp_path)
        model = make_model(learner_of("folder", split, *images["image_id"]))
        save_checkpoint(model, tmp_path / f"run-{number}")
    # Each on its own split, but not one on the splits of others, whose test images it knows.
    evaluate_all([str(tmp_path / "run-{split}")], [source], repeat_splits=2, n_bootstrap=0)
    with pytest.raises(MetaQAPError, match=r"run-0 has learned from \d of the 6 images .* \(folder train_0\)"):
        evaluate_all([str(tmp_path / "run-0")], [source], repeat_splits=10, n_bootstrap=0)


def test_they_are_refused_before_anything_is_scored(evaluate_all, rated, make_model, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_metaqap.evaluation.evaluating.predict", lambda *args: pytest.fail("scored"))
    ids = [f"{index}.png" for index in range(7)]
    save_checkpoint(make_model("test_resnet", lineage=[fused_on("folder", "gone", *ids)]), tmp_path / "fused")
    with pytest.raises(MetaQAPError, match="fused has learned from 7 of the 7 images"):
        evaluate_all(["piqe", str(tmp_path / "fused")], [NamedDataset(name="folder", data_dir=rated)])


def test_an_own_folder_is_not_measured_on_after_fusing_on_it(without_split, make_model, tmp_path):
    validation = load_iqa_dataset("folder", split="validation", data_dir=without_split, cache_dir=tmp_path)
    stage = fused_on("folder", "validation", *validation["image_id"])
    save_checkpoint(make_model("test_resnet", lineage=[stage]), tmp_path / "fused")
    with pytest.raises(MetaQAPError, match=r"fused has learned from \d of the 30 images .* \(folder validation\)"):
        evaluate_folder(without_split, RatingOptions(), checkpoint=str(tmp_path / "fused"))


def test_an_official_split_is_not_repeated(evaluate_all, rated):
    with pytest.raises(MetaQAPError, match="without an official split only"):
        evaluate_all(["piqe"], [NamedDataset(name="folder", data_dir=rated)], repeat_splits=10)


def test_baselines_are_turned_so_that_higher_is_better_and_have_no_rmse(evaluate_all, without_split):
    [measurement] = evaluate_all(["piqe"], [NamedDataset(name="folder", data_dir=without_split)], splits=["all"])
    # The images are the better the less noise they have, which PIQE sees.
    assert measurement.row["srocc"]["value"] > 0.5
    assert measurement.row["plcc"]["value"] > 0.5
    assert measurement.row["rmse"]["value"] is None
    assert measurement.predictions.max() <= 0


def test_figures_that_are_not_defined_are_null(evaluate_all, rated, monkeypatch):
    constant = SimpleNamespace(
        model=SimpleNamespace(config=MetaQAPConfig()),
        score=lambda images: (ScoreRecord(path="", quality=0.5) for _ in images),
    )
    monkeypatch.setattr("modeling_metaqap.evaluation.evaluating.open_scorer", lambda *args, **kwargs: constant)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # nobody waits for the Hub to have it
    [measurement] = evaluate_all(["constant"], [NamedDataset(name="folder", data_dir=rated)])
    assert measurement.row["srocc"] == {"value": None, "low": None, "high": None}
    assert measurement.row["rmse"]["value"] > 0
    json.dumps(measurement.row, allow_nan=False)


def test_an_image_without_a_score_is_named_instead_of_being_left_out(rated, tmp_path):
    dataset = load_iqa_dataset("folder", split="test", data_dir=rated, cache_dir=tmp_path)
    broken = SimpleNamespace(
        score=lambda images: (
            ScoreRecord(path="", quality=0.5, error="truncated" if index == 3 else None)
            for index, _ in enumerate(images)
        )
    )
    with pytest.raises(MetaQAPError, match=r"3\.png cannot be scored: truncated"):
        predict(broken, dataset)


@pytest.mark.parametrize(
    ("checkpoints", "sources", "message"),
    [
        (["piqe", "piqe"], ["folder"], "checkpoint piqe is named twice"),
        (["piqe"], ["folder", "folder"], "data set folder is named twice"),
    ],
)
def test_a_name_that_stands_twice_is_refused(evaluate_all, rated, checkpoints, sources, message):
    with pytest.raises(MetaQAPError, match=message):
        evaluate_all(checkpoints, [NamedDataset(name=name, data_dir=rated) for name in sources])


def test_checkpoints_get_the_shortest_names_that_tell_them_apart():
    assert distinct_names(["a", "b", "a", "a 2", "a"]) == ["a", "b", "a 2", "a 2 2", "a 3"]
    assert short_names(["runs/a/best", "runs/b/best"]) == ["a/best", "b/best"]
    assert short_names(["runs/a/best", "piqe", "me/model"]) == ["best", "piqe", "model"]
    assert short_names(["model", "me/model"]) == ["model", "me/model"]


def test_the_weights_of_a_hub_checkpoint_are_hashed_in_the_cache(tmp_path, monkeypatch):
    repository = tmp_path / "models--me--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    (repository / "snapshots" / "c0ffee" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert weights_sha256("me/model") == hashlib.sha256(b"weights").hexdigest()
    assert weights_sha256("me/other") is None


# The program.


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """Runs scripts/evaluate.py in this process: (exit status, standard output, standard error)."""
    module = load_script("evaluate")

    def run(*arguments):
        arguments = [*map(str, arguments), "--cache_dir", str(tmp_path / "cache"), "--bootstrap", "4"]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
        status = 0
        try:
            module.main()
        except SystemExit as exit_:
            status = exit_.code
        captured = capsys.readouterr()
        return status, captured.out, " ".join(captured.err.split())

    return run


def test_the_program_writes_results_tables_predictions_and_plots(script, rated, tmp_path):
    output = tmp_path / "out"
    status, out, _ = script("--checkpoint", "piqe", "--dataset", "folder", "--data_dir", rated, "--output_dir", output)
    assert status == 0
    assert "PIQE" in out
    [row] = json.loads((output / "results.json").read_text())["results"]
    assert f"{row['srocc']['value']:.3f}" in out
    assert f"{row['srocc']['value']:.3f}" in (output / "results.md").read_text()
    with (output / "predictions" / "piqe-folder-test.csv").open(newline="") as file:
        assert [line["image_id"] for line in csv.DictReader(file)] == [f"{index}.png" for index in range(7)]
    assert [path.name for path in (output / "plots").iterdir()] == ["scatter-piqe-folder-test.png"]


def test_rows_are_added_to_a_results_file_and_replaced_in_it(script, rated, tmp_path):
    output, results = tmp_path / "out", tmp_path / "committed.json"
    other = {"checkpoint": "other", "dataset": "folder", "split": "test", "n": 7}
    other |= {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in METRICS}
    results.write_text(json.dumps({"results": [other]}))
    for seed in (0, 1):
        assert script(
            "--checkpoint", "piqe", "--dataset", "folder", "--data_dir", rated, "--output_dir", output, "--results",
            results, "--seed", seed,
        )[0] == 0  # fmt: skip
    rows = json.loads(results.read_text())["results"]
    assert rows[0] == other
    assert [(row["checkpoint"], row["seed"]) for row in rows[1:]] == [("piqe", 1)]
    assert "0.500 [0.400, 0.600]" in (output / "results.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "folder", "biq2021", "--data_dir", "here"], "names 2 data sets but --data_dir 1 folders"),
        (["--dataset", "folder", "--data_dir", "nowhere"], "nowhere does not exist"),
        (["--dataset", "imagenet"], "no data set 'imagenet'"),
        (["--dataset", "folder", "--data_dir", "{rated}", "--split", "exam"], "no split 'exam'"),
        (["--dataset", "folder", "--data_dir", "{rated}", "--checkpoint", "[gone]"], "[gone] is not a MetaQAP"),
        (
            ["--dataset", "folder", "--data_dir", "{rated}", "--repeat_splits", "11"],
            "--repeat_splits must lie in 1 to 10",
        ),
        (
            ["--dataset", "folder", "--data_dir", "{rated}", "--output_dir", "o", "--results", "{rated}/labels.csv"],
            "is not a results file",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(script, rated, arguments, message):
    status, out, err = script(*(argument.format(rated=rated) for argument in arguments))
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.slow
def test_two_processes_give_the_same_files_as_one(rated, checkpoint, tmp_path):
    # 7 images do not divide by 2 processes, nor by the batches of either.
    outputs = {}
    for processes in (1, 2):
        settings = {1: "one_cpu", 2: "two_cpu_processes"}[processes]
        launch = ["-m", "accelerate.commands.launch", "--config_file"]
        launch += [ROOT / "scripts" / "recipes" / "accelerate" / f"{settings}.yaml", ROOT / "scripts" / "evaluate.py"]
        launch += ["--checkpoint", checkpoint, "piqe", "--dataset", "folder", "--data_dir", rated, "--batch_size", 3]
        launch += ["--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / str(processes), "--bootstrap", 50]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *map(str, launch)]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        assert ("2 processes share the images" in finished.stderr) == (processes == 2)
        # Only one process reports.
        assert finished.stderr.count("measured tiny on folder test") == 1
        files = sorted(path for path in (tmp_path / str(processes)).rglob("*") if path.is_file())
        outputs[processes] = {path.name: path.read_bytes() for path in files}
    assert len(outputs[1]) == 6
    assert outputs[1] == outputs[2]


def test_an_ensemble_is_measured_with_its_parts(evaluate_all, rated, without_split, checkpoint, make_model, tmp_path):
    save_checkpoint(make_model("test_resnet", "test_resnet"), tmp_path / "two")
    ensemble, single, baseline = evaluate_all(
        [str(tmp_path / "two"), checkpoint, "piqe"], [NamedDataset(name="folder", data_dir=rated)]
    )
    records = Scorer(tmp_path / "two").score([rated / name for name in ensemble.image_ids])
    base_scores = np.array([record.base_scores for record in records])
    learners = ensemble.row["learners"]
    assert list(learners) == ["test_resnet", "test_resnet 2", "plain mean"]
    for scores, figures in zip([*base_scores.T, base_scores.mean(axis=1)], learners.values(), strict=True):
        assert figures["plcc"] == pytest.approx(plcc(scores, ensemble.qualities), abs=1e-5)
        assert figures["srocc"] == pytest.approx(srocc(scores, ensemble.qualities))
    assert single.row["learners"] is None and baseline.row["learners"] is None
    [repeated] = evaluate_all(
        [str(tmp_path / "two")], [NamedDataset(name="folder", data_dir=without_split)], repeat_splits=3
    )
    for name, figures in repeated.row["learners"].items():
        values = [split["learners"][name]["srocc"] for split in repeated.row["splits"]]
        assert len(set(values)) > 1 and figures["srocc"] == statistics.median(values)
    [sentence] = [text for text in sentences(ensemble.row) if "plain mean" in text]
    assert f"plain mean {learners['plain mean']['plcc']:.3f} / {learners['plain mean']['srocc']:.3f}" in sentence
