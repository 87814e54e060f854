"""The model card: every number is the measured one, and the committed files are what the generator writes."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from repository import ROOT

from modeling_metaqap import DEFAULT_CHECKPOINT, MetaQAPConfig, MetaQAPImageProcessor
from modeling_metaqap.checkpoint_places import checkpoint_folder
from modeling_metaqap.data.iqa_datasets import IQA_DATASETS
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.adapted_card import adapted_card
from modeling_metaqap.inference.scorer import Scorer
from modeling_metaqap.lineage import Stage, in_words, learner_stages, weights_sha256, write_stages
from modeling_metaqap.publishing.card_picture import PICTURE, PICTURE_FILE, draw_picture, has_picture
from modeling_metaqap.publishing.model_card import card_files, write_card

HUB_CARD = ROOT / "hub_card"
PHOTO = ROOT / "space" / "examples" / "coffee.jpg"


@pytest.fixture(scope="module")
def card():
    return (HUB_CARD / "README.md").read_text()


@pytest.fixture(scope="module")
def results():
    rows = json.loads((HUB_CARD / "results.json").read_text())["results"]
    return [row for row in rows if row["weights_sha256"] == weights_sha256(DEFAULT_CHECKPOINT)]


@pytest.fixture
def card_dir(tmp_path):
    """A copy of the template and its data for a test to change, with one result, the shipped checkpoint's."""
    folder = tmp_path / "hub_card"
    folder.mkdir()
    for path in HUB_CARD.iterdir():
        if path.suffix in (".json", ".md") and path.name != "README.md":
            shutil.copy(path, folder)

    def keep_own(data):
        sha256 = weights_sha256(DEFAULT_CHECKPOINT)
        data["results"] = [row for row in data["results"] if row["weights_sha256"] == sha256][:1]

    change(folder / "results.json", keep_own)
    return folder


def change(path, edit):
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def table(card, heading):
    """Rows of the first table below a heading, as lists of cells without the header."""
    lines = iter(card.split(heading, 1)[1].splitlines())
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def with_interval(figure):
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def test_the_committed_card_is_what_the_generator_writes():
    files = card_files(DEFAULT_CHECKPOINT, HUB_CARD)
    committed = {"README.md", *(f".eval_results/{path.name}" for path in (HUB_CARD / ".eval_results").iterdir())}
    assert set(files) == committed, "run `make card`"
    for name, text in files.items():
        assert (HUB_CARD / name).read_text() == text, f"run `make card`: {name} is an older one"


def test_the_small_checkpoint_has_a_card_of_its_own(card):
    text = " ".join(card_files(checkpoint_folder("nano"), HUB_CARD, repo_id="me/nano")["README.md"].split())
    assert text.count("It is a single CNN base learner.") == 1 and "the learners disagree" not in text
    assert "It sees each crop at 1 and 1/2 times its size." in text
    assert "squared error plus a differentiable Spearman correlation" in text
    assert "and the scores of a teacher" in text and "examples.jpg" not in text
    large = " ".join(card.split())
    assert "where the learners disagree" in large and "times its size" not in large


def test_the_results_table_has_the_measured_figures_and_no_others(card, results):
    rows = table(card, "\n## Results\n")
    assert len(rows) == len(results) >= 1
    for row, result in zip(rows, results, strict=True):
        assert row[1:3] == [result["split"], f"{result['n']:,}"]
        assert row[3:] == [with_interval(result[name]) for name in ("plcc", "srocc", "krocc", "rmse")]


