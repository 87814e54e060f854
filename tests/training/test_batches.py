"""Which processes read the images."""

from types import SimpleNamespace

import pytest

pytest.importorskip("accelerate", reason="needs the train extra")

import torch

from modeling_metaqap.training import batches
from modeling_metaqap.training.batches import Batches, reading_processes
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.splits import SetSplits, Splits

RECIPE = Recipe(backbone="test_resnet", batch_size=4, crop_size=32)


@pytest.mark.parametrize(
    ("cores", "device", "expected"),
    [(1, "cpu", 0), (2, "cpu", 0), (3, "cpu", 0), (4, "cpu", 2), (64, "cpu", 2), (1, "cuda", 2), (2, "mps", 2)],
)
def test_a_processor_of_few_cores_that_trains_reads_itself(cores, device, expected):
    assert reading_processes(cores, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("asked", "cores", "processes", "expected"), [(None, 8, 2, 2), (None, 8, 4, 0), (None, 2, 1, 0), (3, 2, 1, 3)]
)
def test_what_is_asked_for_counts_and_processes_share_the_cores(monkeypatch, asked, cores, processes, expected):
    monkeypatch.setattr(batches, "usable_cores", lambda: cores)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    accelerator = SimpleNamespace(num_processes=processes, process_index=0, device=torch.device("cpu"))
    rows = [{"quality": 0.5}] * 8
    found = Batches(Splits((SetSplits(training=rows, validation=rows),)), RECIPE, accelerator, num_workers=asked)
    assert found.num_workers == expected
