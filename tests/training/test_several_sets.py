"""One training on several sets, each with a scale of its own."""

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from two_processes import run_two_processes

pytest.importorskip("accelerate")

from accelerate import Accelerator  # noqa: E402
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.data.iqa_datasets import load_iqa_dataset
from modeling_metaqap.data.seen import refuse_seen
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.lineage import learner_stages
from modeling_metaqap.training import loop
from modeling_metaqap.training.heads import fit_kernel_head, fit_ridge_head, linear_scores
from modeling_metaqap.training.learner import model_config
from modeling_metaqap.training.rated_set import RatedSet, shares
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.run_folder import RunFolder
from modeling_metaqap.training.samplers import EndlessSampler, MixedSampler, seed_of_set, whole_numbers
from modeling_metaqap.training.set_lines import SetLines
from modeling_metaqap.training.settings import RunSettings
from modeling_metaqap.training.shared_scale import shared_targets
from modeling_metaqap.training.splits import load_splits
from modeling_metaqap.training.step import Batch
from modeling_metaqap.training.teacher import Teacher

# Two sources of one folder, the second of which was rated by people who used the upper part of the scale only.
SETS = [
    {"dataset": "folder", "name": "one", "images": "a*", "csv": "labels.csv"},
    {"dataset": "folder", "name": "other", "images": "b*", "csv": "others.csv"},
]
RECIPE = Recipe(backbone="test_resnet", datasets=SETS, epochs=2, batch_size=8, crop_size=32, refit_head=True)


# What a recipe says.


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(f"backbone: test_resnet\n{text}\n")
        return path

    return write


def test_the_sets_of_a_recipe_are_read(recipe_file, tmp_path):
    text = """datasets:
  - dataset: biq2021
    weight: 1e-1
  - {dataset: folder, name: mine, weight: 2, csv: stars.csv, mos_range: [1, 5], hold_out: fold 1 of 5}"""
    recipe = Recipe.load(recipe_file(text))
    assert recipe.sets == (
        RatedSet(dataset="biq2021", weight=0.1),
        RatedSet(
            dataset="folder", name="mine", weight=2.0, csv="stars.csv", mos_range=[1.0, 5.0], hold_out="fold 1 of 5"
        ),
    )
    assert [one.name for one in recipe.sets] == ["biq2021", "mine"]
    recipe.save(tmp_path / "saved.yaml")
    assert "dataset: biq2021" in (tmp_path / "saved.yaml").read_text()
    assert "\ntrain_split" not in (tmp_path / "saved.yaml").read_text()
    assert Recipe.load(tmp_path / "saved.yaml") == recipe


def test_one_set_is_what_the_settings_of_the_recipe_say():
    recipe = Recipe(backbone="x", dataset="folder", csv="a.csv", train_split="train_3", images="a*")
    assert recipe.sets == (RatedSet(dataset="folder", csv="a.csv", train_split="train_3", images="a*"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: biq2021", "`datasets` in .* must be a list of sets, each with its settings, got 'biq2021'"),
        ("datasets: []", "must be a list of sets"),
        ("datasets: [biq2021]", "must be a list of sets"),
        ("datasets: [{1: 2}]", "must be a list of sets"),
        ("datasets: [{weight: 1}]", "Set 1 of `datasets` in .* names no `dataset`"),
        ("datasets: [{dataset: livec, wait: 1}]", "Set 1 of `datasets` in .* has an unknown setting 'wait'"),
        ("datasets: [{dataset: livec, weight: much}]", "`weight` in set 1 of `datasets` in .* must be a number"),
        ("datasets: [{dataset: livec, weight: 0}]", "The `weight` of the set livec must be above 0, got 0"),
        ("datasets: [{dataset: livec, weight: -1}]", "must be above 0, got -1"),
        ("datasets: [{dataset: livec}, {dataset: livec}]", "has the set livec twice; give each one a `name`"),
        ("datasets: [{dataset: livec, name: 'a b'}]", "is made of letters, digits, _, . and -; 'a b' is not"),
        ("datasets: [{dataset: livec, weight: 1}, {dataset: live}]", "gives livec a `weight` but not all"),
        ("datasets: [{dataset: livec, csv: a.csv}]", "`csv` is for your own photographs, .* not for livec"),
        ("datasets: [{dataset: folder, mos_range: 5}]", "`mos_range` in set 1 of `datasets` in .* must be the lowest"),
        ("datasets: [{dataset: livec}]\ndataset: biq2021", "`dataset` is a setting of one set; with `datasets`"),
        ("datasets: [{dataset: livec}]\nhold_out: fold 1 of 5", "`hold_out` is a setting of one set"),
        ("datasets: [{dataset: livec}]\nstage: pretrain", "`datasets` is for fine-tuning"),
        ("line_learning_rate: 0", "`line_learning_rate` must be above 0"),
    ],
)
def test_sets_that_cannot_be_used_are_refused_with_the_reason(text, message, recipe_file):
    with pytest.raises(MetaQAPError, match=message):
        Recipe.load(recipe_file(text))