def test_front_matter_and_evaluation_files_have_the_measured_figures(results):
    data = ModelCard.load(HUB_CARD / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "transformers",
        "image-classification",
        "apache-2.0",
    )
    assert data.metrics == ["plcc", "srocc", "krocc", "rmse"]
    assert "image-quality-assessment" in data.tags
    # Both take ids of the Hub: the sets have none, and the ImageNet weights came from a package index.
    assert data.datasets is None and data.base_model is None
    found = {
        (item.dataset_type, item.dataset_split, item.metric_type): item.metric_value for item in data.eval_results
    }
    expected = {
        (result["dataset"], result["split"], name): result[name]["value"]
        for result in results
        for name in ("plcc", "srocc", "krocc", "rmse")
    }
    assert found == pytest.approx(expected, abs=5e-5)
    entries = [
        (entry["dataset"]["id"], entry["dataset"]["task_id"], entry["value"])
        for path in sorted((HUB_CARD / ".eval_results").glob("*.yaml"))
        for entry in yaml.safe_load(path.read_text())
    ]
    assert sorted(entries) == sorted((dataset, name, value) for (dataset, _, name), value in found.items())


def test_training_figures_weights_and_interval_are_those_of_the_fit(card):
    fit = json.loads((DEFAULT_CHECKPOINT / "fit.json").read_text())
    rows = {row[0].strip("*"): row for row in table(card, "\n## Training\n")}
    for model, weight in zip(fit["base_models"], fit["weights"], strict=True):
        if weight:
            assert rows[model["name"]][2] == f"{weight:.3f}"
    for name, row in rows.items():
        assert row[3:] == [f"{fit['figures'][name][figure]['value']:.3f}" for figure in ("plcc", "srocc")], name
    assert f"the score ± {fit['interval_radius']:.3f}" in card
    assert f"Its weights were then moved {100 * fit['shrinkage']:g} % of the way to equal ones" in " ".join(
        card.split()
    )


def test_figures_of_others_are_as_published_and_named_with_their_source(card, results):
    published = json.loads((HUB_CARD / "published.json").read_text())
    heading = "\n### Beside other methods"
    rows = {row[0]: row[1:] for row in table(card, heading)}
    for result in published["results"]:
        assert rows.pop(result["method"]) == [result["plcc"], result["srocc"], published["source"]]
        assert "arXiv 2506.16601" in published["source"]
    assert rows.pop("**metaqap-lite**") == [
        with_interval(results[0]["plcc"]), with_interval(results[0]["srocc"]), "measured here",
    ]  # fmt: skip
    assert all(row[2].startswith("measured here") for row in rows.values())


def test_cost_is_as_measured(card):
    cost = json.loads((HUB_CARD / "cost.json").read_text())["inference"]  # made by scripts/benchmark.py
    if cost["weights_sha256"] != weights_sha256(DEFAULT_CHECKPOINT):
        assert "Not measured for these weights." in card
        return
    [[parameters, macs, megabytes, memory]] = table(card, "\n## Cost\n")
    assert parameters == f"{cost['parameters'] / 1e6:.2f} M"
    assert macs == f"{cost['macs'] / 1e9:.2f} G"
    assert megabytes == f"{cost['weights_megabytes']:.1f} MB"
    assert memory == f"{cost['peak_memory_megabytes']:.0f} MB"
    engines = table(card.replace("| engine |", "## Engines\n| engine |"), "## Engines")
    ratios = [row[1] for row in engines]
    assert ratios == [f"{row['over_torch']:.2f} x" for name, row in cost["engines"].items() if name != "torch"]
    assert cost["machine"]["cpu"] in card


def test_agreement_of_the_onnx_files_is_as_measured(card):
    measured = json.loads((HUB_CARD / "onnx.json").read_text())
    if measured["weights_sha256"] != weights_sha256(DEFAULT_CHECKPOINT):
        assert "differ from\nPyTorch's by" not in card
        return
    engines = measured["engines"]
    text = " ".join(card.split("\n## Cost\n")[1].split())
    assert f"On {measured['n']} images of BIQ2021 {measured['split']}" in text
    assert f"differ from PyTorch's by {engines['onnx']['largest']:.1e} at most" in text
    int8, torch = engines["onnx-int8"], engines["torch"]
    assert f"int8 file by {int8['largest']:.3f} at most and {int8['mean']:.3f} in the mean" in text
    assert f"{int8['plcc']:.3f} / {int8['srocc']:.3f} for int8" in text
    assert f"{torch['plcc']:.3f} / {torch['srocc']:.3f} for PyTorch" in text


