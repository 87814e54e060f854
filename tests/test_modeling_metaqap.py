import numpy as np
import pytest
import torch

from modeling_metaqap import MetaQAPConfig, MetaQAPModel, quality_aware_loss

KERNEL_LEARNER = {"backbone": "test_resnet", "kernel_head": {"num_components": 6, "num_centers": 9}}


def run(model, *args, **options):
    with torch.no_grad():
        return model(*args, **options)


@pytest.fixture(scope="module")
def single(make_model):
    return make_model("test_resnet")


@pytest.fixture(scope="module")
def ensemble(make_model):
    return make_model("test_efficientnet", "test_resnet", interval_radius=0.1)


@pytest.fixture(scope="module")
def kernel(make_model):
    """Two learners, one of them with a kernel head."""
    return make_model("test_efficientnet", KERNEL_LEARNER)


@pytest.fixture(scope="module")
def images():
    """Five images whose content and brightness differ."""
    generator = torch.Generator().manual_seed(4)
    return torch.rand(5, 3, 64, 64, generator=generator) ** torch.tensor([0.2, 0.5, 1, 2, 5]).view(5, 1, 1, 1)


def test_the_score_follows_the_definition_of_a_base_learner(single, images):
    """Means and mean squares of each stage, standardised, through the linear head: once more in NumPy."""
    learner = single.base_learners[0]
    with torch.no_grad():
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        stages = [stage.double().numpy() for stage in learner.backbone((images - mean) / std)]
    features = np.concatenate(
        [pooled for stage in stages for pooled in (stage.mean(axis=(2, 3)), (stage**2).mean(axis=(2, 3)))], axis=1
    )
    assert features.shape == (5, 2 * sum(learner.stage_channels))
    state = {name: tensor.double().numpy() for name, tensor in learner.state_dict().items() if "backbone" not in name}
    standardised = (features - state["feature_mean"]) / state["feature_std"]
    scores = standardised @ state["quality_head.weight"].T + state["quality_head.bias"]
    distortions = standardised @ state["distortion_head.weight"].T + state["distortion_head.bias"]
    output = run(single, images)
    np.testing.assert_allclose(output.logits.numpy(), scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(output.distortion_logits.numpy(), distortions, rtol=1e-4, atol=1e-4)
    assert scores.std() > 0.01, "images that all score the same would show nothing"


def test_with_one_base_learner_the_meta_learner_is_the_identity(single, images):
    output = run(single, images)
    torch.testing.assert_close(output.logits, output.base_scores, rtol=0, atol=0)


def test_the_meta_learner_is_a_weighted_sum_with_intercept(ensemble, images):
    output = run(ensemble, images)
    weights, intercept = ensemble.meta_learner.weight, ensemble.meta_learner.intercept
    assert weights.tolist() == pytest.approx([0.2, 0.9]) and intercept.item() == pytest.approx(0.05)
    expected = 0.2 * output.base_scores[:, 0] + 0.9 * output.base_scores[:, 1] + 0.05
    torch.testing.assert_close(output.logits[:, 0], expected)


def test_the_distortion_logits_are_the_mean_over_the_base_learners(make_model, images):
    models = [make_model("test_efficientnet", seed=1), make_model("test_resnet", seed=2)]
    merged = MetaQAPModel.from_base_models(models, weights=[0.9, 0.1])
    expected = (run(models[0], images).distortion_logits + run(models[1], images).distortion_logits) / 2
    torch.testing.assert_close(run(merged, images).distortion_logits, expected)


def test_autocast_leaves_pooling_and_heads_in_float32(ensemble, images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(ensemble, images, output_hidden_states=True)
    stages = list(output.hidden_states)
    assert stages[0].dtype == torch.bfloat16
    for index, learner in enumerate(ensemble.base_learners):
        activations = stages[5 * index : 5 * index + 5]
        with torch.no_grad():
            features = learner.standardize(learner.pool(activations))
            expected = learner.quality_head(features)[:, 0]
        torch.testing.assert_close(output.base_scores[:, index], expected, rtol=0, atol=1e-5)
    assert output.logits.dtype == torch.float32


# The kernel head


def test_the_kernel_head_adds_gaussians_on_the_principal_components(make_model, images):
    model = make_model(KERNEL_LEARNER)
    learner = model.base_learners[0]
    with torch.no_grad():
        features = learner.standardize(learner.pool(learner.stage_activations(images))).double().numpy()
    head = {name: tensor.double().numpy() for name, tensor in learner.kernel_head.state_dict().items()}
    points = features @ head["components"]
    expected = np.zeros(len(images))
    for center, coefficient in zip(head["centers"], head["coefficients"], strict=True):
        expected += coefficient * np.exp(-head["gamma"] * ((points - center) ** 2).sum(axis=1))
    assert np.abs(expected).min() > 1e-3
    weight, bias = learner.quality_head.weight[0].detach().double().numpy(), learner.quality_head.bias.item()
    np.testing.assert_allclose(run(model, images).logits[:, 0], features @ weight + bias + expected, rtol=0, atol=1e-4)


def test_far_from_all_centres_the_linear_head_decides_alone(make_model, images):
    model = make_model(KERNEL_LEARNER)
    near = run(model, images).logits
    model.base_learners[0].kernel_head.centers += 100
    far = run(model, images).logits
    model.base_learners[0].kernel_head = None
    linear = run(model, images).logits
    torch.testing.assert_close(far, linear)
    assert (near - linear).abs().min() > 1e-3


def test_the_slope_of_the_kernel_head_is_its_derivative(make_model):
    head = make_model(KERNEL_LEARNER).base_learners[0].kernel_head
    features = torch.randn(4, head.components.shape[0], requires_grad=True)
    head(features).sum().backward()
    torch.testing.assert_close(head.gradient(features.detach()), features.grad)
    assert features.grad.abs().max() > 1e-3


def test_a_kernel_head_survives_merging_saving_and_half_precision(make_model, images, tmp_path):
    part = make_model(KERNEL_LEARNER)
    merged = MetaQAPModel.from_base_models([part, make_model("test_efficientnet")], weights=[1.0, 0.0])
    merged.save_pretrained(tmp_path)
    loaded = MetaQAPModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(run(loaded, images).logits, run(part, images).logits)
    half = MetaQAPModel.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert {tensor.dtype for tensor in half.base_learners[0].kernel_head.state_dict().values()} == {torch.float32}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        learner = loaded.base_learners[0]
        features = torch.randn(5, learner.feature_mean.numel())
        found = learner.kernel_head(features)
    torch.testing.assert_close(found, learner.kernel_head(features))


def test_an_unfitted_kernel_head_adds_nothing(images):
    model = MetaQAPModel(MetaQAPConfig(base_learners=[KERNEL_LEARNER])).eval()
    learner = model.base_learners[0]
    features = torch.randn(3, learner.feature_mean.numel())
    assert learner.kernel_head(features).abs().max() == 0


def test_the_heads_of_later_adaptations_add_to_the_score_and_to_its_map(make_model, images, tmp_path):
    sizes = [{"num_components": 5, "num_centers": 3}, {"num_components": 4, "num_centers": 7}]
    model = make_model(KERNEL_LEARNER | {"residual_heads": sizes})
    learner = model.base_learners[0]
    with torch.no_grad():
        features = learner.standardize(learner.pool(learner.stage_activations(images)))
        added = sum(head(features) for head in learner.residual_heads)
    assert added.abs().min() > 1e-3
    outputs = run(model, images, output_quality_map=True)
    torch.testing.assert_close(outputs.quality_map.mean(dim=(1, 2)), outputs.logits[:, 0], rtol=0, atol=1e-4)
    model.save_pretrained(tmp_path)
    loaded = MetaQAPModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(run(loaded, images).logits, outputs.logits)
    learner.residual_heads = torch.nn.ModuleList()
    torch.testing.assert_close(outputs.logits[:, 0], run(model, images).logits[:, 0] + added, rtol=0, atol=1e-4)


# from_base_models


def test_merged_base_learners_score_the_weighted_sum_of_their_single_scores(make_model, images):
    models = [
        make_model("test_resnet", seed=1),
        make_model({"backbone": "test_efficientnet", "image_mean": [0.5] * 3, "image_std": [0.25] * 3}, seed=2),
        make_model({"backbone": "test_resnet", "stages": [1, 3], "name": "middle"}, seed=3),
    ]
    singles = torch.cat([run(model, images).logits for model in models], dim=1)
    merged = MetaQAPModel.from_base_models(models, weights=[0.5, 0.3, -0.2], intercept=0.07)
    output = run(merged, images)
    assert not merged.training
    torch.testing.assert_close(output.base_scores, singles)
    torch.testing.assert_close(output.logits[:, 0], singles @ torch.tensor([0.5, 0.3, -0.2]) + 0.07)
    assert [learner["name"] for learner in merged.config.base_learners] == [
        "test_resnet",
        "test_efficientnet",
        "middle",
    ]
    plain = MetaQAPModel.from_base_models(models)
    torch.testing.assert_close(run(plain, images).logits, singles.mean(dim=1, keepdim=True))


def test_an_ensemble_comes_apart_into_its_base_learners(make_model, images, tmp_path):
    naming = make_model({"backbone": "test_resnet", "name": "first"}, seed=1)
    silent = make_model("test_efficientnet", distortion_labels=[], seed=2)
    merged = MetaQAPModel.from_base_models([naming, silent], weights=[0.5, 0.3], intercept=0.07)
    merged.config.interval_radius = 0.1
    merged.config.lineage = [{"kind": "fusion"}]
    parts = merged.half().base_models()
    assert {tensor.dtype for part in parts for tensor in part.state_dict().values()} <= {torch.float32, torch.int64}
    assert [part.config.lineage for part in parts] == [None] * 2, "the fusion is none of theirs"
    whole = run(merged.float(), images)
    assert [part.config.base_learners[0]["name"] for part in parts] == ["first", "test_efficientnet"]
    outputs = [run(part, images) for part in parts]
    torch.testing.assert_close(torch.cat([output.logits for output in outputs], dim=1), whole.base_scores)
    torch.testing.assert_close(outputs[0].distortion_logits, whole.distortion_logits)
    assert outputs[1].distortion_logits is None
    assert all(output.interval is None for output in outputs)
    torch.testing.assert_close(run(MetaQAPModel.from_base_models(parts), images).base_scores, whole.base_scores)
    # Copies, which load again by themselves.
    with torch.no_grad():
        merged.base_learners[1].quality_head.bias.add_(1)
    torch.testing.assert_close(run(parts[1], images).logits, outputs[1].logits)
    parts[1].save_pretrained(tmp_path)
    torch.testing.assert_close(run(MetaQAPModel.from_pretrained(tmp_path), images).logits, outputs[1].logits)


def test_a_merged_model_has_the_loss_of_the_learners_that_are_kept(make_model):
    options = {"loss_mse_weight": 0.2, "loss_srocc_weight": 0.7, "loss_surrogate": "soft_rank"}
    models = [make_model("test_resnet", seed=1), make_model("test_resnet", seed=2, **options)]
    merged = MetaQAPModel.from_base_models(models, weights=[0.0, 1.0])
    assert {name: getattr(merged.config, name) for name in options} == options


def test_a_base_learner_of_weight_zero_is_neither_stored_nor_computed(make_model, images):
    models = [make_model("test_resnet", seed=1), make_model("test_efficientnet"), make_model("test_resnet", seed=3)]
    merged = MetaQAPModel.from_base_models(models, weights=[0.6, 0.0, 0.5])
    assert [learner["backbone"] for learner in merged.config.base_learners] == ["test_resnet", "test_resnet"]
    assert len(merged.base_learners) == 2 and merged.meta_learner.weight.tolist() == pytest.approx([0.6, 0.5])
    expected = 0.6 * run(models[0], images).logits + 0.5 * run(models[2], images).logits
    torch.testing.assert_close(run(merged, images).logits, expected)


def test_a_merged_model_shares_nothing_with_its_parts_and_is_not_calibrated(make_model, images):
    part = make_model("test_resnet", interval_radius=0.2, mos_range=[1, 5], lineage=[{"kind": "fusion"}])
    before = run(part, images).logits
    merged = MetaQAPModel.from_base_models([part, part], weights=[1.0, 1.0])
    assert merged.config.interval_radius is None and merged.config.lineage is None
    assert merged.config.mos_range is None
    assert run(merged, images).interval is None
    merged.config.base_learners[0]["name"] = "changed"
    with torch.no_grad():
        for parameter in merged.parameters():
            parameter.zero_()
    assert part.config.base_learners[0]["name"] == "test_resnet" and part.config.interval_radius == 0.2
    torch.testing.assert_close(run(part, images).logits, before)


def test_a_merged_model_survives_saving(make_model, images, tmp_path):
    merged = MetaQAPModel.from_base_models(
        [make_model("test_resnet", seed=1), make_model("test_efficientnet", seed=2)],
        weights=[0.4, 0.7],
        intercept=-0.1,
    )
    merged.save_pretrained(tmp_path)
    torch.testing.assert_close(run(MetaQAPModel.from_pretrained(tmp_path), images).logits, run(merged, images).logits)


def test_wrong_parts_are_refused(make_model, single, ensemble):
    other = make_model("test_resnet", distortion_labels=["blur"])
    for models, weights, message in [
        ([], None, "at least one model"),
        ([single, single], [1.0], "2 models but 1 weights"),
        ([single, ensemble], None, "one model has 2"),
        ([single, other], None, "different `distortion_labels`"),
        ([single, single], [0, 0.0], "no base learner is left"),
    ]:
        with pytest.raises(ValueError, match=message):
            MetaQAPModel.from_base_models(models, weights=weights)


# Crops, batches, normalisation


def test_a_score_does_not_depend_on_the_other_images_of_the_batch(ensemble, images):
    alone = torch.cat([run(ensemble, image[None]).logits for image in images])
    torch.testing.assert_close(run(ensemble, images).logits, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(run(ensemble, images.flip(0)).logits, alone.flip(0), rtol=0, atol=1e-5)


def test_crops_that_pad_the_batch_do_not_count(ensemble, images):
    crops = images[:3].unsqueeze(0)
    expected = run(ensemble, crops)
    for padding in (torch.zeros(1, 2, 3, 64, 64), torch.ones(1, 2, 3, 64, 64)):
        padded = torch.cat([crops, padding], dim=1)
        output = run(ensemble, padded, torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]]))
        for name in ("logits", "base_scores", "interval", "distortion_logits"):
            torch.testing.assert_close(output[name], expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["ensemble", "kernel"])
