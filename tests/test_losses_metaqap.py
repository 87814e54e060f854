import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from modeling_metaqap import quality_aware_loss
from modeling_metaqap.losses_metaqap import SURROGATES, soft_rank_correlation, softmax_correlation

PREDICTIONS = [0.9, 0.1, 0.4, 0.65, 0.3]
TARGETS = [0.8, 0.2, 0.35, 0.5, 0.45]


def numpy_loss(predictions, targets, *, lambda_mse, lambda_srocc, surrogate):
    """The formulas once more, in NumPy and double precision."""
    p, t = np.asarray(predictions, float), np.asarray(targets, float)
    if surrogate == "softmax":
        x, y = (np.exp(v - v.max()) / np.exp(v - v.max()).sum() for v in (p, t))
    else:
        x = (1 / (1 + np.exp(-(p[:, None] - p[None, :]) / 0.05))).sum(axis=1)
        y = stats.rankdata(t)
    return lambda_mse * 0.5 * ((p - t) ** 2).mean() + lambda_srocc * (1 - np.corrcoef(x, y)[0, 1])


@pytest.mark.parametrize("surrogate", ["softmax", "soft_rank"])
@pytest.mark.parametrize(("lambda_mse", "lambda_srocc"), [(0.5, 0.5), (1, 0), (0, 1), (0.3, 2)])
def test_the_loss_is_the_weighted_sum_of_the_paper(surrogate, lambda_mse, lambda_srocc):
    options = {"lambda_mse": lambda_mse, "lambda_srocc": lambda_srocc, "surrogate": surrogate}
    found = quality_aware_loss(torch.tensor(PREDICTIONS), torch.tensor(TARGETS), **options)
    assert found.shape == ()
    # The floor under the variances moves the correlation by less than 1e-6.
    assert found.item() == pytest.approx(numpy_loss(PREDICTIONS, TARGETS, **options), abs=1e-5)


def test_a_loss_worked_out_by_hand():
    # Two items: any two different values correlate perfectly, so with opposite order the correlation is -1.
    # MSE = ((0 - 1)^2 + (1 - 0)^2) / 2 = 1, and 0.5 * 0.5 * 1 + 0.5 * (1 - (-1)) = 1.25.
    for surrogate in SURROGATES:
        loss = quality_aware_loss(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), surrogate=surrogate)
        assert loss.item() == pytest.approx(1.25, abs=1e-5)


def test_the_defaults_are_the_papers_weights_and_surrogate():
    p, t = torch.tensor(PREDICTIONS), torch.tensor(TARGETS)
    assert quality_aware_loss(p, t) == quality_aware_loss(p, t, lambda_mse=0.5, lambda_srocc=0.5, surrogate="softmax")


def test_a_column_of_predictions_counts_like_a_vector():
    p, t = torch.tensor(PREDICTIONS), torch.tensor(TARGETS)
    assert quality_aware_loss(p[:, None], t) == quality_aware_loss(p, t) == quality_aware_loss(p, t[:, None])


@pytest.mark.parametrize("surrogate", ["softmax", "soft_rank"])
def test_the_order_of_the_batch_does_not_matter(surrogate):
    p, t = torch.tensor(PREDICTIONS).double(), torch.tensor(TARGETS).double()
    losses = [
        quality_aware_loss(p[list(order)], t[list(order)], surrogate=surrogate).item()
        for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 17)
    ]
    assert losses == pytest.approx([losses[0]] * len(losses), abs=1e-12)


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [
        (PREDICTIONS, TARGETS),
        ([0.1, 0.5, 0.5, 0.9, 0.2], [1.0, 2.0, 3.0, 4.0, 5.0]),  # tied predictions
        ([0.1, 0.6, 0.5, 0.9, 0.2], [3.0, 1.0, 3.0, 3.0, 2.0]),  # tied targets
        ([0.7, 0.7, 0.2, 0.2, 0.9], [0.5, 0.5, 0.5, 0.1, 0.1]),  # both
    ],
)
def test_soft_rank_tends_to_spearmans_correlation(predictions, targets):
    expected = stats.spearmanr(predictions, targets).statistic
    p, t = torch.tensor(predictions).double(), torch.tensor(targets).double()
    errors = [abs(soft_rank_correlation(p, t, temperature=heat).item() - expected) for heat in (0.1, 0.02, 1e-4)]
    assert errors[-1] < 1e-9
    assert errors[0] >= errors[1] >= errors[2]


