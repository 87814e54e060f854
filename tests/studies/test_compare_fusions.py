"""studies/compare_fusions.py: base learners fused on sources that none of them was trained on."""

import csv
import json

import numpy as np
import pytest
from script_loader import exit_status

pytest.importorskip("datasets")

import compare_fusions
from study_tables import fusions_table

from modeling_metaqap.evaluation.metrics import srocc

#: Images of each source, and how much noise each learner adds to the opinions.
SOURCES = {"a*": 60, "b*": 40, "c*": 50}
NOISE = {"sharp": 0.1, "blunt": 0.1, "dull": 0.4}


@pytest.fixture
def written(tmp_path):
    """Files of scores, in which a learner has a head "good" and a head "bad"; the images and their true scores."""
    rng = np.random.default_rng(0)
    images = [(source, f"{source[0]}{number}") for source, count in SOURCES.items() for number in range(count)]
    qualities = rng.uniform(size=len(images))
    scores = {}
    for name, noise in NOISE.items():
        scores[name] = qualities + rng.normal(scale=noise, size=len(images))
        rows = [
            {"place": place, "image_id": image_id, "quality": quality, "good": score, "bad": -score}
            for (place, image_id), quality, score in zip(images, qualities, scores[name], strict=True)
        ]
        # One file has the validation split too, one another order: rows are told by their ids.
        home = [row | {"place": "validation split"} for row in rows[::3]]
        write(tmp_path / f"{name}.csv", {"sharp": rows, "blunt": rows[::-1], "dull": home + rows}[name])
    return images, qualities, scores


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def options(tmp_path, **heads):
    named = [("--learner", name, tmp_path / f"{name}.csv", head) for name, head in heads.items()]
    return [str(option) for option in [*sum(named, ()), "--output", tmp_path / "fusions.json"]]


GOOD = dict.fromkeys(NOISE, "good")


def test_fusions_are_measured_on_each_source(written, tmp_path, capsys):
    images, qualities, scores = written
    assert exit_status(compare_fusions.main, *options(tmp_path, **GOOD)) == 0
    result = json.loads((tmp_path / "fusions.json").read_text())
    assert result["n"] == SOURCES
    assert result["learners"] == GOOD
    rows = result["rows"]
    of = {source: np.array([place == source for place, _ in images]) for source in SOURCES}
    for source, chosen in of.items():
        assert rows["dull"][source]["srocc"] == pytest.approx(srocc(scores["dull"][chosen], qualities[chosen]))
        both = (scores["sharp"] + scores["blunt"]) / 2
        assert rows["plain mean without dull"][source]["srocc"] == pytest.approx(
            srocc(both[chosen], qualities[chosen])
        )
        fused, plain = (rows[name][source]["srocc"] for name in ("meta-learner of other sources", "plain mean"))
        assert fused > plain, "it trusts the dull learner less"
        weights = result["weights_by_other_sources"][source]
        assert weights["dull"] < 0.2 < weights["sharp"]
    assert not any("at home" in label for label in rows)
    table = fusions_table(result).markdown()
    assert "|  | a*, left out (60) | b*, left out (40) | c*, left out (50) | mean SROCC |" in table
    assert f"{np.mean([row['srocc'] for row in rows['plain mean'].values()]):.3f} |" in table
    assert "meta-learner of other sources" in capsys.readouterr().out


def test_the_regression_of_a_source_knows_nothing_of_it(written, tmp_path):
    assert exit_status(compare_fusions.main, *options(tmp_path, **GOOD)) == 0
    before = json.loads((tmp_path / "fusions.json").read_text())["weights_by_other_sources"]
    for name in NOISE:
        rows = read(tmp_path / f"{name}.csv")
        for row in rows:
            if row["image_id"].startswith("b"):
                row["quality"] = float(row["quality"]) ** 3
        write(tmp_path / f"{name}.csv", rows)
    assert exit_status(compare_fusions.main, *options(tmp_path, **GOOD)) == 0
    after = json.loads((tmp_path / "fusions.json").read_text())["weights_by_other_sources"]
    assert after["b*"] == before["b*"]
    assert after["a*"] != before["a*"]


def test_a_source_that_all_learners_overrate_does_not_spoil_the_regression(written, tmp_path):
    assert exit_status(compare_fusions.main, *options(tmp_path, **GOOD)) == 0
    before = json.loads((tmp_path / "fusions.json").read_text())
    for name in NOISE:
        rows = [
            row | {"good": float(row["good"]) + 5 * (row["place"] == "b*")} for row in read(tmp_path / f"{name}.csv")
        ]
        write(tmp_path / f"{name}.csv", rows)
    assert exit_status(compare_fusions.main, *options(tmp_path, **GOOD)) == 0
    after = json.loads((tmp_path / "fusions.json").read_text())
    for source, weights in before["weights_by_other_sources"].items():
        assert after["weights_by_other_sources"][source] == pytest.approx(weights)
    label = "meta-learner of other sources"
    assert after["rows"][label]["a*"] == pytest.approx(before["rows"][label]["a*"])