def test_the_score_of_an_image_is_the_weighted_mean_over_its_crops(name, images, request):
    model = request.getfixturevalue(name)
    scores = run(model, images[:3]).logits[:, 0]
    for weights in ([1.0, 1.0, 1.0], [0.2, 0.5, 0.3], [2.0, 5.0, 3.0]):
        output = run(model, images[:3].unsqueeze(0), torch.tensor([weights]))
        expected = (scores * torch.tensor(weights)).sum() / sum(weights)
        torch.testing.assert_close(output.logits[0, 0], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(run(model, images[:3].unsqueeze(0)).logits[0, 0], scores.mean(), rtol=0, atol=1e-5)


def test_each_base_learner_normalises_with_its_own_mean_and_deviation(make_model, images):
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    model = make_model("test_resnet", {"backbone": "test_resnet"} | own)
    model.base_learners[1].load_state_dict(
        {
            name: model.base_learners[1].state_dict()[name] if name.startswith("image_") else tensor
            for name, tensor in model.base_learners[0].state_dict().items()
        }
    )
    # The second learner sees what the first one sees of an image that is rescaled to the first one's mean and std.
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    rescaled = (images - torch.tensor(own["image_mean"]).view(3, 1, 1)) / torch.tensor(own["image_std"]).view(3, 1, 1)
    rescaled = rescaled * std + mean
    first, second = run(model, images).base_scores.T
    torch.testing.assert_close(second, run(model, rescaled).base_scores[:, 0], rtol=1e-4, atol=1e-4)
    assert (first - second).abs().min() > 1e-3


# Quality map, interval, loss


@pytest.mark.parametrize("name", ["single", "ensemble", "kernel"])
@pytest.mark.parametrize("size", [(64, 64), (33, 97), (128, 40), (71, 70), (32, 32)], ids=str)
def test_the_mean_of_the_quality_map_is_the_score(name, size, request):
    model = request.getfixturevalue(name)
    generator = torch.Generator().manual_seed(5)
    output = run(model, torch.rand(2, 3, *size, generator=generator), output_quality_map=True)
    assert output.quality_map.shape == (2, -(-size[0] // 8), -(-size[1] // 8))
    torch.testing.assert_close(output.quality_map.mean(dim=(1, 2)), output.logits[:, 0], rtol=0, atol=1e-5)
    assert output.quality_map.std() > 1e-3


@pytest.mark.parametrize("name", ["single", "ensemble", "kernel"])
def test_the_weighted_mean_of_several_crops_quality_maps_is_the_score(name, request):
    model = request.getfixturevalue(name)
    generator = torch.Generator().manual_seed(6)
    crops = torch.rand(2, 3, 3, 48, 80, generator=generator)
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.5, 0.0]])
    output = run(model, crops, weights, output_quality_map=True)
    assert output.quality_map.shape == (2, 3, 6, 10)
    means = (output.quality_map.mean(dim=(2, 3)) * weights).sum(dim=1, keepdim=True)
    torch.testing.assert_close(means, output.logits, rtol=0, atol=1e-5)


