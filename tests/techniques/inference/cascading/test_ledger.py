import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.chains import Chain, ChainTable, run_chain
from halve.techniques.inference.cascading.ledger import cascade_ledger, random_control

NAMES = ("small", "strong")
TABLE = ChainTable(
    names=NAMES,
    scores=np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]),
    usd=np.array([[1.0, 1.0, 2.0, 2.0], [10.0, 10.0, 10.0, 30.0]]),
    sure=np.array([[0.9, 0.1, 0.8, 0.2]]),
)
RUN = run_chain(TABLE, Chain(names=NAMES, thresholds=(0.5,)))


def test_lines_by_hand():
    found = cascade_ledger(
        TABLE,
        RUN,
        strong_usd=TABLE.usd[1],
        shadows=np.array([True, True, False, False]),
        encoder_usd_per_request=0.25,
        lost_discount_usd_per_strong_call=0.5,
    )
    assert found.lines == {
        "accepted_usd": 3.0,
        "rejected_usd": 3.0,
        "strong_usd": 40.0,
        "shadow_usd": 10.0,  # the second request went to the strong answerer anyway
        "encoder_usd": 1.0,
        "lost_discount_usd": 1.0,
    }
    assert (found.total_usd, found.strong_only_usd, found.saved_usd) == (58.0, 60.0, 2.0)
    assert found.saving_rate == pytest.approx(2 / 60)


def test_a_cascade_that_costs_more_shows_a_loss():
    nothing = run_chain(TABLE, Chain(names=NAMES, thresholds=(2.0,)))
    found = cascade_ledger(TABLE, nothing, strong_usd=TABLE.usd[1])
    assert found.saved_usd == -6.0
    assert found.accepted_usd == 0.0


@given(st.floats(0, 1.1), st.integers(0, 100))
def test_lines_add_up_to_what_the_run_cost(threshold, seed):
    random = np.random.default_rng(seed)
    table = ChainTable(
        names=("a", "b", "c"), scores=np.ones((3, 20)), usd=random.random((3, 20)), sure=random.random((2, 20))
    )
    run = run_chain(table, Chain(names=table.names, thresholds=(threshold, threshold)))
    assert cascade_ledger(table, run, strong_usd=table.usd[2]).total_usd == pytest.approx(run.usd.sum())


def test_random_control_by_hand():
    scores, usd = np.array([[0.5], [0.9]]), np.array([[1.0], [5.0]])
    found = random_control(("cheap", "dear"), scores=scores, usd=usd, spend_per_request=3.0)
    assert (found.first, found.second) == ("cheap", "dear")
    assert (found.second_share, found.quality, found.usd_per_request) == pytest.approx((0.5, 0.7, 3.0))
    all_in = random_control(("cheap", "dear"), scores=scores, usd=usd, spend_per_request=50.0)
    assert (all_in.second_share, all_in.quality, all_in.usd_per_request) == pytest.approx((1.0, 0.9, 5.0))


def test_random_control_takes_the_best_pair():
    scores, usd = np.array([[0.5], [0.2], [0.9]]), np.array([[1.0], [2.0], [3.0]])
    found = random_control("abc", scores=scores, usd=usd, spend_per_request=2.0)
    assert (found.first, found.second, found.quality) == ("a", "c", pytest.approx(0.7))


@pytest.mark.parametrize(
    "call",
    [
        lambda: cascade_ledger(TABLE, RUN, strong_usd=np.ones(3)),
        lambda: cascade_ledger(TABLE, RUN, strong_usd=np.ones(4), encoder_usd_per_request=-1),
        lambda: random_control(NAMES, scores=np.ones((2, 3)), usd=np.ones((2, 3)), spend_per_request=0.5),
        lambda: random_control(NAMES, scores=np.ones((3, 3)), usd=np.ones((3, 3)), spend_per_request=2),
    ],
)
def test_wrong_input_is_refused(call):
    with pytest.raises(InvalidParameterError):
        call()
