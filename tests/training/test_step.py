import json
import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode
from two_processes import run_two_processes

from modeling_metaqap import quality_aware_loss
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.set_lines import SetLines
from modeling_metaqap.training.state import begin_state
from modeling_metaqap.training.step import Batch, forward_backward, training_step


@pytest.mark.parametrize("chunks", [2, 3, 8])
@pytest.mark.parametrize(("synthetic", "mixed"), [(0, False), (3, False), (3, True)])
def test_a_step_computed_in_chunks_has_the_loss_and_gradients_of_the_whole(chunks, synthetic, mixed, make_model):
    recipe = Recipe(backbone="x", synthetic_batch_size=synthetic, loss_surrogate="soft_rank")
    torch.manual_seed(0)
    pixels = torch.randint(256, (5 + synthetic, 3, 32, 32), dtype=torch.uint8)
    labels, distortions = torch.rand(5), torch.tensor([3, 1, 24]) if synthetic else None
    sets = torch.tensor([0, 1, 1, 0, 1]) if mixed else None
    lines = SetLines(["one", "other"], learning_rate=1e-3) if mixed else None
    found, of_lines = [], []
    for count in (1, chunks):
        model = make_model("test_resnet", distortion_labels=None if synthetic else [])
        batch = Batch(pixels, labels, distortions, sets)
        loss, gradients = forward_backward(Accelerator(cpu=True), model, recipe, batch, lines=lines, chunks=count)
        of_lines.append(gradients)
        found.append((loss, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (whole, expected), (in_chunks, gradients) = found
    torch.testing.assert_close(in_chunks, whole)
    torch.testing.assert_close(*of_lines, rtol=1e-3, atol=1e-5)
    assert len(of_lines[0]) == 2 * mixed and all(gradient.abs().min() > 0 for gradient in of_lines[0])
    assert any(gradient.abs().max() > 0 for gradient in expected.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


def test_a_step_that_diverges_updates_nothing(make_model):
    model = make_model("test_resnet", distortion_labels=[])
    recipe = Recipe(backbone="x", head_learning_rate=0.1, warmup_fraction=0.0)
    accelerator = Accelerator(cpu=True)
    state = begin_state(model, recipe, accelerator, steps_per_epoch=10)
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}

    def step(labels):
        return training_step(accelerator, state, recipe, Batch(pixels, labels))

    assert math.isnan(step(torch.full((4,), torch.inf)))
    # A loss that is finite may still have a gradient that is not.
    hook = model.base_learners[0].quality_head.weight.register_hook(lambda gradient: gradient * torch.nan)
    assert math.isnan(step(torch.rand(4)))
    hook.remove()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not state.optimizer.state and state.average.updates == 0 and state.scheduler.last_epoch == 0
    assert math.isfinite(step(torch.rand(4)))
    assert not torch.equal(model.base_learners[0].quality_head.weight, before["base_learners.0.quality_head.weight"])
    assert state.average.updates == 1


def test_a_step_on_several_sets_moves_their_lines_unless_it_diverges(make_model):
    model = make_model("test_resnet", distortion_labels=[])
    recipe, accelerator = Recipe(backbone="x", warmup_fraction=0.5), Accelerator(cpu=True)
    lines = SetLines(["one", "other"], learning_rate=0.1)
    state = begin_state(model, recipe, accelerator, steps_per_epoch=1, lines=lines)
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)

    def step(labels):
        return training_step(accelerator, state, recipe, Batch(pixels, labels, sets=torch.tensor([0, 1, 0, 1])))

    start = lines.figures()
    assert math.isnan(step(torch.full((4,), torch.inf))) and lines.figures() == start
    far = torch.tensor([0.5, 9.0, 0.5, 9.0])
    step(far)
    assert lines.figures() == start, "the first step of the warm-up has a rate of 0"
    step(far)
    assert lines.figures()["line_offset_other"] == pytest.approx(0.05, rel=0.2), "half the rate, upwards"


class Waits(TorchDispatchMode):
    """Counts how often the host takes a number from a tensor, for which it has to wait for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_step_waits_for_the_device_once(chunks, make_model, monkeypatch):
    model = make_model("test_resnet", distortion_labels=[])
    # AdamW counts its steps in tensors that are always on the CPU; SGD takes no numbers at all.
    recipe, accelerator = Recipe(backbone="x", optimizer="sgd"), Accelerator(cpu=True)
    state = begin_state(model, recipe, accelerator, steps_per_epoch=10)
    batch = Batch(torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8), torch.rand(4))
    lists, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: lists.append(tensor) or tolist(tensor))
    with Waits() as waits:
        training_step(accelerator, state, recipe, batch, chunks=chunks)
    assert waits.count + len(lists) == 1


TWO_PROCESSES = """
import json, sys
import torch
from accelerate import Accelerator
from modeling_metaqap.data.accelerate_state import process_state
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.step import distortion_loss, quality_loss


def main(report):
    accelerator = Accelerator(cpu=True)
    assert process_state().num_processes == accelerator.num_processes == 2
    data = torch.load(report + ".pt", weights_only=True)
    mine = slice(4 * accelerator.process_index, 4 * accelerator.process_index + 4)
    results = {}
    for surrogate in ("softmax", "soft_rank"):
        layer = torch.nn.Linear(6, 4)
        layer.load_state_dict(data["layer"])
        layer = accelerator.prepare(layer)
        recipe = Recipe(backbone="x", loss_surrogate=surrogate, loss_mse_weight=0.3, loss_srocc_weight=0.7)
        outputs = layer(data["x"][mine])
        quality = quality_loss(accelerator, outputs[:, :1], data["y"][mine], recipe)
        distortion = distortion_loss(accelerator, outputs[:, 1:], data["classes"][mine])
        accelerator.backward((quality + distortion) * accelerator.num_processes)
        losses = [quality.item(), accelerator.reduce(distortion.detach(), "sum").item()]
        results[surrogate] = [losses, [p.grad.flatten().tolist() for p in layer.parameters()]]
    with open(f"{report}.{accelerator.process_index}", "w") as file:
        json.dump(results, file)
    accelerator.end_training()


main(sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_have_the_loss_and_gradient_of_one_with_the_whole_batch(tmp_path):
    torch.manual_seed(9)
    layer, x, y, classes = torch.nn.Linear(6, 4), torch.rand(8, 6), torch.rand(8), torch.randint(3, (8,))
    report = tmp_path / "report"
    torch.save({"layer": layer.state_dict(), "x": x, "y": y, "classes": classes}, f"{report}.pt")
    program = tmp_path / "program.py"
    program.write_text(TWO_PROCESSES)
    for ended in run_two_processes(program, report):
        assert ended.returncode == 0, ended.stderr[-3000:]
    for surrogate in ("softmax", "soft_rank"):
        layer.zero_grad()
        quality = quality_aware_loss(layer(x)[:, 0], y, lambda_mse=0.3, lambda_srocc=0.7, surrogate=surrogate)
        distortion = torch.nn.functional.cross_entropy(layer(x)[:, 1:], classes)
        (quality + distortion).backward()
        expected = [parameter.grad.flatten().tolist() for parameter in layer.parameters()]
        for process in range(2):
            found_losses, gradients = json.loads(Path(f"{report}.{process}").read_text())[surrogate]
            assert found_losses == pytest.approx([quality.item(), distortion.item()], abs=1e-6)
            for found, reference in zip(gradients, expected, strict=True):
                assert found == pytest.approx(reference, abs=1e-6)