def test_a_changed_result_changes_the_card_everywhere(card_dir):
    change(card_dir / "results.json", lambda data: data["results"][0]["plcc"].update(value=0.12334, low=0.1, high=0.2))
    files = card_files(DEFAULT_CHECKPOINT, card_dir)
    assert files["README.md"].count("0.123 [0.100, 0.200]") == 2  # results and comparison
    assert files["README.md"].count("value: 0.1233") == 1  # in the model-index
    assert "value: 0.1233" in files[".eval_results/biq2021.yaml"]


def test_baselines_stand_in_the_comparison_and_other_rows_do_no_harm(card_dir):
    def add(data):
        [own] = data["results"]
        data["results"] += [
            own
            | {
                "checkpoint": "piqe",
                "weights_sha256": None,
                "trained_on": None,
                "plcc": own["plcc"] | {"value": 0.4567},
            },
            own | {"checkpoint": "brisque", "weights_sha256": None, "trained_on": "live"},
            own | {"checkpoint": "brisque", "weights_sha256": None, "split": "validation"},
            own | {"checkpoint": "metaqap-lite", "weights_sha256": "of older weights"},
            {"checkpoint": "NIQE", "dataset": "koniq10k", "split": "test", "n": 7, "srocc": {"value": 0.1}},
        ]

    change(card_dir / "results.json", add)
    text = card_files(DEFAULT_CHECKPOINT, card_dir)["README.md"]
    rows = table(text, "\n### Beside other methods")
    measured = [(row[0], row[3]) for row in rows if row[3].startswith("measured here")]
    assert measured == [
        ("**metaqap-lite**", "measured here"),
        ("PIQE", "measured here"),
        ("BRISQUE", "measured here, as trained on LIVE release 2"),
    ]
    assert "0.457 [" in text and "NIQE" not in text
    assert len(table(text, "\n## Results\n")) == 1


def test_medians_over_splits_and_figures_that_are_not_defined_are_shown_as_such(card_dir):
    def add(data):
        [own] = data["results"]
        medians = {name: {"value": 0.5, "min": 0.4, "max": 0.6} for name in ("plcc", "srocc", "krocc", "rmse")}
        split = {"dataset": "livec", "split": "test_0 to test_9", "median_of": 10, "n": 232, "confidence": None}
        undefined = {"rmse": {"value": None, "low": None, "high": None}}
        data["results"] += [own | medians | split, own | undefined | {"checkpoint": "brisque", "weights_sha256": "b"}]

    change(card_dir / "results.json", add)
    files = card_files(DEFAULT_CHECKPOINT, card_dir)
    [_, row] = table(files["README.md"], "\n## Results\n")
    assert row[1:] == ["test_0 to test_9", "232", *["0.500 (0.400 to 0.600)"] * 4]
    assert "median over several splits" in files["README.md"]
    assert [row[0] for row in table(files["README.md"], "\n### Beside")][:2] == ["**metaqap-lite**", "BRISQUE"]
    notes = [entry["notes"] for entry in yaml.safe_load(files[".eval_results/livec.yaml"])]
    assert notes == ["test_0 to test_9 split, n 232"] * 4


def test_a_second_data_set_gets_its_row_its_file_and_its_citation(card_dir):
    def add(data):
        data["results"].append(data["results"][0] | {"dataset": "koniq10k", "n": 2015})

    before = card_files(DEFAULT_CHECKPOINT, card_dir)
    change(card_dir / "results.json", add)
    files = card_files(DEFAULT_CHECKPOINT, card_dir)
    assert set(files) - set(before) == {".eval_results/koniq10k.yaml"}
    assert ["KonIQ-10k", "test", "2,015"] in [row[:3] for row in table(files["README.md"], "\n## Results\n")]
    assert "was not measured" in before["README.md"] and "was not measured" not in files["README.md"]
    assert "koniq" in files["README.md"].split("## Citation")[1].lower()


