"""What own ratings bring on photographs from elsewhere: the program that measures it."""

import json

import learning_curves
import numpy as np
import pytest
from study_tables import curves_table, intervals_table

from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.lineage import Stage, rated_images, write_stages


@pytest.fixture
def call(rated_sources, make_model, tmp_path):
    """Runs the program on a folder that is cut by seeded splits; gives what it wrote for the folder."""
    rows = (rated_sources / "labels.csv").read_text().splitlines()
    (rated_sources / "labels.csv").write_text("\n".join(row.rsplit(",", 1)[0] for row in rows) + "\n")

    def run(lineage=()):
        model = make_model("test_resnet", interval_radius=0.2)
        model.config.base_learners[0]["lineage"] = write_stages(lineage)
        save_checkpoint(model, tmp_path / "checkpoint")
        output = tmp_path / "curves.json"
        options = {
            "--dataset": "folder",
            "--data_dir": rated_sources,
            "--cache_dir": tmp_path / "cache",
            "--checkpoint": tmp_path / "checkpoint",
            "--features": tmp_path / "features",
            "--sizes": 15,
            "--suggested": 15,
            "--repeat_splits": 2,
            "--output": output,
        }
        learning_curves.main([str(part) for option in options.items() for part in option])
        return json.loads(output.read_text())["folder"]

    return run


def test_each_number_of_ratings_is_measured_on_the_photographs_of_each_split(call):
    result = call()
    assert list(result["curves"]) == ["15", "24"]
    assert set(result["curves"]["15"]) == {*learning_curves_methods(), "adapted to suggested ones"}
    assert set(result["curves"]["24"]) == learning_curves_methods()
    for figures in result["curves"]["15"].values():
        assert -1 <= figures["srocc"]["low"] <= figures["srocc"]["value"] <= figures["srocc"]["high"] <= 1
    # A straight line changes no rank, but for its direction.
    line, before = result["curves"]["24"]["scale alone"]["srocc"], result["before"]["srocc"]
    assert np.isclose(abs(line["value"]), abs(before["value"]))
    assert [row[0] for row in curves_table(result).rows] == ["0", "15", "24"]
    assert len(intervals_table(result).rows) == 5


def learning_curves_methods():
    return {"adapted", "scale alone", "fusion fitted anew"}


def test_a_checkpoint_that_knows_the_photographs_is_refused(call, capsys):
    stage = Stage(kind="heads", **rated_images("folder", "train", [f"{'ab'[i % 2]}{i}.png" for i in range(30)]))
    with pytest.raises(SystemExit):
        call([stage])
    assert "has learned from 30 of the 30 images" in capsys.readouterr().err
