"""Results as JSON, tables and plots."""

import dataclasses
import json
import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.evaluation.evaluating import Measurement
from modeling_metaqap.evaluation.folder_report import worst_disagreements, write_folder_report
from modeling_metaqap.evaluation.metrics import MIN_IMAGES, evaluate_scores
from modeling_metaqap.evaluation.plots import fitted_and_residuals, plot_matrix, plot_residuals, plot_scatter
from modeling_metaqap.evaluation.results_files import merge_results, read_results, write_results
from modeling_metaqap.evaluation.tables import (
    HEADINGS,
    TextTable,
    few_images_sentence,
    format_figure,
    results_markdown,
    results_table,
    srocc_matrix,
)


def row(checkpoint, dataset="biq2021", split="test", srocc=0.5, **others):
    figure = {"value": srocc, "low": 0.4, "high": 0.6}
    if srocc is None:
        figure = dict.fromkeys(figure)
    return {"checkpoint": checkpoint, "dataset": dataset, "split": split, "n": 2000, "seed": 0} | {
        **{name: figure for name in HEADINGS},
        **others,
    }


@pytest.fixture
def measurement():
    rng = np.random.default_rng(0)
    qualities = rng.uniform(0.1, 0.9, 40)
    # On another scale than the opinions, as a baseline's, and wrong about two images.
    predictions = 100 * qualities - 80 + rng.normal(size=40)
    qualities[[7, 21]] = 0.95, 0.05
    predictions[[7, 21]] = -60, 5
    return Measurement(
        row=row("model"), image_ids=[f"{i}.png" for i in range(40)], predictions=predictions, qualities=qualities
    )


def test_results_are_written_and_read_again(tmp_path):
    rows = [row("a"), row("b", srocc=None)]
    write_results(tmp_path / "new" / "results.json", rows)
    assert read_results(tmp_path / "new" / "results.json") == rows
    assert read_results(tmp_path / "absent.json") == []
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]


def test_a_value_that_json_has_not_is_never_written(tmp_path):
    write_results(tmp_path / "results.json", [row("a")])
    with pytest.raises(ValueError, match="JSON"):
        write_results(tmp_path / "results.json", [row("a", n=math.nan)])
    assert read_results(tmp_path / "results.json") == [row("a")]