def test_settings_of_one_set_are_refused_in_python_too():
    with pytest.raises(MetaQAPError, match="`train_split` is a setting of one set"):
        replace(RECIPE, train_split="train_1")


def test_without_weights_each_photograph_counts_the_same():
    plain, weighted = RatedSet(dataset="live"), RatedSet(dataset="live", weight=3.0)
    assert shares([plain, plain], [30, 10]) == [0.75, 0.25]
    assert shares([weighted, replace(weighted, weight=1.0)], [1, 1000]) == [0.75, 0.25]


def test_the_command_line_names_a_folder_for_each_set():
    settings = RunSettings(output_dir="run", data_dir=["a", None])
    assert settings.data_dirs(2) == ["a", None]
    assert RunSettings(output_dir="run", data_dir="a").data_dirs(3) == ["a", "a", "a"]
    with pytest.raises(MetaQAPError, match="names 3 data sets but `data_dir` 2 folders; name one for each"):
        settings.data_dirs(3)


# How the sets are mixed.


def test_each_batch_has_its_part_of_each_set():
    sampler = MixedSampler([50, 7, 9], draws=[48, 24, 8], seeds=[1, 2, 3])
    epoch = list(sampler)
    assert len(epoch) == len(sampler) == 80
    assert Counter(number for number, _, _ in epoch) == {0: 48, 1: 24, 2: 8}
    for start in range(0, 80, 10):
        counts = Counter(number for number, _, _ in epoch[start : start + 10])
        assert abs(counts[0] - 6) <= 1 and abs(counts[1] - 3) <= 1 and counts[2] == 1
    assert list(sampler) == epoch


def test_each_set_is_gone_through_again_and_again_across_the_epochs():
    sampler = MixedSampler([5, 7], draws=[3, 10], seeds=[1, 2])
    drawn = {0: [], 1: []}
    for epoch in range(4):
        sampler.set_epoch(epoch)
        for number, *item in sampler:
            drawn[number].append(tuple(item))
    for number, length in enumerate((5, 7)):
        stream = iter(EndlessSampler(length, seed=number + 1))
        assert drawn[number] == [next(stream) for _ in drawn[number]]
    assert [index for _, index in drawn[0]][:5] != [index for _, index in drawn[1]][:5]


@pytest.mark.parametrize("skip", [0, 1, 7, 12])
def test_a_mixed_epoch_can_be_continued_in_its_middle(skip):
    sampler = MixedSampler([5, 7], draws=[3, 10], seeds=[1, 2])
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_epoch(2, skip=skip)
    assert list(sampler) == whole[skip:] and len(sampler) == 13 - skip