def test_the_quality_map_shows_where_an_image_differs(single):
    generator = torch.Generator().manual_seed(7)
    image = torch.rand(1, 3, 256, 256, generator=generator)
    changed = image.clone()
    changed[..., :64, :64] = 0.5
    difference = (
        run(single, changed, output_quality_map=True).quality_map
        - run(single, image, output_quality_map=True).quality_map
    ).abs()[0]
    assert difference.shape == (32, 32)
    assert difference[:8, :8].mean() > 5 * difference[24:, 24:].mean()


def test_the_interval_lies_around_the_score(ensemble, single, images):
    output = run(ensemble, images)
    torch.testing.assert_close(output.interval, torch.cat([output.logits - 0.1, output.logits + 0.1], dim=1))
    assert run(single, images).interval is None
    assert "interval" not in run(single, images)


def test_the_loss_is_the_configured_quality_aware_loss(make_model, images):
    labels = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    options = {"loss_mse_weight": 0.2, "loss_srocc_weight": 0.7, "loss_surrogate": "soft_rank"}
    model = make_model(**options)
    output = run(model, images, labels=labels)
    expected = quality_aware_loss(output.logits, labels, lambda_mse=0.2, lambda_srocc=0.7, surrogate="soft_rank")
    assert output.loss == expected
    assert run(model, images, labels=labels[:, None]).loss == expected
    assert run(model, images).loss is None


