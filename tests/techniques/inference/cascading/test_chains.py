import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.chains import Chain, ChainTable, run_chain, single
from halve.techniques.inference.cascading.thresholds import NEVER

SCORES = np.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
USD = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0], [10.0, 10.0, 10.0, 20.0]])
SURE = np.array([[0.9, 0.5, 0.1, 0.2], [0.9, 0.9, 0.3, 0.8]])
NAMES = ("small", "middle", "strong")


def table(prior=None):
    return ChainTable(names=NAMES, scores=SCORES, usd=USD, sure=SURE, prior=prior)


@st.composite
def chains(draw):
    """A random table with a random setting."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    k, n = draw(st.integers(1, 4)), draw(st.integers(1, 30))
    names = tuple("abcd"[:k])
    scores = random.integers(0, 2, size=(k, n)).astype(float)
    made = ChainTable(
        names=names, scores=scores, usd=random.random((k, n)), sure=random.random((k - 1, n)), prior=random.random(n)
    )
    thresholds = tuple(draw(st.floats(0, 1.2)) for _ in range(k - 1))
    return made, Chain(names=names, thresholds=thresholds, skip_below=draw(st.sampled_from([0.0, 0.3, 1.0])))


def test_a_run_by_hand():
    run = run_chain(table(), Chain(names=NAMES, thresholds=(0.8, 0.7)))
    assert run.stage.tolist() == [0, 1, 2, 1]
    assert run.scores.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert run.usd.tolist() == [1.0, 3.0, 13.0, 3.0]
    assert run.asked.sum(axis=1).tolist() == [4, 3, 1]


def test_a_low_prior_goes_straight_to_the_last():
    run = run_chain(table(np.array([0.9, 0.1, 0.1, 0.9])), Chain(names=NAMES, thresholds=(0.8, 0.7), skip_below=0.5))
    assert run.stage.tolist() == [0, 2, 2, 1]
    assert run.usd.tolist() == [1.0, 10.0, 10.0, 3.0]
    assert run.asked[:, 1].tolist() == [False, False, True]


def test_one_answerer_alone():
    run = run_chain(single("strong", scores=SCORES[2], usd=USD[2]), Chain(names=("strong",)))
    assert run.usd.tolist() == USD[2].tolist()
    assert run.scores.tolist() == SCORES[2].tolist()


@given(chains())
def test_cost_lies_between_the_last_or_the_first_alone_and_the_sum_of_all(case):
    made, chain = case
    run = run_chain(made, chain)
    least = np.minimum(made.usd[0], made.usd[-1])
    assert np.all(run.usd >= least - 1e-12)
    assert np.all(run.usd <= made.usd.sum(axis=0) + 1e-12)
    assert np.all(run.asked[run.stage, np.arange(made.requests)])
    assert run.usd == pytest.approx(np.where(run.asked, made.usd, 0).sum(axis=0))


@given(chains(), st.integers(0, 3), st.floats(0, 0.5))
def test_a_stricter_threshold_asks_more_and_costs_more(case, place, more):
    made, chain = case
    if place >= len(chain.thresholds):
        return
    stricter = list(chain.thresholds)
    stricter[place] += more
    before = run_chain(made, chain)
    after = run_chain(made, Chain(names=chain.names, thresholds=tuple(stricter), skip_below=chain.skip_below))
    assert np.all(after.stage >= before.stage)
    assert np.all(after.usd >= before.usd - 1e-12)


@given(chains())
def test_a_chain_is_a_readable_document(case):
    _, chain = case
    assert Chain.from_document(chain.to_document()) == chain


@pytest.mark.parametrize("document", [{}, {"answerers": ["a"], "thresholds": "x"}, {"answerers": 3, "thresholds": []}])
def test_what_is_no_chain_is_refused(document):
    with pytest.raises(InvalidParameterError):
        Chain.from_document(document)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Chain(names=()),
        lambda: Chain(names=("a", "b")),
        lambda: Chain(names=("a", "b"), thresholds=(float("nan"),)),
        lambda: ChainTable(names=NAMES, scores=SCORES, usd=USD, sure=SURE[:1]),
        lambda: ChainTable(names=NAMES, scores=SCORES, usd=-USD, sure=SURE),
        lambda: ChainTable(names=NAMES, scores=SCORES, usd=USD, sure=SURE * 2),
        lambda: table(np.zeros(3)),
        lambda: run_chain(table(), Chain(names=NAMES, thresholds=(NEVER, NEVER), skip_below=0.5)),
        lambda: run_chain(table(), Chain(names=("a", "b"), thresholds=(0.5,))),
    ],
)
def test_wrong_input_is_refused(call):
    with pytest.raises(InvalidParameterError):
        call()