def test_parts_become_whole_numbers():
    assert whole_numbers([0.5, 0.3, 0.2], 10) == [5, 3, 2]
    assert whole_numbers([1 / 3, 1 / 3, 1 / 3], 100) == [34, 33, 33]
    assert whole_numbers([0.999, 0.001], 10) == [10, 0]


def test_the_first_set_has_the_seed_of_the_run():
    assert seed_of_set(5, 0) == 5
    assert len({seed_of_set(seed, number) for seed in (0, 1) for number in range(4)}) == 8


# The scale of each set.


def rated_on_two_scales():
    """Scores of 200 photographs, and ratings of which the second set's lie on a line: .2 + .5 x quality."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(200, generator=generator, dtype=torch.double)
    sets = torch.arange(200) % 2
    return scores, torch.where(sets == 0, scores, 0.2 + 0.5 * scores), sets


def test_lines_begin_as_the_scores_of_the_first_set_suggest():
    scores, ratings, sets = rated_on_two_scales()
    lines = SetLines(["a", "b"], learning_rate=1e-3)
    assert torch.equal(lines.ratings(scores, sets), scores), "the identity"
    # A head that has never seen them spreads photographs too little: half as much, those of the first set as well.
    lines.start(scores / 2 + 0.1, ratings, sets)
    assert list(lines.figures()) == ["line_slope_b", "line_offset_b"]
    assert lines.figures()["line_slope_b"] == pytest.approx(0.5)
    lines.start(scores, ratings, sets)
    assert lines.figures() == pytest.approx({"line_slope_b": 0.5, "line_offset_b": 0.2})
    torch.testing.assert_close(lines.ratings(scores, sets), ratings)
    torch.testing.assert_close(lines.quality(ratings, sets), scores)


@pytest.mark.parametrize("shape", ["falling", "constant", "scores alike"])
def test_a_line_rises_whatever_the_ratings_are(shape):
    scores, ratings, sets = rated_on_two_scales()
    second = {"falling": 1 - scores, "constant": torch.full_like(scores, 0.7), "scores alike": ratings}[shape]
    ratings = torch.where(sets == 1, second, ratings)
    scores = torch.where(sets == 1, 0.5, scores) if shape == "scores alike" else scores
    lines = SetLines(["a", "b"], learning_rate=1e-3)
    lines.start(scores, ratings, sets)
    assert 1 / 8 <= lines.figures()["line_slope_b"] <= 8
    own = sets == 1
    assert lines.ratings(scores, sets)[own].mean().item() == pytest.approx(ratings[own].mean().item())


def test_lines_learn_the_scale_and_go_on_from_a_state_as_if_nothing_had_been():
    scores, ratings, sets = rated_on_two_scales()

    def learn(lines, steps):
        for _ in range(steps):
            loss = (lines.ratings(scores, sets) - ratings).square().mean()
            lines.step(torch.autograd.grad(loss, lines.parameters), factor=1.0)

    lines = SetLines(["a", "b"], learning_rate=0.02)
    learn(lines, 40)
    saved = json.loads(json.dumps(lines.state_dict()))
    learn(lines, 200)
    assert lines.figures() == pytest.approx({"line_slope_b": 0.5, "line_offset_b": 0.2}, abs=0.01)
    resumed = SetLines(["a", "b"], learning_rate=0.02)
    resumed.load_state_dict(saved)
    learn(resumed, 200)
    assert resumed.figures() == lines.figures()
    begun = SetLines(["a", "b"], learning_rate=0.02)
    begun.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    before = lines.figures()
    lines.step([torch.ones(1), torch.ones(1)], factor=0.0)
    assert lines.figures() == before, "the rate follows the schedule"


def test_heads_are_fitted_to_errors_as_the_loss_counts_them():
    scores, ratings, sets = rated_on_two_scales()
    lines = SetLines(["a", "b"], learning_rate=1e-3)
    lines.start(scores, ratings, sets)
    targets, weights = shared_targets(ratings, sets, lines, parts=[0.75, 0.25])
    torch.testing.assert_close(targets, scores)
    assert weights.mean() == pytest.approx(1)
    # An error on the shared scale is half as large on the second one.
    expected = torch.where(sets == 0, 0.75, 0.25 * 0.5**2)
    torch.testing.assert_close(weights, (expected / expected.mean()).double())
    assert shared_targets(ratings, sets, None, parts=[1.0]) == (ratings, None)


@pytest.mark.parametrize("centers", [40, 20])
def test_weights_of_photographs_are_those_of_their_errors(make_model, centers):
    torch.manual_seed(0)
    model = make_model("test_resnet")
    width = model.base_learners[0].feature_mean.numel()
    features, targets = torch.rand(40, width).double(), torch.rand(40).double()
    weights = 2 * torch.rand(40).double()
    weights /= weights.mean()
    fit_ridge_head(model, features, targets, penalty=10, weights=weights)
    x = torch.cat([(features - features.mean(dim=0)) / features.std(dim=0), torch.ones(40, 1).double()], dim=1)
    punished = 10 * 40 * torch.eye(width + 1).double()
    punished[-1, -1] = 0  # not the intercept
    expected = x @ torch.linalg.solve(x.T @ (weights[:, None] * x) + punished, x.T @ (weights * targets))
    torch.testing.assert_close(linear_scores(model, features), expected, atol=1e-6, rtol=1e-5)

    # Where a photograph counts much more than all others, the kernel head meets its rating.
    weights = torch.ones(40).double()
    weights[7] = 1e6
    kernel = {"num_components": 8, "num_centers": centers, "gamma": 4.0, "penalty": 0.1, "seed": 0}
    fit_kernel_head(model, features, targets, **kernel, weights=weights)
    learner = model.base_learners[0]
    standardized = (features.float() - learner.feature_mean) / learner.feature_std
    errors = (linear_scores(model, features) + learner.kernel_head(standardized).reshape(-1) - targets).abs()
    assert errors[7] < 0.1 * errors.median()


# A whole run.


@pytest.fixture
def folder(rated_sources):
    """The images of `rated_sources`, and others' ratings of them: .5 + .4 x quality."""
    rows = list(csv.reader((rated_sources / "labels.csv").open()))
    changed = [rows[0], *([name, 0.5 + 0.4 * float(mos), split] for name, mos, split in rows[1:])]
    with (rated_sources / "others.csv").open("w", newline="") as file:
        csv.writer(file).writerows(changed)
    return rated_sources