def test_whoever_has_results_needs_no_template_to_write_a_card(card_dir):
    before = card_files(DEFAULT_CHECKPOINT, card_dir)
    (card_dir / "published.json").unlink()
    (card_dir / "template.md").unlink()
    assert card_files(DEFAULT_CHECKPOINT, card_dir) == before
    (card_dir / "template.md").write_text("# {{ name }}, mine\n")
    assert "# metaqap-lite, mine" in card_files(DEFAULT_CHECKPOINT, card_dir)["README.md"]


def test_a_card_is_not_written_from_results_of_other_weights(card_dir):
    change(card_dir / "results.json", lambda data: data["results"][0].update(weights_sha256="0" * 64))
    with pytest.raises(MetaQAPError, match="no test results of the weights .* `metaqap evaluate-set`"):
        card_files(DEFAULT_CHECKPOINT, card_dir)


def test_evaluation_files_of_data_sets_that_are_gone_are_removed(tmp_path):
    write_card({"README.md": "a", ".eval_results/one.yaml": "1", ".eval_results/two.yaml": "2"}, tmp_path)
    write_card({"README.md": "b", ".eval_results/two.yaml": "3"}, tmp_path)
    assert sorted(path.name for path in (tmp_path / ".eval_results").iterdir()) == ["two.yaml"]
    assert (tmp_path / "README.md").read_text() == "b"


def test_the_examples_of_the_card_run(card, capsys):
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert len(re.findall(r"^\w", block, flags=re.MULTILINE)) <= 6
        exec(block.replace('"metaqap-lite"', repr(str(DEFAULT_CHECKPOINT))).replace("photo.jpg", str(PHOTO)), {})
    first, second = capsys.readouterr().out.strip().splitlines()
    assert float(first.split()[0]) == pytest.approx(float(re.search(r"'quality': ([\d.]+)", second)[1]), abs=1e-4)


def test_the_card_names_no_file_that_is_only_in_the_repository(card):
    assert not re.search(r"`[^`]*\bscripts/", card)
    assert "`metaqap recipes`" in card and "`metaqap evaluate-set`" in card


def test_the_card_tells_what_a_reader_has_to_know(card):
    for heading in ("Use", "What the score means", "Intended use and limits", "Training", "Results", "Cost",
                    "Environment", "Citation"):  # fmt: skip
        assert f"\n## {heading}\n" in card
    assert "Higher is better" in card and "not stated by the publisher" in card
    assert "arXiv:2506.16601" in card
    assert not re.search(r"\{\{ |\{%|\bNone\b|\bnan\b", card.split("---", 2)[2]), "a hole in the template"


def test_a_checkpoint_that_was_fused_on_other_images_tells_the_licence_of_those_it_was_trained_on(card_dir, tmp_path):
    checkpoint = shutil.copytree(DEFAULT_CHECKPOINT, tmp_path / "metaqap-lite")
    change(checkpoint / "fit.json", lambda fit: fit.update(dataset="folder", split="train"))
    text = " ".join(card_files(checkpoint, card_dir)["README.md"].split())
    assert "It was trained on BIQ2021 train. BIQ2021 is" in text
    assert "scores of folder train, n 1,000" in text
    assert "BIQ2021 (https://" in text and "user's own" not in text and "official split, so figures on it" in text

    def trained_on(*stages):
        def replace_lineages(config):
            for learner in config["base_learners"]:
                learner["lineage"] = write_stages(stages)

        change(checkpoint / "config.json", replace_lineages)

    learned = [Stage(kind="finetune", dataset=name, split="train") for name in ("biq2021", "flive")]
    trained_on(*learned, Stage(kind="heads", dataset="live", split="train", hold_out="a*"))
    text = " ".join(card_files(checkpoint, card_dir)["README.md"].split())
    flive, live = IQA_DATASETS["flive"].title, IQA_DATASETS["live"].title
    assert f"It was trained on BIQ2021 train and {flive} train and {live} train without a*. BIQ2021 is" in text
    for data_set in (flive, live):
        assert f" {data_set} is " in text and f" {data_set} (http" in text
    for stages, message in (
        ([], "does not say which images each learner was trained on"),
        ([Stage(kind="imagenet")], "does not say which images each learner was trained on"),
        ([*learned, Stage(kind="finetune", dataset="mine", split="train")], "names the data set 'mine'"),
    ):
        trained_on(*stages)
        with pytest.raises(MetaQAPError, match=message):
            card_files(checkpoint, card_dir)


