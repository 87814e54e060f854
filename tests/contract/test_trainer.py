"""transformers' `Trainer` trains and evaluates the model without adapters."""

import copy

import numpy as np
import pytest
import torch
from iqa_fixtures import noise
from transformers import Trainer, TrainingArguments

from modeling_metaqap import MetaQAPConfig, MetaQAPImageProcessor
from modeling_metaqap.lineage import in_words, learner_stages

pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(3)
    return [{"pixel_values": torch.rand(2, 3, 32, 32, generator=generator), "labels": index / 4} for index in range(5)]


@pytest.fixture
def arguments(tmp_path):
    return TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=2,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )


def test_trainer_takes_a_step_with_the_loss_of_the_model(make_model, images, arguments):
    model = make_model(distortion_labels=[])
    assert model.accepts_loss_kwargs is False
    before = copy.deepcopy(model.state_dict())
    result = Trainer(model, arguments, train_dataset=images).train()
    assert np.isfinite(result.training_loss) and result.training_loss > 0
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert "base_learners.0.quality_head.weight" in changed
    assert any(".backbone." in name and name.endswith("weight") for name in changed)
    # The meta-learner and the normalisation are fitted, never trained by gradient.
    assert not any("meta_learner" in name or "image_" in name or "feature_" in name for name in changed)


def test_what_was_measured_before_training_is_not_saved_after_it(make_model, images, arguments, tmp_path):
    subset = {"learners": [0], "weights": [1.0], "intercept": 0.0, "interval_radius": 0.2}
    lineage = [{"kind": "finetune", "dataset": "biq2021", "split": "train"}]
    model = make_model(
        {"backbone": "test_resnet", "lineage": lineage},
        interval_radius=0.1,
        learner_subsets=[subset],
        mos_range=[1, 5],
    )
    trainer = Trainer(model, arguments, train_dataset=images, eval_dataset=images)
    trainer.evaluate()
    trainer.save_model(tmp_path / "measured")
    config = MetaQAPConfig.from_pretrained(tmp_path / "measured")
    assert (config.interval_radius, config.learner_subsets, config.mos_range) == (0.1, [subset], [1, 5])
    assert config.base_learners[0]["lineage"] == lineage

    trainer.train()
    for folder in ("trained", "again"):
        trainer.save_model(tmp_path / folder)
        config = MetaQAPConfig.from_pretrained(tmp_path / folder)
        assert (config.interval_radius, config.learner_subsets, config.mos_range) == (None, None, None)
        assert config.base_learners[0]["lineage"] == [*lineage, {"kind": "finetune"}]
    stages = learner_stages(config)[0]
    assert in_words(stages).endswith("; fine-tuned on images that are not known")


def test_trainer_takes_photographs_of_several_sizes(make_model, arguments):
    processor = MetaQAPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    photographs = [noise(32, 30 * (1 + index), seed=index) for index in range(4)]
    items = [
        {name: values[0] for name, values in processor(photograph, return_tensors="pt").items()}
        | {"labels": index / 4}
        for index, photograph in enumerate(photographs)
    ]
    assert {len(item["crop_weights"]) for item in items} == {1, 2, 3, 4}
    model = make_model()
    trainer = Trainer(model, arguments, train_dataset=items, eval_dataset=items, data_collator=processor.collate)
    with torch.no_grad():
        alone = [model(**processor(photograph, return_tensors="pt")).logits.item() for photograph in photographs]
    np.testing.assert_allclose(trainer.predict(items).predictions[:, 0], alone, rtol=0, atol=1e-6)
    assert np.isfinite(trainer.train().training_loss)


def test_trainer_hands_only_the_scores_to_the_metrics(make_model, images, arguments):
    seen = {}

    def compute_metrics(prediction):
        seen["predictions"], seen["labels"] = prediction.predictions, prediction.label_ids
        return {}

    model = make_model(interval_radius=0.1)
    trainer = Trainer(model, arguments, eval_dataset=images, compute_metrics=compute_metrics)
    metrics = trainer.evaluate()
    assert isinstance(seen["predictions"], np.ndarray) and seen["predictions"].shape == (5, 1)
    assert seen["labels"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    with torch.no_grad():
        expected = model(pixel_values=torch.stack([image["pixel_values"] for image in images])).logits
    np.testing.assert_allclose(seen["predictions"], expected.numpy(), rtol=1e-4, atol=1e-5)
    assert np.isfinite(metrics["eval_loss"])