def test_a_model_without_distortion_labels_has_no_distortion_head(make_model, images):
    model = make_model("test_resnet", "test_efficientnet", distortion_labels=[])
    assert run(model, images).distortion_logits is None
    assert not any("distortion" in name for name in model.state_dict())


def test_learners_without_a_distortion_head_join_those_with_one(make_model, images, tmp_path):
    naming, silent = make_model("test_resnet", seed=1), make_model("test_efficientnet", seed=2, distortion_labels=[])
    for models in ([naming, silent], [silent, naming]):
        merged = MetaQAPModel.from_base_models(models)
        merged.save_pretrained(tmp_path)
        for model in (merged, MetaQAPModel.from_pretrained(tmp_path)):
            output = run(model, images)
            torch.testing.assert_close(output.distortion_logits, run(naming, images).distortion_logits)
            expected = (run(naming, images).logits + run(silent, images).logits) / 2
            torch.testing.assert_close(output.logits, expected)
    without = MetaQAPModel.from_base_models([naming, silent], weights=[0, 1])
    assert without.config.distortion_labels == [] and run(without, images).distortion_logits is None


def test_chosen_stages_alone_are_pooled(make_model, images):
    model = make_model({"backbone": "test_resnet", "stages": [1, 3]})
    output = run(model, images, output_hidden_states=True, output_quality_map=True)
    assert [tuple(state.shape[1:]) for state in output.hidden_states] == [(32, 16, 16), (192, 4, 4)]
    assert model.base_learners[0].feature_mean.shape == (2 * (32 + 192),)
    torch.testing.assert_close(output.quality_map.mean(dim=(1, 2)), output.logits[:, 0], rtol=0, atol=1e-5)


