import numpy as np
import pytest
import torch

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.training.heads import fit_distortion_head, fit_kernel_head, fit_ridge_head, pooled_features
from modeling_metaqap.training.learner import (
    model_config,
    new_base_learner,
)
from modeling_metaqap.training.recipe import Recipe


def ridge_reference(features, targets, penalties):
    """Ridge regression by the normal equations, the penalty by generalised cross-validation; NumPy only."""
    mean, std = features.mean(axis=0), features.std(axis=0, ddof=1)
    std = np.where(std > 1e-6 * std.max(), std, 1)
    z, centred = (features - mean) / std, targets - targets.mean()
    best = None
    for penalty in penalties:
        inverse = np.linalg.inv(z.T @ z + penalty * np.eye(z.shape[1]))
        weight = inverse @ z.T @ centred
        residual = centred - z @ weight
        gcv = (residual**2).mean() / (1 - np.trace(z @ inverse @ z.T) / len(targets)) ** 2
        if best is None or gcv < best[0]:
            best = (gcv, penalty, weight)
    return mean, std, best[1], best[2]


@pytest.mark.parametrize("whole_images", [False, True])
def test_the_ridge_head_is_the_solution_of_the_normal_equations(whole_images, make_model):
    model = make_model({"backbone": "test_efficientnet", "stages": [0, 2]}, distortion_labels=[])
    generator = torch.Generator().manual_seed(8)
    shape = (60, 2, 3, 32, 32) if whole_images else (60, 3, 32, 32)
    brightness = torch.rand(60, *[1] * (len(shape) - 1), generator=generator)
    pixels = (255 * brightness * torch.rand(shape, generator=generator)).to(torch.uint8)
    labels = brightness.flatten() + 0.1 * torch.randn(60, generator=generator)
    weights = torch.tensor([0.25, 0.75]).repeat(60, 1)
    batch = {"pixel_values": pixels, "labels": labels}
    if whole_images:
        batch |= {"pixel_values": pixels.float() / 255, "crop_weights": weights}
    batches = [{name: tensor[start : start + 16] for name, tensor in batch.items()} for start in range(0, 60, 16)]
    with torch.no_grad():
        # A dead channel of the first stage.
        model.base_learners[0].backbone.blocks[0][-1].bn1.weight[3] = 0
        model.base_learners[0].backbone.blocks[0][-1].bn1.bias[3] = 0
        stages = model.base_learners[0].stage_activations(pixels.flatten(0, -4).float() / 255)
    features = model.base_learners[0].pool(stages).double().numpy()
    if whole_images:
        features = 0.25 * features[::2] + 0.75 * features[1::2]

    found = fit_ridge_head(model, *pooled_features(model, batches, device=torch.device("cpu")))

    mean, std, penalty, weight = ridge_reference(features, labels.double().numpy(), 10 ** np.arange(-1, 5.01, 0.5))
    learner = model.base_learners[0]
    assert found["ridge_penalty"] == pytest.approx(penalty / 60)
    np.testing.assert_allclose(learner.feature_mean.numpy(), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learner.feature_std.numpy(), std, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learner.quality_head.weight[0].detach().numpy(), weight, rtol=1e-3, atol=1e-4)
    fitted = (features - mean) / std @ weight + labels.mean().item()
    with torch.no_grad():
        arguments = {"crop_weights": weights} if whole_images else {}
        scores = model(pixels.float() / 255, **arguments).logits[:, 0].numpy()
    np.testing.assert_allclose(scores, fitted, atol=1e-3)
    assert found["train_rmse"] == pytest.approx(np.sqrt(((fitted - labels.numpy()) ** 2).mean()), rel=1e-3)
    assert np.corrcoef(scores, labels.numpy())[0, 1] > 0.9


def new_base_learner_without_weights(backbone):
    return MetaQAPModel(model_config(Recipe(backbone=backbone))).eval()


def features_and_targets(model, n=50):
    generator = torch.Generator().manual_seed(0)
    features = 3 + 2 * torch.rand(n, model.base_learners[0].feature_mean.numel(), generator=generator).double()
    return features, torch.rand(n, generator=generator).double()


