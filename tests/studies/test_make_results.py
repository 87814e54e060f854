"""docs/results.md: the page of all figures, made of the committed JSON files."""

import json
import re

import make_results
import pytest
import study_tables
from repository import ROOT, measured_on

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.evaluation.tables import plcc_srocc, results_table, sentences
from modeling_metaqap.lineage import weights_sha256

RESULTS = ROOT / "studies" / "results"


@pytest.fixture(scope="module")
def page():
    return (ROOT / "docs" / "results.md").read_text()


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_the_committed_page_is_the_one_that_the_files_give(page):
    assert make_results.results_page() == page, "run `make results`"


def test_no_measured_number_is_typed_in_the_template():
    template = (ROOT / "studies" / "results_template.md").read_text()
    outside = re.sub(r"{{.*?}}|{%.*?%}|https://[^)]*", "", template, flags=re.DOTALL)
    # Two or more decimals, or a percentage; a setting such as `--shrinkage 0.5` is no measurement.
    assert not re.findall(r"\d\.\d{2,}|\d %", outside)


def test_the_page_follows_the_files(monkeypatch, tmp_path):
    for path in RESULTS.glob("*.json"):
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / path.name).write_text(path.read_text())
    changed = read("ablation")
    changed["variants"]["full"]["validation split"] = {"plcc": 0.123, "srocc": 0.456}
    (tmp_path / "results" / "ablation.json").write_text(json.dumps(changed))
    for name in ("results_template.md", "published.json"):
        (tmp_path / name).write_text((make_results.STUDIES / name).read_text())
    monkeypatch.setattr(make_results, "STUDIES", tmp_path)
    assert "| full | 0.123 / 0.456 |" in make_results.results_page()


def test_the_page_has_every_file_of_the_studies(page):
    named = {path.name for path in RESULTS.glob("*.json") if f"studies/results/{path.name}" in page}
    assert named == {path.name for path in RESULTS.glob("*.json")}


def test_the_page_quotes_the_results_of_the_shipped_weights(page):
    rows = list(measured_on("biq2021").values())
    assert {row["checkpoint"] for row in rows} >= {"metaqap-lite", "brisque", "piqe"}
    # The same images in the same order.
    assert len({(row["dataset"], row["split"], row["images_sha256"], row["n"]) for row in rows}) == 1
    assert results_table(rows) in page
    [shipped] = [row for row in rows if row["checkpoint"] == "metaqap-lite"]
    for sentence in sentences(shipped):
        assert sentence in " ".join(page.split())
    cost, onnx = (json.loads((ROOT / "hub_card" / f"{name}.json").read_text()) for name in ("cost", "onnx"))
    weights = weights_sha256(DEFAULT_CHECKPOINT)
    assert shipped["weights_sha256"] == cost["inference"]["weights_sha256"] == onnx["weights_sha256"] == weights


def test_the_page_sets_what_was_measured_across_data_sets_beside_what_others_publish():
    def row(trained_on, dataset, value, *, checkpoint="mine"):
        figure = {"value": value}
        return {
            "checkpoint": checkpoint,
            "trained_on": trained_on,
            "dataset": dataset,
            "plcc": figure,
            "srocc": figure,
        }

    rows = [row("biq2021 train", "livec", 0.7), row("biq2021 train", "biq2021", 0.9), row(None, "biq2021", 0.3)]
    adapted = {size: {"adapted": row(None, "livec", value)} for size, value in {"50": 0.81, "930": 0.83}.items()}
    published = [
        {"method": "A", "trained_on": "koniq10k", "measured_on": "livec", "plcc": 0.5, "srocc": 0.4},
        {"method": "B", "trained_on": "livec", "measured_on": "livec", "plcc": 0.6, "srocc": 0.55},
    ]
    rows.append(row("biq2021 train", "biq2021", 0.91, checkpoint="metaqap-lite"))
    table = study_tables.across_table(rows, {"livec": {"curves": adapted}}, {"results": published})
    assert table.headings[1:] == ["mine", "metaqap-lite", "A", "B"]
    cells = {way: others for way, *others in table.rows}
    assert cells["within BIQ2021"] == ["0.900 / 0.900", "0.910 / 0.910", "–", "–"]
    assert cells["BIQ2021 to LIVE In the Wild"] == ["0.700 / 0.700", "not measured", "–", "–"]
    in_dataset = ["not measured", "0.830 / 0.830", "–", "0.600 / 0.550"]
    assert cells["within LIVE In the Wild"] == in_dataset
    assert cells["KonIQ-10k to LIVE In the Wild"] == ["not measured", "not measured", "0.500 / 0.400", "–"]