def test_a_learner_sees_a_picture_at_each_of_its_scales(make_model, images):
    model = make_model({"backbone": "test_resnet", "scales": [1, 2]})
    learner = model.base_learners[0]
    output = run(model, images, output_hidden_states=True, output_quality_map=True)
    halved = images.reshape(5, 3, 32, 2, 32, 2).mean(dim=(3, 5))
    with torch.no_grad():
        mean, std = learner.image_mean, learner.image_std
        expected = [*learner.backbone((images - mean) / std), *learner.backbone((halved - mean) / std)]
    assert len(output.hidden_states) == len(expected) == 10
    for found, wanted in zip(output.hidden_states, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert learner.feature_mean.shape == (4 * sum(learner.stage_channels),)
    torch.testing.assert_close(output.logits[:, 0], learner.score(learner.standardize(learner.pool(expected))))
    torch.testing.assert_close(output.quality_map.mean(dim=(1, 2)), output.logits[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 65), (64, 7)])
def test_no_picture_is_too_small_for_a_scale(make_model, size):
    """At the border the average is of the pixels that are there, however few."""
    model = make_model({"backbone": "test_resnet", "scales": [1, 4]})
    torch.manual_seed(0)
    pixel_values = torch.rand(2, 3, *size)
    means = [strip.mean(dim=(2, 3)) for column in pixel_values.split(4, 2) for strip in column.split(4, 3)]
    smaller = torch.stack(means, dim=2).unflatten(2, (-(-size[0] // 4), -(-size[1] // 4)))
    learner = model.base_learners[0]
    with torch.no_grad():
        expected = learner.backbone((smaller - learner.image_mean) / learner.image_std)
        found = learner.stage_activations(pixel_values)[5:]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert run(model, pixel_values).logits.isfinite().all()


def test_training_mode_changes_no_weights_of_meta_learner_and_normalisation(ensemble):
    trainable = {name for name, _ in ensemble.named_parameters()}
    assert not any("meta_learner" in name or "image_" in name or "feature_" in name for name in trainable)


# Errors


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64), (1, 2, 4, 64, 64), (2, 64, 64, 3), (1, 1, 1, 3, 8, 8)])
def test_pixel_values_of_another_shape_are_refused(single, shape):
    with pytest.raises(ValueError, match=r"`pixel_values` must have shape .*got \(" + ", ".join(map(str, shape))):
        single(torch.rand(shape))