@pytest.fixture
def settings(folder, tmp_path):
    """Of a run on 20 images, from a learner with random weights."""
    torch.manual_seed(0)
    MetaQAPModel(model_config(RECIPE)).save_pretrained(tmp_path / "init")
    yield RunSettings(
        output_dir=str(tmp_path / "run"),
        init=str(tmp_path / "init"),
        data_dir=str(folder),
        cache_dir=str(tmp_path / "cache"),
        cpu=True,
        num_workers=0,
        logging_steps=1,
        checkpointing_steps=1,
    )
    reset_accelerate()


def reset_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def weights(settings, name):
    return load_file(Path(settings.output_dir, name, "model.safetensors"))


def test_a_run_on_two_sets_and_what_is_left_of_it_after_a_stop(settings, tmp_path):
    summary = loop.train(RECIPE, settings)
    rows = RunFolder(settings.output_dir).rows()
    epochs = [row for row in rows if "validation_srocc" in row and not row.get("refit_head")]
    assert len(epochs) == 2 and summary["best_validation_srocc"] == max(row["validation_srocc"] for row in epochs)
    for row in epochs:
        for figure in ("validation_plcc", "validation_srocc"):
            of_sets = [row[f"{figure}_{name}"] for name in ("one", "other")]
            assert row[figure] == pytest.approx(sum(of_sets) / 2)
        assert row["validation_plcc_one"] != row["validation_plcc_other"]
    slopes = [row["line_slope_other"] for row in rows if "line_slope_other" in row]
    assert len(slopes) == 4 and slopes[0] != slopes[1] != slopes[2] == slopes[3], "start, two epochs, refitted heads"
    assert all(0 < slope < 1 for slope in slopes), "the others use two fifths of the scale"
    assert len([row for row in rows if "loss" in row]) == 4

    model = MetaQAPModel.from_pretrained(Path(settings.output_dir, "refitted"))
    assert not any("line" in name for name in model.state_dict()), "a checkpoint is not tied to a set"
    stages = learner_stages(model.config)[0]
    told = [(stage.kind, stage.opinions, stage.num_images, stage.share) for stage in stages[1:]]
    of_sets = [("folder train only a*", 10, 0.5), ("folder train only b*", 10, 0.5)]
    assert told == [(kind, *one) for kind in ("finetune", "heads") for one in of_sets]
    assert str(stages[2]) == "fine-tuned on folder train only b*, n 10, 50% of each batch"
    for file in ("labels.csv", "others.csv"):
        where = {"data_dir": settings.data_dir, "cache_dir": settings.cache_dir, "csv": file}
        for split, seen in (("train", True), ("validation", False)):
            images = load_iqa_dataset("folder", split=split, **where)
            if not seen:
                refuse_seen(stages, images, weights="it", dataset="folder", **where)
                continue
            with pytest.raises(MetaQAPError, match=r"it has learned from 20 of the 20 images .*only a\*; .*only b\*"):
                refuse_seen(stages, images, weights="it", dataset="folder", **where)

    # Stopped in the middle of the second epoch, and resumed.
    reset_accelerate()
    expected = {name: weights(settings, name) for name in ("last", "refitted")}
    shutil.rmtree(Path(settings.output_dir, "states", "step_4"))
    loop.train(RECIPE, replace(settings, resume_from_checkpoint="latest"))
    losses = [
        [row["loss"] for row in found if "loss" in row] for found in (rows, RunFolder(settings.output_dir).rows())
    ]
    assert losses[0] == losses[1]
    for name, tensors in expected.items():
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in weights(settings, name).items())
    assert [row.get("line_slope_other") for row in RunFolder(settings.output_dir).rows()] == [
        row.get("line_slope_other") for row in rows
    ]


