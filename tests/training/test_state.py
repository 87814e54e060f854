import math
import resource

import pytest
import torch

pytest.importorskip("accelerate")

from safetensors.torch import save_file  # noqa: E402

from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.training.state import Position, writing


def test_training_is_over_when_the_last_epochs_were_no_better():
    position = Position(epoch=5, best_epoch=3)
    assert [position.is_over(patience) for patience in (None, 1, 2, 3)] == [False, True, True, False]


def test_the_best_epoch_has_the_highest_srocc():
    position = Position()
    best = [position.next_epoch(srocc) for srocc in (-0.2, -0.5, 0.4, 0.4, math.nan)]
    assert best == [True, False, True, False, False]
    assert (position.epoch, position.best_epoch, position.best_srocc) == (5, 3, 0.4)


def test_there_is_a_best_epoch_even_if_all_scores_are_the_same():
    position = Position()
    assert [position.next_epoch(math.nan) for _ in range(2)] == [True, False]
    assert (position.best_epoch, position.best_srocc) == (1, None)
    assert position.next_epoch(-0.9), "worse than nothing is better than no order at all"


def test_an_epoch_begins_with_its_first_step_and_a_position_survives_saving():
    position = Position()
    position.next_step()
    position.next_step()
    restored = Position()
    restored.load_state_dict(position.state_dict())
    assert restored == position == Position(step=2, step_in_epoch=2)
    position.next_epoch(0.5)
    assert (position.step, position.step_in_epoch) == (2, 0)


@pytest.mark.parametrize("save", [torch.save, save_file], ids=["torch", "safetensors"])
def test_a_full_disk_is_one_sentence(save, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(MetaQAPError, match=f"{tmp_path} could not be written"), writing(tmp_path):
            save({"weights": torch.zeros(1_000_000)}, tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_error_that_has_nothing_to_do_with_files_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), writing(tmp_path):
        raise RuntimeError("shapes do not fit")