def test_the_weights_of_a_checkpoint(written, tmp_path, capsys):
    images, qualities, scores = written
    # A learner that was not selected is not in the checkpoint.
    names = ["dull", "other", "sharp", "blunt"]
    fit = {
        "base_models": [{"name": name} for name in names],
        "shrinkage": 0.4,
        "weights": [0.2, 0.0, 0.5, 0.3],
        "regression_weights": [0.1, 0.0, 0.6, 0.3],
    }
    (tmp_path / "fit.json").write_text(json.dumps(fit))
    arguments = [*options(tmp_path, **GOOD), "--checkpoint", str(tmp_path)]
    assert exit_status(compare_fusions.main, *arguments) == 0
    rows = json.loads((tmp_path / "fusions.json").read_text())["rows"]
    chosen = np.array([place == "c*" for place, _ in images])

    def fused(sharp, blunt, dull):
        mixed = sharp * scores["sharp"] + blunt * scores["blunt"] + dull * scores["dull"]
        return pytest.approx(srocc(mixed[chosen], qualities[chosen]))

    assert rows["regression at home"]["c*"]["srocc"] == fused(0.6, 0.3, 0.1)
    assert rows["regression at home, shrinkage 0.5"]["c*"]["srocc"] == fused(0.467, 0.317, 0.217)
    assert rows["regression at home, shrinkage 0.4 (shipped)"]["c*"]["srocc"] == fused(0.493, 0.313, 0.193)
    assert [label for label in rows if "shipped" in label] == ["regression at home, shrinkage 0.4 (shipped)"]

    assert (
        exit_status(compare_fusions.main, *options(tmp_path, sharp="good", dull="good"), "--checkpoint", tmp_path) == 2
    )
    assert "holds the learners blunt, dull, sharp, not sharp, dull." in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_of_before_there_was_shrinkage(written, tmp_path, capsys):
    images, qualities, scores = written
    fit = {"base_models": [{"name": name} for name in NOISE], "weights": [0.5, 0.3, 0.2]}
    (tmp_path / "fit.json").write_text(json.dumps(fit))
    assert exit_status(compare_fusions.main, *options(tmp_path, **GOOD), "--checkpoint", tmp_path) == 0
    rows = json.loads((tmp_path / "fusions.json").read_text())["rows"]
    chosen = np.array([place == "a*" for place, _ in images])
    (tmp_path / "fit.json").write_text("[]")
    assert exit_status(compare_fusions.main, *options(tmp_path, **GOOD), "--checkpoint", tmp_path) == 2
    (tmp_path / "fit.json").unlink()
    assert exit_status(compare_fusions.main, *options(tmp_path, **GOOD), "--checkpoint", tmp_path) == 2
    assert capsys.readouterr().err.count("metaqap fit") == 2
    mixed = sum(weight * scores[name] for name, weight in zip(NOISE, fit["weights"], strict=True))
    assert rows["regression at home (shipped)"]["a*"]["srocc"] == pytest.approx(
        srocc(mixed[chosen], qualities[chosen])
    )


def test_what_does_not_fit_together_is_one_sentence(written, tmp_path, capsys):
    def refused(*arguments):
        assert exit_status(compare_fusions.main, *arguments) == 2
        assert not (tmp_path / "fusions.json").exists()
        return " ".join(capsys.readouterr().err.split())

    assert "has no head 'best'; it has 'good'; 'bad'." in refused(*options(tmp_path, sharp="best", dull="good"))
    assert "no such file" in refused(*options(tmp_path, sharp="good", missing="good"))
    (tmp_path / "other.csv").write_text("image_id,prediction,quality\na,1,2\n")
    assert "was not written by" in refused(*options(tmp_path, sharp="good", other="good"))
    (tmp_path / "empty.csv").write_text("")
    assert "was not written by" in refused(*options(tmp_path, sharp="good", empty="good"))
    (tmp_path / "text.csv").write_text("not a table")
    assert "was not written by" in refused(*options(tmp_path, sharp="good", text="good"))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xd8\xff")
    assert "was not written by" in refused(*options(tmp_path, sharp="good", binary="good"))
    write(tmp_path / "words.csv", [row | {"good": "fine"} for row in read(tmp_path / "sharp.csv")])
    assert "'fine', not a number" in refused(*options(tmp_path, sharp="good", words="good"))
    write(tmp_path / "fewer.csv", read(tmp_path / "sharp.csv")[1:])
    assert "hold scores of different images" in refused(*options(tmp_path, sharp="good", fewer="good"))
    for arguments in (options(tmp_path, sharp="good"), [*options(tmp_path, sharp="good")[:4] * 2]):
        with pytest.raises(SystemExit):
            compare_fusions.main(arguments)
        assert "name at least two learners, each once" in capsys.readouterr().err
