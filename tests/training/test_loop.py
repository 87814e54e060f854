import math

import pytest
import torch

pytest.importorskip("accelerate")

from accelerate.state import AcceleratorState, GradientState  # noqa: E402

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.training import loop
from modeling_metaqap.training.learner import model_config
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.run_folder import RunFolder
from modeling_metaqap.training.settings import RunSettings

RECIPE = Recipe(backbone="test_resnet", dataset="folder", epochs=2, batch_size=8, crop_size=32)


@pytest.fixture
def settings(rated_sources, tmp_path):
    """Of a run on 20 images, from a learner with random weights."""
    torch.manual_seed(0)
    MetaQAPModel(model_config(RECIPE)).save_pretrained(tmp_path / "init")
    yield RunSettings(
        output_dir=str(tmp_path / "run"),
        init=str(tmp_path / "init"),
        data_dir=str(rated_sources),
        cache_dir=str(tmp_path / "cache"),
        cpu=True,
        num_workers=0,
        logging_steps=1,
    )
    # These outlive an Accelerator, and the next one would have to agree with them.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_a_run_can_be_started_from_python(settings, tmp_path):
    summary = loop.train(RECIPE, settings)
    rows = RunFolder(tmp_path / "run").rows()
    epochs = [row["validation_srocc"] for row in rows if "validation_srocc" in row]
    assert len(epochs) == 2
    assert summary == {"output_dir": str(tmp_path / "run"), "best_validation_srocc": max(epochs)}
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert all(row["images_per_second"] > 0 for row in rows if "loss" in row)
    assert (
        MetaQAPModel.from_pretrained(tmp_path / "run" / "best").config.base_learners[0]["lineage"][-1]["kind"]
        == "finetune"
    )


def test_a_run_that_diverges_ends_with_a_sentence_and_saves_nothing_of_it(settings, tmp_path, monkeypatch):
    losses = iter([0.5, math.nan])
    monkeypatch.setattr(loop, "training_step", lambda *arguments, **options: next(losses))
    with pytest.raises(MetaQAPError, match="not finite at step 1: training diverged. Start again with a lower"):
        loop.train(RECIPE, settings)
    folder = RunFolder(tmp_path / "run")
    assert [row["step"] for row in folder.rows()] == [0, 1]
    assert folder.latest_state() is None and not (folder.path / "last").exists()