def test_a_given_ridge_penalty_is_for_each_image(make_model):
    model = make_model("test_resnet", distortion_labels=[])
    features, targets = features_and_targets(model)
    assert fit_ridge_head(model, features, targets, penalty=2.0)["ridge_penalty"] == 2.0
    x = (features - features.mean(dim=0)) / features.std(dim=0)
    expected = torch.linalg.solve(
        x.T @ x + 2 * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (targets - targets.mean())
    )
    torch.testing.assert_close(model.base_learners[0].quality_head.weight[0].double(), expected, rtol=1e-4, atol=1e-6)


def test_distorted_images_weigh_in_with_an_intercept_of_their_own(make_model):
    model = make_model("test_resnet", distortion_labels=[])
    features, targets = features_and_targets(model)
    others, scores = features.flip(0)[:20] * 1.5, targets[:20] * 0.7
    arguments = {"penalty": 2.0, "distorted_weight": 0.3}
    fit_ridge_head(model, features, targets, distorted=(others, scores), **arguments)
    learner = model.base_learners[0]
    found = learner.quality_head.weight[0].detach().double().numpy()

    # The same in one weighted least squares problem, with a column of ones for each kind of images.
    mean, std = features.mean(dim=0), features.std(dim=0)
    x = torch.cat([(features - mean) / std, (others - mean) / std]).numpy()
    photograph = np.repeat([1.0, 0.0], [50, 20])
    x = np.column_stack([x, photograph, 1 - photograph])
    y = torch.cat([targets, scores]).numpy()
    weights = np.where(photograph, 1.0, 0.3 * 50 / 20)
    penalties = np.diag(np.append(np.full(len(found), 2.0 * 50), [0.0, 0.0]))
    expected = np.linalg.solve(x.T @ (weights[:, None] * x) + penalties, x.T @ (weights * y))
    np.testing.assert_allclose(found, expected[:-2], rtol=1e-3, atol=1e-6)
    assert learner.quality_head.bias.item() == pytest.approx(targets.mean().item(), abs=1e-6)

    fit_ridge_head(model, features, targets, penalty=2.0, distorted=(others, scores))
    without = learner.quality_head.weight[0].detach().double().numpy().copy()
    assert not np.allclose(found, without, rtol=1e-2)
    fit_ridge_head(model, features, targets, penalty=2.0)
    np.testing.assert_array_equal(learner.quality_head.weight[0].detach().double().numpy(), without)


def test_the_penalty_is_chosen_by_the_photographs_alone(make_model):
    """Many distorted images of little weight do not pretend that there is much to learn from."""
    model = make_model("test_resnet", distortion_labels=[])
    size = model.base_learners[0].feature_mean.numel()
    features, targets = features_and_targets(model, n=2 * size)  # of which nothing can be learned
    generator = torch.Generator().manual_seed(1)
    others = torch.rand(4 * size, size, generator=generator).double()
    scores = torch.rand(4 * size, generator=generator).double()
    alone = fit_ridge_head(model, features, targets)
    together = fit_ridge_head(model, features, targets, distorted=(others, scores), distorted_weight=0.01)
    assert alone["ridge_penalty"] > 10 and together["ridge_penalty"] > 10


def test_the_distortion_head_is_fitted_by_logistic_regression(make_model):
    """At the minimum the gradient of the penalised cross-entropy, written out in NumPy, is zero."""
    model = make_model("test_resnet", distortion_labels=["a", "b", "c"])
    features, _ = features_and_targets(model, n=90)
    distortions = torch.arange(90) % 3
    features[:, :2] += 5 * torch.nn.functional.one_hot(distortions)[:, :2]
    found = fit_distortion_head(model, features, distortions, penalty=0.01)
    learner = model.base_learners[0]
    with torch.no_grad():
        logits = learner.distortion_head(learner.standardize(features.float())).double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.eye(3)[distortions]
    assert found["distortion_cross_entropy"] == pytest.approx(-np.log(probabilities[truth == 1]).mean(), rel=1e-3)
    x = ((features - features.mean(dim=0)) / features.std(dim=0)).numpy()
    spread = features.std(dim=0) / learner.feature_std.double()
    weight = (learner.distortion_head.weight.detach().double() * spread).numpy().T
    np.testing.assert_allclose(x.T @ (probabilities - truth) / 90 + 0.01 * weight, 0, atol=2e-3)
    assert (logits.argmax(axis=1) == distortions.numpy()).mean() > 0.95
    with pytest.raises(ValueError, match="no distortion head"):
        fit_distortion_head(make_model("test_resnet", distortion_labels=[]), features, distortions)