def test_ratings_of_ones_own_are_told_in_words_and_have_no_licence_that_is_known(card_dir, tmp_path):
    checkpoint = shutil.copytree(DEFAULT_CHECKPOINT, tmp_path / "metaqap-lite")
    learned = [
        Stage(kind="finetune", dataset="biq2021", split="train"),
        Stage(kind="heads", dataset="folder", split="train", hold_out="fold 1 of 5"),
    ]

    def replace_lineages(config):
        for learner in config["base_learners"]:
            learner["lineage"] = write_stages(learned)

    change(checkpoint / "config.json", replace_lineages)
    text = " ".join(card_files(checkpoint, card_dir)["README.md"].split())
    trained_on = "BIQ2021 train and a folder of rated photographs (train without fold 1 of 5). BIQ2021 is 12,000"
    assert f"- It was trained on {trained_on}" in text
    assert "- Photographs of another kind" in text.partition("no scene ids are published. ")[2][:30]
    licences = text.partition("The licence of the training images: ")[2].partition(" The images are not")[0]
    biq2021 = f"BIQ2021 ({IQA_DATASETS['biq2021'].homepage}): not stated by the publisher."
    assert licences == f"{biq2021} A folder of rated photographs: ask whoever published these weights."


def test_the_card_of_an_adapted_checkpoint_has_what_is_true_of_it_too(card):
    shipped = ModelCard(card).data
    figure = {name: {"value": 0.5} for name in ("plcc", "srocc", "rmse")}
    record = {"n": 20, "conclusion": "It helped.", "interval_radius": 0.1, "learning_curve": []}
    record["figures"] = {"before": figure, "after": figure}
    config = MetaQAPConfig.from_pretrained(DEFAULT_CHECKPOINT)
    text = adapted_card(config, record, "mine")
    data = ModelCard(text).data
    for name in ("language", "library_name", "license", "pipeline_tag", "tags"):
        assert data[name] == shipped[name], name
    biq2021 = f"BIQ2021 ({IQA_DATASETS['biq2021'].homepage}; licence: not stated by the publisher)"
    assert f"the learners were trained on photographs of {biq2021}." in text
    assert "\n\n[Paper](https://arxiv.org/abs/2506.16601)\n\n" in text
    config.base_learners = config.base_learners[:1]
    assert "ensemble" not in ModelCard(adapted_card(config, record, "mine")).data.tags
    config.base_learners[0]["lineage"] = write_stages([Stage(kind="adapt", dataset="folder", split="all")])
    assert "were trained on" not in adapted_card(config, record, "mine")


def test_weights_of_the_hub_are_named_as_base_models(card_dir, tmp_path):
    checkpoint = shutil.copytree(DEFAULT_CHECKPOINT, tmp_path / "metaqap-lite")

    def fetch_the_first_two(config):
        for number, source in enumerate(["timm/resnet18.a1_in1k", "https://a.b/c.pth"]):
            config["base_learners"][number]["lineage"][0]["source"] = f"timm's hub, {source}"

    change(checkpoint / "config.json", fetch_the_first_two)
    files = card_files(checkpoint, card_dir)
    assert ModelCard(files["README.md"]).data.base_model == ["timm/resnet18.a1_in1k"]


