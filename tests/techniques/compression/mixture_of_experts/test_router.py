import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.mixture_of_experts.router import (
    capacity,
    load_balance_loss,
    route,
    within_capacity,
    z_loss,
)

LOGITS = torch.tensor([[1.0, 2.0, 0.0, -1.0]])


def random_logits(seed, tokens, experts):
    return torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed)) * 3


sizes = st.tuples(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 9))


def test_a_token_goes_to_its_two_largest_logits():
    weights, indices = route(LOGITS, active=2)
    assert indices.tolist() == [[1, 0]]
    # softmax of (2, 1): e^2 / (e^2 + e^1) = 7.389 / (7.389 + 2.718) = 0.7311, and 0.2689.
    torch.testing.assert_close(weights, torch.tensor([[0.7311, 0.2689]]), atol=5e-5, rtol=0)


def test_without_renormalising_weights_are_the_probabilities_over_all_experts():
    weights, indices = route(LOGITS, active=2, renormalise=False)
    assert indices.tolist() == [[1, 0]]
    # e^2 + e^1 + e^0 + e^-1 = 7.3891 + 2.7183 + 1 + 0.3679 = 11.4752; 7.3891 / 11.4752 = 0.6439, 2.7183 / ... = 0.2369.
    torch.testing.assert_close(weights, torch.tensor([[0.6439, 0.2369]]), atol=5e-5, rtol=0)


def test_large_logits_do_not_overflow():
    weights, _ = route(torch.tensor([[1e4, 1e4 - 1, 0.0]]), active=2)
    torch.testing.assert_close(weights, torch.tensor([[0.7311, 0.2689]]), atol=5e-5, rtol=0)


@given(sizes, st.integers(1, 9))
def test_weights_sum_to_one_and_experts_differ(size, active):
    logits = random_logits(*size)
    active = min(active, logits.shape[1])
    weights, indices = route(logits, active=active)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(logits)))
    assert (weights >= 0).all()
    assert all(len(set(row)) == active for row in indices.tolist())
    chosen, rest = logits.gather(1, indices), logits.scatter(1, indices, -math.inf)
    assert (chosen.min(1).values >= rest.max(1).values).all()


def test_the_load_balance_loss_is_1_when_all_is_even():
    # Every expert gets 1 of 4 tokens (f = 1/4) and all probabilities are equal (P = 1/4): 4 * 4 * 1/4 * 1/4 = 1.
    assert float(load_balance_loss(torch.zeros(4, 4), torch.arange(4)[:, None])) == pytest.approx(1.0)


def test_the_load_balance_loss_is_the_number_of_experts_when_one_gets_all():
    # f = P = (1, 0, 0, 0) up to e^-50: 4 * 1 = 4.
    logits = torch.tensor([[50.0, 0.0, 0.0, 0.0]] * 6)
    assert float(load_balance_loss(logits, route(logits, active=1).indices)) == pytest.approx(4.0)


def test_the_load_balance_loss_by_hand_with_two_experts_per_token():
    # Both tokens have p = (1/2, 1/4, 1/4) and go to experts 0 and 1: f = (2, 2, 0) / 4.
    # 3 * (1/2 * 1/2 + 1/2 * 1/4) = 1.125.
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]] * 2))
    assert float(load_balance_loss(logits, torch.tensor([[0, 1], [0, 1]]))) == pytest.approx(1.125)


def test_the_load_balance_loss_pushes_a_busy_expert_down():
    logits = torch.zeros(6, 3, requires_grad=True)
    load_balance_loss(logits, torch.tensor([[0]] * 5 + [[1]])).backward()
    # The gradient is positive where descent lowers the logit.
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 2] < 0).all()


def test_the_z_loss_by_hand():
    # logsumexp(0, 0) = ln 2 = 0.6931; logsumexp(ln 3, 0) = ln 4 = 1.3863. Mean of squares: (0.4805 + 1.9218) / 2.
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    assert float(z_loss(logits)) == pytest.approx((0.480453 + 1.921812) / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("tokens", "factor", "expected"),
    # 10 tokens with 2 experts each out of 8 are 2.5 per expert.
    [(10, 1.0, 3), (10, 2.0, 5), (10, 0.1, 1), (0, 1.0, 0)],
)
def test_the_capacity_is_rounded_up(tokens, factor, expected):
    assert capacity(tokens, experts=8, active=2, factor=factor) == expected


def test_first_choices_come_before_second_choices():
    # Expert 0: chosen first by tokens 1 and 2, second by token 0. There is room for two.
    kept = within_capacity(torch.tensor([[1, 0], [0, 1], [0, 2]]), experts=3, limit=2)
    assert kept.tolist() == [[True, False], [True, True], [True, True]]


@given(sizes, st.integers(1, 9), st.integers(0, 20))
def test_every_assignment_is_kept_or_dropped_and_no_expert_is_over_its_limit(size, active, limit):
    logits = random_logits(*size)
    experts = logits.shape[1]
    indices = route(logits, active=min(active, experts)).indices
    kept = within_capacity(indices, experts=experts, limit=limit)
    wanted, given_ = (
        torch.bincount(indices.flatten(), minlength=experts),
        torch.bincount(indices[kept], minlength=experts),
    )
    assert torch.equal(given_, wanted.clamp(max=limit))


@pytest.mark.parametrize("active", [0, 5])
def test_no_more_experts_than_there_are(active):
    with pytest.raises(InvalidParameterError, match="active"):
        route(LOGITS, active=active)


def test_bad_logits_and_factors_are_named():
    with pytest.raises(InvalidParameterError, match="logits"):
        route(torch.zeros(3), active=1)
    with pytest.raises(InvalidParameterError, match="one token"):
        z_loss(torch.zeros(0, 3))
    with pytest.raises(InvalidParameterError, match="one token"):
        load_balance_loss(torch.zeros(0, 3), torch.zeros(0, 1, dtype=torch.int64))
    with pytest.raises(InvalidParameterError, match="capacity_factor"):
        capacity(3, experts=2, active=1, factor=0)