def test_the_page_says_what_the_meta_learner_is_worth_at_home_and_elsewhere(page):
    figures = json.loads((DEFAULT_CHECKPOINT / "fit.json").read_text())["figures"]
    fusions = read("fusions")
    test = measured_on("biq2021")["metaqap-lite"]
    # By what can be known at home, without the test split.
    best = max(fusions["learners"], key=lambda name: figures[name]["srocc"]["value"])
    there = max(fusions["learners"], key=lambda name: sum(row["srocc"] for row in fusions["rows"][name].values()))
    [shipped] = [label for label in fusions["rows"] if label.endswith("(shipped)")]
    rows = {
        "the meta-learner": ("meta-learner, cross-fitted", test, shipped),
        "without it: plain mean": ("plain mean", test["learners"]["plain mean"], "plain mean"),
        f"without it: best single learner ({best})": (best, test["learners"][best], best),
        f"without it: best single learner elsewhere ({there})": (there, test["learners"][there], there),
    }
    for name, (at_home, tested, elsewhere) in rows.items():
        places = [figures[at_home], tested, *(fusions["rows"][elsewhere][source] for source in fusions["n"])]
        assert f"| {name} | {' | '.join(map(plain_plcc_srocc, places))} |" in page, name


def plain_plcc_srocc(figures):
    """Of figures with intervals or without."""
    plain = {name: figures[name] for name in ("plcc", "srocc")}
    return plcc_srocc({name: value["value"] if isinstance(value, dict) else value for name, value in plain.items()})


#: The last steps of the shipped ensemble's learners.
SHIPPED = {
    "EfficientNet-Lite0": "lite0_joint",
    "EfficientNet-Lite1": "lite1_joint",
    "MobileNetV2": "mnv2_joint",
    "MobileNetV2, frozen": "mobilenetv2_frozen",
}


def test_the_page_quotes_the_training_log(page):
    last = {run["run"]: run["measured"][-1] for run in read("training_log")}
    page = " ".join(page.split())
    pretrained, tuned = last["mnet_pre"], last["mnet_tuned_s0"]
    assert f"SROCC of {pretrained['validation_srocc']:.3f} with the pseudo opinion score" in page
    assert f"names {100 * pretrained['validation_distortion_accuracy']:.1f} % of their distortions" in page
    assert f"still names {100 * tuned['validation_distortion_accuracy']:.1f} %" in page
    with_it, without = (
        " and ".join(f"{last[f'{run}_s{seed}']['validation_srocc']:.3f}" for seed in (0, 1))
        for run in ("mnet_tuned", "mnet_plain")
    )
    assert f"is {with_it} with pretraining (seeds 0 and 1), {without} without" in page
    for learner, run in SHIPPED.items():
        share, srocc = (last[run][f"validation_{name}"] for name in ("distortion_accuracy", "distorted_srocc"))
        assert f"| {learner} | {100 * share:.1f} % | {srocc:.3f} |" in page


def test_the_page_shows_every_kind_of_speed_once_it_is_measured(monkeypatch):
    """Whether or not the committed files have it, with made-up figures here."""
    ours = ["step on a batch in memory", "loop with reading"]
    everybody = ours + [f"{name}, version before" for name in ours]
    with_reading = {
        "processes_that_read": 0,
        "processes_that_read_before": 2,
        "size": [512, 512],
        "threads": 1,
        "turns": 5,
        "contenders": {name: {"images_per_second": 10.0 + place} for place, name in enumerate(everybody)},
        "ratios": {f"{ours[1]} over {ours[0]}": 0.9371, f"{ours[1]} over version before": 1.2345},
    }
    program = {"first_line_seconds": 4.017, "beyond_imports": 1.279, "whole_seconds": 4.513}
    read = make_results.read

    def measured(path):
        values = read(path)
        if path.name == "benchmark.json":
            values["start_up"] = {"threads": 1, "turns": 5, "programs": {"first use": program}}
            values["distributed"] = {"workers": 2, "turns": 5, "ray_over_one_process": 0.9137}
            values["training"]["with_reading"] = with_reading
        elif path.name == "kill_scoring.json":
            values["peak_memory_mb"] = {"1000": 511.2, "20000": 533.3}
        elif path.name == "scoring.json":
            values["scoring"]["7000 x 5000, 1 threads"] = values["scoring"]["512 x 512, 2 threads"]
        return values

    monkeypatch.setattr(make_results, "read", measured)
    written = make_results.results_page()
    assert all(f"\n\n{line}" in written for line in written.splitlines() if line.startswith("## "))
    page = " ".join(written.split())
    assert "| loop with reading | 11.0 | 13.0 | 1.23 |" in page
    assert "| step on a batch in memory | 10.0 | 12.0 | – |" in page
    assert "The loop with reading does 93.7 % of what the step alone does" in page
    assert "| first use | 4.02 | 1.28 | 4.51 |" in page
    assert "Ray's 2 workers of one core each scored 91.4 %" in page
    assert "511 MB at most for 1,000 photographs, and 533 MB at most for 20,000 photographs." in page
    assert "photographs of 7000 x 5000 pixels, one thread" in page