@pytest.mark.parametrize("text", ["", "[]", '{"results": [{"n": 3}]}', '{"figures": []}'])
def test_another_file_is_not_taken_for_results(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(MetaQAPError, match="not a results file"):
        read_results(tmp_path / "results.json")


def test_a_new_row_takes_the_place_of_the_one_about_the_same_thing():
    old = [row("a"), row("b"), row("a", split="validation")]
    new = [row("b", srocc=0.7), row("c")]
    assert merge_results(old, new) == [old[0], new[0], old[2], new[1]]


def test_figures_are_written_with_their_interval_or_their_range():
    assert format_figure({"value": 0.85555, "low": 0.84, "high": 0.8666}) == "0.856 [0.840, 0.867]"
    assert format_figure({"value": 0.5, "min": 0.4, "max": 0.6}) == "0.500 (0.400 to 0.600)"
    assert format_figure({"value": 0.5}) == "0.500"
    assert format_figure({"value": None, "low": None, "high": None}) == "–"


def test_the_best_method_stands_first_and_an_undefined_one_last():
    table = results_table(
        [row("constant", srocc=None), row("good", srocc=0.7), row("brisque"), row("best", srocc=0.9)]
    )
    assert [line.split(" | ")[0] for line in table.splitlines()] == [
        "| ", "| ---", "| best", "| good", "| BRISQUE", "| constant",
    ]  # fmt: skip
    assert "| constant | – | – | – | – | – |" in table


def test_a_bar_in_a_name_does_not_break_the_table():
    assert TextTable(["a", "b"], [["x|y", "1"]]).markdown() == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n"


def test_several_data_sets_give_a_matrix_with_gaps_where_nothing_was_measured():
    rows = [row("m", srocc=0.9), row("m", "livec", srocc=0.7), row("piqe", srocc=0.2)]
    names, columns, values = srocc_matrix(rows)
    assert (names, columns) == (["m", "PIQE"], ["biq2021 test", "livec test"])
    np.testing.assert_array_equal(values, [[0.9, 0.7], [0.2, np.nan]])
    text = results_markdown(rows)
    assert "## biq2021, test (n 2,000)" in text
    assert "| PIQE | 0.200 | – |" in text
    assert "SROCC across data sets" not in results_markdown(rows[:1])


def test_the_median_over_splits_says_so():
    repeated = row("m", split="test_0 to test_9", median_of=10, n=232)
    assert "## biq2021, test_0 to test_9 (median of 10 splits, n 232)" in results_markdown([repeated])


def test_the_images_of_which_model_and_raters_disagree_most_come_first(measurement):
    first, second, third = worst_disagreements(measurement, 3)
    assert {first.image_id, second.image_id} == {"7.png", "21.png"}
    by_id = {one.image_id: one for one in (first, second)}
    assert by_id["7.png"].residual > 0.3  # liked by the raters
    assert by_id["21.png"].residual < -0.3
    assert abs(third.residual) < min(abs(first.residual), abs(second.residual))
    assert worst_disagreements(measurement, 0) == []


def test_residuals_are_those_of_the_logistic_fit(measurement):
    fitted, residuals = fitted_and_residuals(measurement)
    np.testing.assert_allclose(fitted + residuals, measurement.qualities)
    # The scale was another one; now it is that of the opinions.
    assert 0 <= fitted.min() and fitted.max() <= 1
    assert abs(residuals.mean()) < 0.01


def test_predictions_that_are_all_the_same_have_residuals_as_they_are(measurement):
    same = Measurement(
        row=row("m", srocc=None),
        image_ids=["a", "b"],
        predictions=np.array([0.5, 0.5]),
        qualities=np.array([0.2, 0.9]),
    )
    np.testing.assert_allclose(fitted_and_residuals(same)[1], [-0.3, 0.4])


def test_plots_are_pictures_with_something_on_them(measurement, tmp_path):
    plot_scatter(measurement, tmp_path / "scatter.png")
    plot_residuals(measurement, tmp_path / "residuals.png")
    plot_matrix([row("m"), row("m", "livec", srocc=None), row("piqe", srocc=-0.1)], tmp_path / "matrix.png")
    for name in ("scatter", "residuals", "matrix"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 200
            assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 50


def test_the_scatter_plot_shows_the_fit(measurement, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "modeling_metaqap.evaluation.plots.fit_logistic", lambda x, y: drawn.append((x, y)) or (lambda x: x)
    )
    plot_scatter(measurement, tmp_path / "scatter.png")
    [(x, y)] = drawn
    assert (x is measurement.predictions) and (y is measurement.qualities)


def lines_of(measurement, tmp_path, monkeypatch):
    """What a scatter plot has drawn: lines and bands by their names in the legend."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: figures.append(figure))
    plot_scatter(measurement, tmp_path / "scatter.png")
    [axes] = figures[0].axes
    monkeypatch.undo()
    return dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))


def test_the_scatter_plot_has_the_line_of_equality_and_the_band_of_the_interval(measurement, tmp_path, monkeypatch):
    calibrated = row("model", interval={"calibrated_for": 0.9, "coverage": 0.9, "width": 0.4})
    same_scale = dataclasses.replace(measurement, row=calibrated, predictions=measurement.qualities[::-1].copy())
    drawn = lines_of(same_scale, tmp_path, monkeypatch)
    assert list(drawn) == ["90 % interval", "prediction = opinion", "logistic fit"]
    x, y = drawn["prediction = opinion"].get_data()
    assert list(x) == list(y) == [0, 1]
    corners = drawn["90 % interval"].get_paths()[0].vertices
    assert {(round(x, 6), round(y - x, 6)) for x, y in corners} == {(0, -0.2), (0, 0.2), (1, -0.2), (1, 0.2)}
    without = lines_of(dataclasses.replace(same_scale, row=row("model")), tmp_path, monkeypatch)
    assert list(without) == ["prediction = opinion", "logistic fit"]
    # Scores of a baseline are on a scale of their own.
    assert list(lines_of(dataclasses.replace(measurement, row=row("piqe")), tmp_path, monkeypatch)) == ["logistic fit"]


def test_two_images_have_no_correlation_but_a_sentence(measurement, tmp_path):
    def of(n):
        figures = evaluate_scores(measurement.predictions[:n], measurement.qualities[:n], n_bootstrap=20)
        known = {
            name: {key: None if math.isnan(value) else value for key, value in figures[name].items()}
            for name in HEADINGS
        }
        part = {"image_ids": measurement.image_ids[:n], "predictions": measurement.predictions[:n]}
        return Measurement(row=row("model", n=n) | known, qualities=measurement.qualities[:n], **part)

    two, enough = of(2), of(MIN_IMAGES)
    assert {name: two.row[name]["value"] is None for name in HEADINGS} == {name: name != "rmse" for name in HEADINGS}
    assert all(two.row[name]["low"] is None for name in HEADINGS)
    assert all(enough.row[name]["value"] is not None and enough.row[name]["low"] is not None for name in HEADINGS)
    assert few_images_sentence(enough.row) is None
    write_folder_report(two, worst_disagreements(two, 2), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "2 images are too few for a correlation" in text and "1.000" not in text


def test_the_report_of_a_folder_holds_figures_plots_and_disagreements(measurement, tmp_path):
    write_folder_report(measurement, worst_disagreements(measurement, 2), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "0.500 [0.400, 0.600]" in text
    assert "7.png" in text and "21.png" in text and "30.png" not in text
    for name in ("scatter.png", "residuals.png"):
        assert f"({name})" in text
        assert (tmp_path / "report" / name).is_file()
    assert json.loads((tmp_path / "report" / "results.json").read_text())["results"] == [measurement.row]
