"""scripts/compare_heads.py: heads at home and on sources that were left out."""

import json

import numpy as np
import pytest
from script_loader import load_script

pytest.importorskip("datasets")

from modeling_metaqap.backbones import normalization  # noqa: E402

compare_heads = load_script("compare_heads")


@pytest.fixture
def arguments(rated_sources, tmp_path, make_model):
    """Rated images of two sources, and a learner to begin with."""
    learner = {"backbone": "test_resnet", **normalization("test_resnet")}
    make_model(learner, distortion_labels=[]).save_pretrained(tmp_path / "learner")
    arguments = ["--backbone", "test_resnet", "--init", tmp_path / "learner", "--dataset", "folder"]
    arguments += [
        "--data_dir",
        rated_sources,
        "--cache_dir",
        tmp_path / "cache",
        "--features",
        tmp_path / "features.npz",
    ]
    return [str(option) for option in [*arguments, "--results", tmp_path / "heads.json"]]


def test_heads_are_measured_at_home_and_on_left_out_sources(arguments, tmp_path, monkeypatch, capsys):
    options = [*arguments, "--sources", "a*", "--penalties", "0.5", "--gammas", "2", "8"]
    assert compare_heads.main(options) == 0
    result = json.loads((tmp_path / "heads.json").read_text())["test_resnet"]
    assert result["n"] == {"validation split": [40, 20], "a*": [30, 30]}
    assert len(result["heads"]) == 4
    for row in result["heads"].values():
        assert row["validation split"]["srocc"] > 0.8, "noise is easy to see"
    gammas = [result["heads"][f"linear, penalty 0.5, and kernel, gamma {gamma}"] for gamma in (2, 8)]
    assert gammas[0] != gammas[1]
    assert "linear, cross-validated" in capsys.readouterr().out

    # The features are kept: no image is looked at again.
    monkeypatch.setattr(compare_heads, "pooled_features", None)
    assert compare_heads.main(options) == 0
    again = json.loads((tmp_path / "heads.json").read_text())["test_resnet"]
    assert again["heads"]["linear, cross-validated"]["a*"]["plcc"] == pytest.approx(
        result["heads"]["linear, cross-validated"]["a*"]["plcc"], abs=1e-6
    )


def test_features_of_other_images_are_refused(arguments, tmp_path, capsys):
    np.savez(tmp_path / "features.npz", features=np.zeros((60, 3)), images_sha256="other")
    assert compare_heads.main([*arguments, "--penalties", "1", "--gammas"]) == 2
    assert "features of other images" in " ".join(capsys.readouterr().err.split())


def test_a_source_that_is_not_there_is_one_sentence(arguments, capsys):
    assert compare_heads.main([*arguments, "--sources", "zz*"]) == 2
    assert "holds out none of the 60 images" in " ".join(capsys.readouterr().err.split())
