"""How wide an interval is, and how familiar a photograph, by numbers of the configuration."""

import pytest
import torch
from wide_intervals import WIDE_INTERVALS

from modeling_metaqap import MetaQAPConfig, MetaQAPModel
from modeling_metaqap.assessment_metaqap import assess_image
from modeling_metaqap.interval_metaqap import SPREAD_FLOOR, familiarity, interval_scale, prediction_interval

KERNEL_LEARNER = {"backbone": "test_resnet", "kernel_head": {"num_components": 6, "num_centers": 9}}
SCALE = WIDE_INTERVALS["interval_scale"]


@pytest.fixture(scope="module")
def config():
    return MetaQAPConfig(base_learners=["test_resnet"] * 2, **WIDE_INTERVALS)


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("test_resnet", KERNEL_LEARNER, **WIDE_INTERVALS)


@pytest.fixture(scope="module")
def crops():
    """Of three images, two crops each; of the last one only the first has a weight."""
    torch.manual_seed(0)
    return torch.rand(3, 2, 3, 64, 64) * torch.tensor([0.2, 0.6, 1.0]).view(3, 1, 1, 1, 1), torch.tensor(
        [[1.0, 1.0], [0.3, 0.7], [1.0, 0.0]]
    )


def scale_of(config, *, quality=0.5, scores=(0.4, 0.6), distances=(0.0, 0.0)):
    tensors = [torch.tensor([values]) for values in ([quality], list(scores), list(distances))]
    return interval_scale(config, *tensors).item()


def test_the_scale_is_the_formula_of_the_configuration(config):
    # The standard deviation of 0.4 and 0.6 with n - 1 in the denominator is 0.02 ** 0.5.
    spread = torch.tensor(0.02**0.5 + SPREAD_FLOOR).log().item()
    exponent = 0.1 + 0.3 * 1.5 + 0.2 * spread - 0.5 * 0.7 + 0.4 * 0.49
    assert scale_of(config, quality=0.7, distances=(1.0, 2.0)) == pytest.approx(2.718281828**exponent, rel=1e-5)


def test_farther_photographs_and_those_that_learners_disagree_on_have_wider_intervals(config):
    assert scale_of(config) < scale_of(config, distances=(0.0, 2.0)) < scale_of(config, distances=(3.0, 3.0))
    assert scale_of(config) < scale_of(config, scores=(0.1, 0.9))


def test_the_width_stays_within_what_was_seen(config):
    assert scale_of(config, distances=(1e4, 1e4)) == 50
    assert scale_of(config, distances=(-1e4, -1e4)) == pytest.approx(0.02)


def test_familiarity_is_the_share_of_known_photographs_that_are_farther(config):
    distances = torch.tensor([[-9.0], [-4.0], [-3.0], [-2.0], [0.0], [3.25], [6.0], [1e6]])
    found = familiarity(config, distances)[:, 0]
    # Five steps of a fifth each: -2 lies in the middle of the second, 3.25 in the middle of the last.
    torch.testing.assert_close(found, torch.tensor([1, 1, 0.8, 0.7, 0.4, 0.1, 0, 0]))
    alike = MetaQAPConfig(familiar_distances=[1.0, 1.0, 1.0])
    assert familiarity(alike, torch.tensor([[0.9], [1.1]]))[:, 0].tolist() == [1, 0]


def test_without_these_numbers_all_intervals_are_equally_wide():
    config = MetaQAPConfig(interval_radius=0.25)
    scores, distances = torch.rand(4, 2), torch.randn(4, 2)
    interval = prediction_interval(config, scores[:, :1], scores, distances)
    torch.testing.assert_close(interval[:, 1] - interval[:, 0], torch.full((4,), 0.5))
    assert familiarity(config, distances) is None
    assert prediction_interval(MetaQAPConfig(), scores[:, :1], scores, distances) is None