@pytest.mark.parametrize("shape", [(2, 2), (3,), (1, 3), (2, 3, 1)])
def test_crop_weights_of_another_shape_are_refused(single, shape):
    with pytest.raises(ValueError, match=r"`crop_weights` must have shape \(2, 3\)"):
        single(torch.rand(2, 3, 3, 32, 32), torch.ones(shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool], ids=str)
def test_pixels_that_are_not_floating_point_are_refused(single, dtype):
    with pytest.raises(ValueError, match=f"must be floating point in .0, 1., got {dtype}: divide bytes by 255"):
        single(torch.ones(1, 3, 32, 32, dtype=dtype))


MEANINGLESS = [[0.0, 0.0, 0.0], [0.5, 0.7, -0.2], [1.0, float("nan"), 1.0], [1.0, float("inf"), 1.0]]


@pytest.mark.parametrize("weights", MEANINGLESS, ids=str)
def test_crop_weights_that_mean_nothing_are_refused(single, weights):
    with pytest.raises(ValueError, match="finite and not negative, and at least one crop of each image"):
        single(torch.rand(2, 3, 3, 32, 32), torch.tensor([[1.0, 1.0, 1.0], weights]))


@pytest.mark.parametrize("weights", MEANINGLESS, ids=str)
def test_where_crop_weights_cannot_be_looked_at_their_image_alone_gets_nan(single, monkeypatch, weights):
    monkeypatch.setattr("modeling_metaqap.modeling_metaqap.is_tracing", lambda tensor: True)
    logits = run(single, torch.rand(2, 3, 3, 32, 32), torch.tensor([[1.0, 1.0, 0.0], weights])).logits
    assert logits[0].isfinite() and logits[1].isnan()


def test_an_unknown_backbone_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="no model 'resnet_nope'.*pip install -U timm"):
        MetaQAPModel(MetaQAPConfig(base_learners=["resnet_nope"]))


def test_a_stage_that_the_backbone_lacks_is_refused():
    with pytest.raises(ValueError, match=r"'test_resnet' has no stages \[7\]"):
        MetaQAPModel(MetaQAPConfig(base_learners=[{"backbone": "test_resnet", "stages": [7]}]))


def test_a_network_with_channels_last_is_refused():
    with pytest.raises(ValueError, match="'test_mambaout' is not a CNN"):
        MetaQAPModel(MetaQAPConfig(base_learners=["test_mambaout"]))