def test_the_page_shows_what_own_ratings_and_several_sets_bring_once_it_is_measured(monkeypatch, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for path in RESULTS.glob("*.json"):
        (results / path.name).write_text(path.read_text())
    pair, both = {"plcc": 0.8123, "srocc": 0.7987}, {"closed form": {"plcc": 0.5, "srocc": 0.25}}
    with_interval = {name: {"value": value} for name, value in pair.items()}
    runs = [both | {"fine-tuned": pair, "n": n, "cpu_minutes": 12.4, "dataset": "livec"} for n in (930, 200, 930)]
    runs[0] = runs[0] | {"closed form": pair}
    methods = dict.fromkeys(study_tables.LEFT_OUT_CURVES, with_interval)
    source = {"before": with_interval, "curves": {"25": methods, "500": methods}}
    mean = {"validation split": pair | {"n": 1000}}
    made_up = {
        "finetuning": runs,
        "left_out_curves": {"sources": {"ss01*": source}},
        "mixtures": {"mixtures": {"one set": {"mean": mean}, "its sources": {"mean": mean}}},
    }
    for name, values in made_up.items():
        (results / f"{name}.json").write_text(json.dumps(values))
    for name in ("results_template.md", "published.json"):
        (tmp_path / name).write_text((make_results.STUDIES / name).read_text())
    monkeypatch.setattr(make_results, "STUDIES", tmp_path)
    written = make_results.results_page()
    assert all(f"\n\n{line}" in written for line in written.splitlines() if line.startswith("## "))
    assert (
        "| 200 | 1 | 0.500 / 0.250 | 0.812 / 0.799 | 12 |\n| 930 | 2 | 0.656 / 0.524 | 0.812 / 0.799 | 12 |" in written
    )
    assert "| ss01* | from ImageNet weights | – | 0.812 / 0.799 | 0.812 / 0.799 |" in written
    assert "| trained on | validation split (n 1,000) |" in written
    assert "| its sources | 0.812 / 0.799 |" in written


def test_of_a_race_on_a_shared_machine_the_time_of_the_processor_counts():
    row = {"peak_memory_megabytes": 1000, "share_of_peak": 0.3}
    names = ["bare forward, PyTorch folded", "bare forward, ONNX Runtime", "default, core install"]
    names += ["default, with ONNX Runtime"]
    contenders = {name: row | {"images_per_second": 1.5, "images_per_processor_second": 2.25} for name in names}
    alone = {bare: {"default, core install": 0.5, "default, with ONNX Runtime": 0.6} for bare in names[:2]}
    section = {
        "threads": 2,
        "contenders": {"matrix product": {"images_per_second": 3.9, "images_per_processor_second": 2.0}} | contenders,
        "ratios": alone,
        "processor_ratios": {bare: {name: 2 * ratio for name, ratio in own.items()} for bare, own in alone.items()},
    }
    assert not study_tables.was_shared(section)
    assert "| default, core install | 1.50 | 30 % | 1,000 |" in study_tables.scoring_table(section).markdown()
    assert study_tables.end_to_end(section) == "50.0 % with PyTorch and 60.0 % with ONNX Runtime"
    section["contenders"]["matrix product"]["images_per_second"] = 1.0  # each thread had a quarter of a core
    assert study_tables.was_shared(section)
    assert "| default, core install | 2.25 | – | 1,000 |" in study_tables.scoring_table(section).markdown()
    assert study_tables.end_to_end(section) == "100.0 % with PyTorch and 120.0 % with ONNX Runtime"


def test_long_lines_are_filled_and_tables_are_left_alone():
    table = f"| {'wide ' * 40}|\n| --- |"
    text = "a word " * 30
    page = make_results.wrapped(f"# Title\n\n{text}\n\n{table}\n\n- one\n  more\n- {text}\n")
    assert table in page and "\n- one more\n- a word" in page
    assert all(len(line) <= 119 for line in page.splitlines() if not line.startswith("|"))
    assert page.startswith("# Title\n\na word") and page.endswith("word\n")