def test_one_entry_of_a_list_trains_as_the_set_alone(settings, tmp_path):
    options = {"csv": "others.csv", "images": "a*"}
    one = Recipe(backbone="test_resnet", dataset="folder", **options, epochs=1, batch_size=4, crop_size=32)
    listed = Recipe(
        backbone="test_resnet", datasets=[{"dataset": "folder", **options}], epochs=1, batch_size=4, crop_size=32
    )
    found = []
    for name, recipe in (("one", one), ("listed", listed)):
        run = replace(settings, output_dir=str(tmp_path / name))
        loop.train(recipe, run)
        reset_accelerate()
        found.append((weights(run, "last"), RunFolder(run.output_dir).rows()))
    (expected, rows), (tensors, of_list) = found
    assert all(torch.equal(tensor, expected[key]) for key, tensor in tensors.items())
    timeless = [[{**row, "images_per_second": 0} for row in several] for several in (rows, of_list)]
    assert timeless[0] == timeless[1] and not any("line_slope" in key for row in rows for key in row)


def test_heads_alone_are_fitted_to_several_sets(settings):
    loop.train(replace(RECIPE, epochs=0, kernel_components=4), settings)
    [row] = RunFolder(settings.output_dir).rows()
    assert row["line_slope_other"] != 1 and "validation_srocc_other" in row
    stages = learner_stages(MetaQAPModel.from_pretrained(Path(settings.output_dir, "refitted")).config)[0]
    assert [stage.kind for stage in stages[1:]] == ["heads", "heads"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # The second set would learn from images that the first one is validated on.
        ({"train_split": "validation", "validation_split": "train"}, "The sets one and other share 15 images"),
        ({"images": "b*", "validation_split": "validation[:2]"}, "The set other has 1 images to validate on"),
        ({"images": "c*"}, r"The pattern 'c\*' names none of the 20 images of folder"),
        ({"images": "a*", "csv": "labels.csv", "train_split": "train[:5]"}, "The sets one and other share"),
        ({"images": "b*", "train_split": "test"}, "holds test images"),
    ],
)
def test_sets_that_do_not_fit_together_are_one_sentence(folder, tmp_path, changes, message):
    second = {**SETS[1], "images": None} | changes
    recipe = replace(RECIPE, datasets=[SETS[0], second])
    settings = RunSettings(output_dir="run", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(MetaQAPError, match=message):
        load_splits(recipe, settings)


def test_two_groups_of_raters_of_the_same_photographs_are_two_sets(folder, tmp_path):
    recipe = replace(RECIPE, datasets=[{**one, "images": "a*"} for one in SETS])
    splits = load_splits(
        recipe, RunSettings(output_dir="run", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    )
    first, second = splits.sets
    assert first.training["image_id"][:] == second.training["image_id"][:]
    assert first.training["quality"][:] != second.training["quality"][:]


def test_a_set_that_is_never_drawn_from_is_one_sentence(settings):
    rare = [{**SETS[0], "weight": 1}, {**SETS[1], "weight": 0.001}]
    with pytest.raises(MetaQAPError, match="No image of the set other would be drawn in an epoch; raise its `weight`"):
        loop.train(replace(RECIPE, datasets=rare), settings)


def test_a_teacher_scores_photographs_on_the_scale_of_their_set(make_model, tmp_path):
    model = make_model("test_resnet")
    model.save_pretrained(tmp_path)
    teacher = Teacher(tmp_path, weight=0.25, accelerator=Accelerator(cpu=True))
    lines = SetLines(["a", "b"], learning_rate=1e-3)
    lines.load_state_dict({"parameters": [[0.5], [0.3]], "moments": [{}, {}]})
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        scores = model(pixel_values=pixels.float() / 255).logits.squeeze(1)
    labels, sets = torch.rand(3), torch.tensor([1, 0, 1])
    taught = teacher.label(Batch(pixels, labels, torch.tensor([2]), sets), lines=lines)
    on_scale = torch.where(sets == 1, 0.3 + torch.tensor(0.5).exp() * scores[:3], scores[:3])
    torch.testing.assert_close(taught.labels[:3], 0.75 * labels + 0.25 * on_scale)
    torch.testing.assert_close(taught.labels[3], scores[3])
    assert taught.sets.tolist() == [1, 0, 1, 0]
    reset_accelerate()


TWO_PROCESSES = """
import json, sys
from modeling_metaqap.training.loop import train
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.settings import RunSettings

recipe, settings = json.loads(sys.argv[1])
train(Recipe(**recipe), RunSettings(**settings))
"""


@pytest.mark.slow
def test_two_processes_that_compute_in_chunks_mix_the_sets_and_lose_the_same(settings, tmp_path):
    loop.train(replace(RECIPE, loss_surrogate="soft_rank"), settings)
    program = tmp_path / "program.py"
    program.write_text(TWO_PROCESSES)
    both = replace(settings, output_dir=str(tmp_path / "two"), gradient_accumulation_steps=2)
    values = json.dumps([{**vars(RECIPE), "loss_surrogate": "soft_rank"}, vars(both)])
    for ended in run_two_processes(program, values):
        assert ended.returncode == 0, ended.stderr[-3000:]
    one, two = (RunFolder(run.output_dir).rows() for run in (settings, both))
    assert two[0]["processes"] == 2
    for name in ("loss", "line_slope_other", "line_offset_other", "validation_srocc_other"):
        expected, found = ([row[name] for row in rows if name in row] for rows in (one, two))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), name