def test_the_model_gives_each_image_its_width_whatever_is_beside_it(model, crops):
    pixels, weights = crops
    with torch.no_grad():
        together = model(pixels, weights)
        alone = [model(pixels[row : row + 1], weights[row : row + 1]) for row in range(3)]
        first_crop = model(pixels[2, :1])
    widths = together.interval[:, 1] - together.interval[:, 0]
    assert len(set(widths.tolist())) == len(set(together.familiarity[:, 0].tolist())) == 3
    for name in ("interval", "familiarity", "distances"):
        torch.testing.assert_close(torch.cat([output[name] for output in alone]), together[name], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(first_crop[name][0], together[name][2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.interval.mean(dim=1, keepdim=True), together.logits)


def test_crops_that_are_computed_one_by_one_give_the_interval_of_the_whole(model, crops):
    # The first crop is almost black, the second bright.
    pixels = torch.stack([crops[0][0, 0] / 10, crops[0][2, 0]]).unsqueeze(0)
    with torch.no_grad():
        whole = model(pixels)
        apart = [dict(model(pixels[:, index]).items()) for index in range(2)]
    found = assess_image(apart, model.config)
    low, high = whole.interval[0].tolist()
    assert (found["quality_low"], found["quality_high"]) == pytest.approx((low, high), abs=1e-5)
    assert found["familiarity"] == pytest.approx(whole.familiarity.item(), abs=1e-5)
    # The mean over the crops would be another one.
    ends = torch.stack([output["interval"] for output in apart]).mean(dim=0)[0]
    assert (ends[1] - ends[0]).item() != pytest.approx(high - low, abs=1e-3)


def test_the_distance_is_to_the_centers_of_the_kernel_head(model):
    head = model.base_learners[1].kernel_head
    features = torch.randn(4, head.components.shape[0])
    points = features @ head.components
    gaussians = torch.exp(-head.gamma * torch.cdist(points, head.centers).square())
    value, distance = head.score_and_distance(features)
    torch.testing.assert_close(distance, -gaussians.sum(dim=1).log(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(value, gaussians @ head.coefficients, rtol=1e-4, atol=1e-4)
    # So far away that every Gaussian is 0 in float32.
    far = head.score_and_distance(1e3 * features)[1]
    assert far.isfinite().all() and (far > distance).all()


def test_gradients_are_those_of_the_quality(model, crops):
    gradients = []
    for output in (lambda outputs: outputs.logits, lambda outputs: outputs.interval[:, 1:]):
        pixels = crops[0][:, 0].clone().requires_grad_()
        output(model(pixels)).sum().backward()
        gradients.append(pixels.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)
    assert not model(crops[0][:, 0].requires_grad_()).distances.requires_grad


def test_the_numbers_survive_saving_and_go_with_what_they_hold_for(model, crops, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = MetaQAPModel.from_pretrained(tmp_path).eval()
    pixels = crops[0][:, 0]
    with torch.no_grad():
        for name in ("interval", "familiarity"):
            torch.testing.assert_close(loaded(pixels)[name], model(pixels)[name])
        loaded.train()
        loaded(pixels, labels=torch.rand(3))
    apart = model.base_models()
    for other in (*apart, MetaQAPModel.from_base_models(apart)):
        assert (other.config.interval_scale, other.config.familiar_distances) == (None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interval_scale": {**SCALE, "lowest": 0.0}}, "`interval_scale`"),
        ({"interval_scale": {**SCALE, "lowest": 60.0}}, "`interval_scale`"),
        ({"interval_scale": {**SCALE, "distance": float("nan")}}, "`interval_scale`"),
        ({"interval_scale": {**SCALE, "color": 1.0}}, "`interval_scale`"),
        ({"interval_scale": [1.0]}, "`interval_scale`"),
        ({"familiar_distances": [1.0]}, "`familiar_distances`"),
        ({"familiar_distances": [2.0, 1.0]}, "`familiar_distances`"),
        ({"familiar_distances": [0.0, float("inf")]}, "`familiar_distances`"),
        ({"familiar_distances": "01"}, "`familiar_distances`"),
    ],
)
def test_numbers_that_give_no_width_or_no_order_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MetaQAPConfig(**WIDE_INTERVALS | change)
    subset = {"learners": [0], "weights": [1.0], "intercept": 0.0, "interval_radius": 0.1, **change}
    with pytest.raises(ValueError, match=f"{message} of `learner_subsets`"):
        MetaQAPConfig(learner_subsets=[subset])
