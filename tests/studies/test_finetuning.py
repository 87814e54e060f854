"""What gradient steps add to the closed form: the program that measures it."""

import json

import finetuning
import pytest

from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint


@pytest.mark.slow
def test_both_ways_are_measured_once_on_the_photographs_of_a_split(rated_sources, make_model, tmp_path, capsys):
    rows = (rated_sources / "labels.csv").read_text().splitlines()
    (rated_sources / "labels.csv").write_text("\n".join(row.rsplit(",", 1)[0] for row in rows) + "\n")
    save_checkpoint(make_model("test_resnet", interval_radius=0.2), tmp_path / "checkpoint")
    options = {
        "--dataset": "folder",
        "--data_dir": rated_sources,
        "--cache_dir": tmp_path / "cache",
        "--checkpoint": tmp_path / "checkpoint",
        "--features": tmp_path / "features",
        "--runs": tmp_path / "runs",
        "--splits": 1,
        "--sizes": 20,
        "--device": "cpu",
        "--output": tmp_path / "finetuning.json",
        "--learners": 1,
        "--folds": 2,
        "--epochs": 1,
        "--batch_size": 4,
        "--crop_size": 32,
        "--freeze_stages": 1,
        "--num_workers": 0,
    }
    arguments = [str(part) for option in options.items() for part in option]
    finetuning.main(arguments)
    [result] = json.loads((tmp_path / "finetuning.json").read_text())
    assert (result["split"], result["n"], result["settings"]["folds"]) == (1, 20, 2)
    for name in ("closed form", "fine-tuned"):
        assert -1 <= result[name]["srocc"] <= 1
    assert list((tmp_path / "runs").iterdir()) == []
    assert "Split 1, 20 ratings" in capsys.readouterr().out
    finetuning.main(arguments)
    assert "Split" not in capsys.readouterr().out, "it is known already"