def test_the_picture_shows_the_examples_with_the_scores_that_the_card_names(card, card_dir):
    shown_by = (HUB_CARD / "examples.json").read_text()
    shown = json.loads(shown_by)["shown"]
    records = Scorer(device="cpu").score([PHOTO, PHOTO.with_name("coffee_crushed.jpg")])
    assert [row["quality"] for row in shown] == [f"{record.quality:.2f}" for record in records]
    alt = "; ".join(f"{row['title']}: {row['quality']}" for row in shown)
    assert f"![{alt}](examples.jpg)\n\n## Use" in card and (HUB_CARD / "examples.jpg").stat().st_size < 150_000
    for changed, reason in (("config_sha256", "with another interval"), ("weights_sha256", "by other weights")):
        change(card_dir / "examples.json", lambda data, name=changed: data.update({name: "0" * 64}))
        assert "examples.jpg" not in card_files(DEFAULT_CHECKPOINT, card_dir)["README.md"], f"drawn {reason}"
        change(card_dir / "examples.json", lambda data: data.update(json.loads(shown_by)))


def test_the_card_links_to_the_paper_and_to_what_the_publisher_names(card, card_dir):
    paper = "[Paper](https://arxiv.org/abs/2506.16601)"
    assert f"\n{paper}\n" in card
    files = card_files(DEFAULT_CHECKPOINT, card_dir, links={"Demo": "https://a.b/c", "Source": "https://d.e"})
    assert f"\n{paper} · [Demo](https://a.b/c) · [Source](https://d.e)\n" in files["README.md"]


def test_the_card_tells_the_stages_of_each_learner(card):
    text = " ".join(card.split())
    config = MetaQAPConfig.from_pretrained(DEFAULT_CHECKPOINT)
    for learner, stages in zip(config.base_learners, learner_stages(config), strict=True):
        assert f"- {learner['name']}: {in_words(stages)}." in text
    assert "(frozen): ImageNet weights of" in text and "17,500 distorted images of 700 photographs" in text


def test_a_fit_of_before_there_was_shrinkage_says_nothing_of_it(card_dir, tmp_path):
    checkpoint = shutil.copytree(DEFAULT_CHECKPOINT, tmp_path / "metaqap-lite")
    assert "of the way to equal ones" in " ".join(card_files(checkpoint, card_dir)["README.md"].split())
    change(checkpoint / "fit.json", lambda fit: fit.pop("shrinkage"))
    assert "of the way" not in card_files(checkpoint, card_dir)["README.md"]


def test_the_scale_of_the_raters_is_told_where_it_is_not_that_of_the_quality(card, card_dir, tmp_path):
    assert "**Scale.**" not in card and "**Direction.**" in card  # BIQ2021's raters: 0 to 1
    checkpoint = shutil.copytree(DEFAULT_CHECKPOINT, tmp_path / "metaqap-lite")
    change(checkpoint / "config.json", lambda config: config.update(mos_range=[1, 5]))
    text = " ".join(card_files(checkpoint, card_dir)["README.md"].split())
    assert "lowest score that a rater could give, 1, and 1 for the highest, 5; `metaqap" in text


def test_the_picture_shows_each_photograph_with_its_score_and_is_of_these_weights(make_model, tmp_path):
    model = make_model("test_resnet")
    model.save_pretrained(tmp_path)
    MetaQAPImageProcessor(size={"shortest_edge": 64}, crop_size=64).save_pretrained(tmp_path)
    assert not has_picture(tmp_path, tmp_path)
    photographs = {"as it is": PHOTO, "crushed": PHOTO.with_name("coffee_crushed.jpg")}
    draw_picture(tmp_path, tmp_path, photographs)
    records = Scorer(tmp_path, device="cpu").score(photographs.values())
    shown = json.loads((tmp_path / PICTURE_FILE).read_text())["shown"]
    qualities = [f"{record.quality:.2f}" for record in records]
    assert [(one["title"], one["quality"]) for one in shown] == list(zip(photographs, qualities, strict=True))
    with Image.open(tmp_path / PICTURE) as picture:
        assert picture.format == "JPEG" and picture.height > 100
        rows = np.asarray(picture.convert("L"))
    half = len(rows) // 2
    assert rows[:half].std() > 10 and rows[half:].std() > 10  # neither is blank
    assert has_picture(tmp_path, tmp_path)
    model.meta_learner.intercept.data += 0.5
    model.save_pretrained(tmp_path)
    assert not has_picture(tmp_path, tmp_path)