def test_soft_rank_only_knows_the_order_of_the_targets():
    p, t = torch.tensor(PREDICTIONS), torch.tensor(TARGETS)
    assert soft_rank_correlation(p, t) == soft_rank_correlation(p, 100 * t.exp() - 7)
    assert softmax_correlation(p, t) != softmax_correlation(p, 100 * t.exp() - 7)


def test_softmax_of_quality_scores_is_close_to_the_linear_correlation():
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(64, generator=generator)
    p = t + 0.2 * torch.randn(64, generator=generator)
    plcc = stats.pearsonr(p.numpy(), t.numpy()).statistic
    assert softmax_correlation(p, t).item() == pytest.approx(plcc, abs=0.05)


def test_a_perfect_order_counts_as_perfect_in_a_large_batch_too():
    t = torch.linspace(0, 1, 20_000)
    assert softmax_correlation(t, t).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("correlation", SURROGATES.values(), ids=SURROGATES)
def test_a_correlation_is_invariant_to_a_shift_and_lies_between_minus_one_and_one(correlation):
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        p, t = torch.rand(2, 7, generator=generator, dtype=torch.double)
        value = correlation(p, t)
        assert -1 <= value <= 1
        torch.testing.assert_close(correlation(p + 3, t), value)
        torch.testing.assert_close(correlation(t, t), torch.ones_like(value), rtol=0, atol=0.05)


@pytest.mark.parametrize("surrogate", ["softmax", "soft_rank"])
@pytest.mark.parametrize("size", [2, 5])
def test_the_gradient_is_right(surrogate, size):
    generator = torch.Generator().manual_seed(2)
    p = torch.rand(size, generator=generator, dtype=torch.double, requires_grad=True)
    t = torch.rand(size, generator=generator, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda x: quality_aware_loss(x, t, surrogate=surrogate), (p,))


@pytest.mark.parametrize("surrogate", ["softmax", "soft_rank"])
@pytest.mark.parametrize(
    ("predictions", "targets"),
    [
        ([0.2, 0.7, 0.4], [0.5, 0.5, 0.5]),
        ([0.3, 0.3, 0.3], [0.1, 0.5, 0.9]),
        ([0.3, 0.3, 0.3], [0.5, 0.5, 0.5]),
        ([0.3], [0.5]),
        ([2.0, 88.0, 61.0, 100.0], [0.0, 90.0, 50.0, 100.0]),
        ([1e4, -1e4, 3.0], [0.1, 0.5, 0.9]),
    ],
    ids=["constant targets", "constant predictions", "all constant", "one item", "scale of 0 to 100", "diverged"],
)
def test_loss_and_gradient_are_finite(surrogate, predictions, targets):
    p = torch.tensor(predictions, requires_grad=True)
    loss = quality_aware_loss(p, torch.tensor(targets), surrogate=surrogate)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(p.grad).all()


@pytest.mark.parametrize("surrogate", ["softmax", "soft_rank"])
@pytest.mark.parametrize(("predictions", "targets"), [([0.2, 0.7], [0.5, 0.5]), ([0.3], [0.5])])
def test_an_undefined_correlation_counts_as_zero(surrogate, predictions, targets):
    mse = np.mean((np.array(predictions) - np.array(targets)) ** 2)
    p = torch.tensor(predictions, requires_grad=True)
    loss = quality_aware_loss(p, torch.tensor(targets), surrogate=surrogate)
    assert loss.item() == pytest.approx(0.25 * mse + 0.5, abs=1e-6)
    loss.backward()
    # Only the squared error is left to learn from: d(0.25 * mean (p - t)^2) / dp.
    expected = 0.5 * (np.array(predictions) - np.array(targets)) / len(predictions)
    np.testing.assert_allclose(p.grad.numpy(), expected, atol=1e-6)


