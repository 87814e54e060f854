import pytest
import torch
from accelerate import Accelerator

from modeling_metaqap.lineage import Stage, write_stages
from modeling_metaqap.training.step import Batch
from modeling_metaqap.training.teacher import Teacher


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_teacher_labels_photographs_in_part_and_distorted_images_alone(weight, make_model, tmp_path):
    model = make_model("test_resnet", "test_resnet").eval()
    model.save_pretrained(tmp_path)
    teacher = Teacher(tmp_path, weight=weight, accelerator=Accelerator(cpu=True))
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    opinions, distortions = torch.tensor([0.1, 0.9]), torch.tensor([3, 4, 5])
    labelled = teacher.label(Batch(pixels, opinions, distortions))
    with torch.no_grad():
        scores = model(pixels.float() / 255).logits[:, 0]
    expected = torch.cat([(1 - weight) * opinions + weight * scores[:2], scores[2:]])
    assert torch.allclose(labelled.labels, expected, atol=1e-5)
    assert torch.equal(labelled.pixels, pixels) and torch.equal(labelled.distortions, distortions)
    assert not labelled.labels.requires_grad


def test_who_is_taught_by_an_ensemble_can_still_be_validated_where_it_was_fused(make_model, tmp_path):
    model = make_model("test_resnet", "test_resnet")
    learned = Stage(kind="finetune", dataset="biq2021", split="train", num_images=3)
    fused = Stage(kind="fusion", dataset="biq2021", split="validation", num_images=2)
    model.config.base_learners[0]["lineage"] = write_stages([learned])
    model.config.lineage = write_stages([fused])
    model.save_pretrained(tmp_path)
    assert Teacher(tmp_path, weight=0.5, accelerator=Accelerator(cpu=True)).stages == [learned]
