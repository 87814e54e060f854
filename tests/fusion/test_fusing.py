"""Fusing learners: whose scores enter, what is refused, and what the ensemble says it was made of."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.cli.app import main
from modeling_metaqap.data.iqa_datasets import hold_out, load_training_split
from modeling_metaqap.data.rating_options import RatingOptions
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion import fusing
from modeling_metaqap.fusion.checkpoint_folder import read_fit
from modeling_metaqap.fusion.fusing import FusionSettings, fuse
from modeling_metaqap.inference import predicting
from modeling_metaqap.inference.predicting import Predictions, process_scorer
from modeling_metaqap.lineage import (
    DistortedImages,
    Stage,
    all_stages,
    learner_stages,
    rated_images,
    read_stages,
    write_stages,
)

#: A learner that was pretrained on distorted images, then fine-tuned and given heads on them too.
BEFORE = [
    Stage(kind="imagenet", source="a file"),
    Stage(kind="pretrain", distorted=DistortedImages.of(["x", "y"])),
    Stage(kind="finetune", dataset="live", split="train"),
    Stage(kind="heads", dataset="live", split="train", distorted=DistortedImages.of(["x"])),
]


@pytest.fixture
def learner(make_model, tmp_path):
    """Save a base learner with this lineage; its path."""

    def learner(name, stages=BEFORE, *, seed=0):
        model = make_model({"backbone": "test_resnet", "lineage": write_stages(stages)}, seed=seed)
        model.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return learner


@pytest.fixture
def scored(monkeypatch):
    """Let every learner score an image by its quality and some noise; the paths that scored, and how many images."""
    calls = []

    def predict(path, images):
        calls.append((path, len(images)))
        rng = np.random.default_rng(len(calls))
        scores = np.array(images["quality"]) + rng.normal(size=len(images)) / 10
        both = np.column_stack([scores, scores])  # of the first learner and, if any, the second
        return Predictions(scores, both, rng.normal(size=both.shape))

    monkeypatch.setattr(fusing, "process_scorer", lambda path, device: path)
    monkeypatch.setattr(fusing, "predict", predict)
    return calls


@pytest.fixture
def settings(rated_sources, tmp_path):
    def settings(**changes):
        data = {"dataset": "folder", "split": "train", "data_dir": str(rated_sources)}
        return FusionSettings(**data | {"cache_dir": str(tmp_path / "cache"), "n_bootstrap": 0} | changes)

    return settings


def test_an_ensemble_says_what_its_learners_were_made_of_and_what_it_was_fused_on(learner, settings, scored, tmp_path):
    fusion = fuse(settings(means=[[learner("one"), learner("two", seed=1)]], shrinkage=0.5, coverage=0.8))
    fusion.save(tmp_path / "fused")
    config = MetaQAPModel.from_pretrained(tmp_path / "fused").config
    # Pretraining and the distorted images of the heads are not forgotten.
    assert learner_stages(config) == [BEFORE, BEFORE]
    images = load_training_split("folder", split="train", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    figures = fusion.record["figures"]["meta-learner, cross-fitted"]
    assert read_stages(config.lineage) == [
        Stage(
            kind="fusion",
            **rated_images("folder", "train", images["image_id"], mos_range=(0.0, 1.0)),
            shrinkage=0.5,
            plcc=figures["plcc"]["value"],
            srocc=figures["srocc"]["value"],
        )
    ]
    assert config.interval_coverage == 0.8
    assert read_fit(tmp_path / "fused") == json.loads(json.dumps(fusion.record))
    # Fused anew, it is not the old fusion that counts: its images may be fused on again.
    again = fuse(settings(means=[[str(tmp_path / "fused")]], split="train+validation"))
    assert [stage.kind for stage in all_stages(again.ensemble.config)] == [*(s.kind for s in BEFORE), "fusion"]


def test_an_ensemble_remembers_the_scale_of_the_raters_that_it_was_fused_for(learner, settings, scored, tmp_path):
    options = {"models": [learner("one")], "ratings": RatingOptions(mos_range=(-1, 3))}
    fuse(settings(**options)).save(tmp_path / "fused")
    config = MetaQAPModel.from_pretrained(tmp_path / "fused").config
    assert config.mos_range == [-1, 3]
    assert read_stages(config.lineage)[0].mos_range == [-1, 3]
    options["ratings"] = RatingOptions(lower_is_better=True)
    assert fuse(settings(**options)).ensemble.config.mos_range is None


def test_the_wider_the_coverage_the_wider_the_interval(learner, settings, scored):
    radii = []
    for coverage in (0.5, 0.9):
        scored.clear()
        radii.append(fuse(settings(models=[learner("one")], coverage=coverage)).ensemble.config.interval_radius)
    assert radii[0] < radii[1]


def test_each_image_is_scored_by_the_learner_of_its_fold(learner, settings, scored, rated_sources, tmp_path):
    images = load_training_split("folder", split="train", data_dir=rated_sources, cache_dir=tmp_path / "cache")
    for fold in (1, 2):
        rule = f"fold {fold} of 2"
        seen, _ = hold_out(images, rule, name="folder")
        rated = rated_images("folder", "train", seen["image_id"], hold_out=rule)
        learner(f"fold-{fold}", [Stage(kind="finetune", **rated)])
    fusion = fuse(settings(models=[str(tmp_path / "fold-{fold}")], folds=2))
    assert scored == [(str(tmp_path / f"fold-{fold}"), 10) for fold in (1, 2)]
    assert fusion.ensemble.config.num_base_learners == 2
    assert read_stages(fusion.ensemble.config.lineage)[0].folds == 2
    with pytest.raises(MetaQAPError, match="fold-1 has learned from 10 of the 20 images"):
        fuse(settings(models=[str(tmp_path / "fold-1")]))


def test_a_learner_that_has_seen_the_images_is_refused_before_anything_is_scored(learner, settings, scored):
    seen = [*BEFORE, Stage(kind="heads", dataset="folder", split="train", image_ids_sha256="of another folder")]
    other = learner("other", seen)
    fuse(settings(models=[other]))
    scored.clear()
    ids = [f"{'ab'[index % 2]}{index}.png" for index in range(30) if index % 3 < 2]
    seen = [*BEFORE, Stage(kind="heads", **rated_images("folder", "train", ids))]
    with pytest.raises(MetaQAPError, match=r"has learned from 20 of the 20 images .* \(folder train\)"):
        fuse(settings(models=[other, learner("knows", seen)]))
    assert not scored


def test_a_learner_that_says_nothing_of_its_training_is_named(learner, settings, scored):
    said = []
    fuse(settings(models=[learner("silent", [])]), announce=said.append)
    assert "silent does not say what it was trained on" in said[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "no base learners"),
        ({"models": ["a"], "folds": 1}, "at least 2 folds, got 1"),
        ({"models": ["a"], "folds": 2}, "go together, not so in a"),
        ({"models": ["a{fold}"]}, "go together, not so in a{fold}"),
        ({"models": ["a"], "shrinkage": 2.0}, r"shrinkage must lie in \[0, 1\], got 2.0"),
        ({"models": ["a"], "coverage": 1.0}, "coverage must lie between 0 and 1, got 1.0"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(settings, changes, message):
    with pytest.raises(MetaQAPError, match=message):
        settings(**changes)


def test_too_few_images_for_the_interval_are_one_sentence(learner, settings, scored):
    with pytest.raises(MetaQAPError, match="holds 99 % takes 99 images or more, not 20; give"):
        fuse(settings(models=[learner("one")], coverage=0.99))


def test_a_process_scores_on_its_own_device(monkeypatch):
    devices = []
    monkeypatch.setattr(predicting, "Scorer", lambda path, device, **options: devices.append(device))
    monkeypatch.setattr(predicting, "process_state", lambda: SimpleNamespace(device="cuda:3"))
    process_scorer("a")
    process_scorer("a", device="cpu")
    assert devices == ["cuda:3", "cpu"]


class TestFitCommand:
    @pytest.fixture
    def call(self, rated_sources, tmp_path, scored, monkeypatch, capsys):
        """Runs `metaqap fit` in this process: (exit status, standard output, standard error)."""

        def call(*arguments):
            data = ("--dataset", "folder", "--split", "train", "--data-dir", rated_sources, "--bootstrap", 0)
            words = ["metaqap", "fit", *arguments, *data, "--cache-dir", tmp_path / "cache"]
            monkeypatch.setattr("sys.argv", list(map(str, words)))
            with pytest.raises(SystemExit) as exit_:
                main()
            said = capsys.readouterr()
            return exit_.value.code, said.out, said.err

        return call

    def test_it_says_how_the_learners_were_chosen_and_writes_the_checkpoint(self, call, learner, tmp_path):
        models, folder = (learner("one"), learner("two", seed=1)), tmp_path / "fused"
        status, output, error = call("--models", *models, "--names", "first", "second", "--output-dir", folder)
        assert status == 0, error
        assert "Stepwise linear regression" in output and "enter" in output and f"Wrote {folder}." in output
        figures = json.loads((folder / "fit.json").read_text())["figures"]
        for name, figure in figures.items():
            assert f"{name}: PLCC {figure['plcc']['value']:.4f}, SROCC {figure['srocc']['value']:.4f}" in output
        assert MetaQAPModel.from_pretrained(folder).config.interval_radius > 0

    def test_a_learner_is_not_written_over(self, call, learner):
        path = learner("one")
        status, output, error = call("--models", path, "--output-dir", path)
        assert status == 2 and "--output-dir" in error and "is one of the learners" in error and not output