def test_perfect_predictions_cost_nothing_and_better_order_costs_less():
    t = torch.tensor(TARGETS)
    assert quality_aware_loss(t, t).item() == pytest.approx(0, abs=1e-5)
    swapped = t[[1, 0, 2, 3, 4]]
    for surrogate in SURROGATES:
        assert (
            quality_aware_loss(swapped, t, surrogate=surrogate) > quality_aware_loss(t, t, surrogate=surrogate) + 0.1
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions_are_compared_in_float32(dtype):
    p, t = torch.tensor(PREDICTIONS, dtype=dtype), torch.tensor(TARGETS)
    loss = quality_aware_loss(p, t.double())
    assert loss.dtype == torch.float32
    assert loss == quality_aware_loss(p.float(), t)


def test_whole_numbers_are_accepted_as_targets():
    assert math.isfinite(quality_aware_loss(torch.tensor([0.1, 0.9]), torch.tensor([0, 1])))


@pytest.mark.parametrize(
    ("predictions", "targets", "options", "message"),
    [
        (torch.rand(3), torch.rand(3), {"surrogate": "kendall"}, "Unknown surrogate 'kendall'.*soft_rank.*softmax"),
        (torch.rand(3), torch.rand(2), {}, "3 predictions and 2 targets"),
        (torch.rand(0), torch.rand(0), {}, "at least one"),
    ],
)
def test_wrong_input_is_refused(predictions, targets, options, message):
    with pytest.raises(ValueError, match=message):
        quality_aware_loss(predictions, targets, **options)


def in_sets():
    """Predictions, targets and sets of 5, 1, 2 and 4 items, mixed."""
    generator = torch.Generator().manual_seed(3)
    p, t = torch.rand(2, 12, generator=generator, dtype=torch.double)
    return p, t, torch.tensor([2, 0, 0, 3, 3, 0, 1, 2, 3, 0, 0, 3])


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_several_sets_have_the_mean_of_their_own_rank_terms_weighted_by_their_sizes(surrogate):
    p, t, sets = in_sets()
    expected = 0.15 * ((p - t) ** 2).mean()
    for number, size in ((0, 5), (2, 2), (3, 4)):  # set 1 has one item and no order
        own = sets == number
        expected = expected + 0.7 * size / 11 * (1 - SURROGATES[surrogate](p[own], t[own]))
    options = {"lambda_mse": 0.3, "lambda_srocc": 0.7, "surrogate": surrogate}
    loss = quality_aware_loss(p[:, None], t, **options, sets=sets)
    torch.testing.assert_close(loss, expected)
    assert quality_aware_loss(p, t, **options, sets=sets.flip(0)) != loss
    # Only who is with whom counts; so one set is what it was.
    torch.testing.assert_close(quality_aware_loss(p, t, **options, sets=7 - sets), loss)
    torch.testing.assert_close(
        quality_aware_loss(p, t, **options, sets=torch.zeros(12)), quality_aware_loss(p, t, **options)
    )


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_items_of_different_sets_are_not_compared(surrogate):
    p, t, sets = in_sets()
    options = {"lambda_mse": 0.0, "surrogate": surrogate, "sets": sets}
    # Another constant for each set; a correlation of all items would notice.
    shift = torch.tensor([0.0, 3.0, -2.0, 5.0], dtype=torch.double)[sets]
    torch.testing.assert_close(quality_aware_loss(p + shift, t, **options), quality_aware_loss(p, t, **options))


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_gradient_within_sets_is_right_and_finite(surrogate):
    p, t, sets = in_sets()
    p.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: quality_aware_loss(x, t, surrogate=surrogate, sets=sets), (p,))
    constant = torch.full((3,), 0.4, requires_grad=True)
    for found in (torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1])):
        loss = quality_aware_loss(constant, torch.full((3,), 0.5), surrogate=surrogate, sets=found)
        assert loss.item() == pytest.approx(0.25 * 0.01 + 0.5)  # nothing is known of the order, as with one item
        [gradient] = torch.autograd.grad(loss, constant)
        assert torch.isfinite(gradient).all()


def test_each_target_needs_its_set():
    with pytest.raises(ValueError, match="got 2 sets and 3 targets"):
        quality_aware_loss(torch.rand(3), torch.rand(3), sets=torch.zeros(2))