KERNEL = {"num_components": 5, "gamma": 2.0, "penalty": 0.1, "seed": 0}


@pytest.mark.parametrize("num_centers", [100, 30])
def test_the_kernel_head_is_the_kernel_ridge_regression_of_the_residual(num_centers, make_model):
    model = make_model("test_resnet", distortion_labels=[])
    features, targets = features_and_targets(model)
    fit_ridge_head(model, features, targets)
    learner = model.base_learners[0]
    with torch.no_grad():
        standardized = learner.standardize(features.float())
        residual = (targets - learner.score(standardized)).numpy()
        fitted = fit_kernel_head(model, features, targets, num_centers=num_centers, **KERNEL)
        found = learner.kernel_head(standardized).numpy()
    assert model.config.base_learners[0]["kernel_head"] == {"num_components": 5, "num_centers": min(50, num_centers)}
    points = standardized.double().numpy() @ np.linalg.svd(standardized.double().numpy())[2][:5].T
    gamma = 2.0 / points.var(axis=0, ddof=1).sum()
    kernel = np.exp(-gamma * ((points[:, None] - points) ** 2).sum(axis=2))
    if num_centers == 100:  # all images: kernel ridge regression in its closed form
        expected = kernel @ np.linalg.solve(kernel + 0.1 * np.eye(50), residual)
        np.testing.assert_allclose(found, expected, atol=5e-3)
        assert fitted["train_rmse"] < 0.9 * np.sqrt((residual**2).mean())
    else:
        assert len(learner.kernel_head.centers.unique(dim=0)) == 30
        assert ((found - residual) ** 2).mean() < (residual**2).mean()
    assert fitted["train_rmse"] == pytest.approx(np.sqrt(((found - residual) ** 2).mean()), rel=1e-3)


@pytest.mark.parametrize("num_centers", [100, 99])
def test_a_kernel_head_bears_photographs_that_are_there_twice(num_centers, make_model):
    model = make_model("test_resnet", distortion_labels=[])
    features, targets = (torch.cat([tensor, tensor]) for tensor in features_and_targets(model))
    fit_ridge_head(model, features, targets)
    assert fit_kernel_head(model, features, targets, num_centers=num_centers, **KERNEL)["train_rmse"] < 0.3


def test_a_kernel_head_stays_out_of_what_follows(make_model, tmp_path):
    """Neither fitting the linear head anew nor training on starts from the kernel head of before."""
    model = new_base_learner_without_weights("test_resnet")
    features, targets = features_and_targets(model)
    fit_ridge_head(model, features, targets)
    fit_kernel_head(model, features, targets, num_centers=100, **KERNEL)
    model.save_pretrained(tmp_path)
    begun = new_base_learner(Recipe(backbone="test_resnet"), init=tmp_path)
    assert begun.base_learners[0].kernel_head is None
    torch.testing.assert_close(begun.base_learners[0].quality_head.weight, model.base_learners[0].quality_head.weight)
    fit_ridge_head(model, features, targets)
    assert model.base_learners[0].kernel_head is None and model.config.base_learners[0]["kernel_head"] is None


def test_fitting_the_quality_head_leaves_what_the_distortion_head_says(make_model):
    model = make_model("test_resnet")
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
        generator = torch.Generator().manual_seed(0)
        features = 3 + 2 * torch.rand(50, model.base_learners[0].feature_mean.numel(), generator=generator).double()
        fit_ridge_head(model, features, torch.rand(50, generator=generator).double())
        after = model(x)
    assert not torch.allclose(before.logits, after.logits)
    torch.testing.assert_close(before.distortion_logits, after.distortion_logits, rtol=1e-4, atol=1e-4)
