import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.chain_search import Candidate, candidates, chain_points
from halve.techniques.inference.cascading.chains import Chain, ChainRun, ChainTable, run_chain
from halve.techniques.inference.cascading.guarantee import certified_chain


def candidate(name, usd):
    return Candidate(chain=Chain(names=(name,)), usd_per_request=usd, quality_drop=0.0, deviation=0.1, requests=9)


def outcome(usd, scores):
    n = len(scores)
    return ChainRun(
        stage=np.zeros(n, dtype=np.int64), asked=np.ones((1, n), dtype=bool), scores=scores, usd=np.full(n, float(usd))
    )


def plain_bound(strong, chain):
    return float(np.mean(strong - chain)) + 0.01


RUNS = {"safe": outcome(3, np.ones(100)), "bold": outcome(2, np.repeat([1.0, 0.0], [96, 4]))}
RUNS |= {"mad": outcome(1, np.zeros(100)), "lucky": outcome(0.5, np.ones(100))}


def certified(*names, promise=0.05):
    return certified_chain(
        [candidate(name, RUNS[name].usd[0]) for name in names],
        run=lambda chain: RUNS[chain.names[0]],
        strong_scores=np.ones(100),
        quality_drop_at_most=promise,
        upper_bound=plain_bound,
    )


def test_the_last_that_passes_before_the_first_failure_is_taken():
    found = certified("safe", "bold", "mad", "lucky")
    assert found.chain == Chain(names=("bold",))
    assert [test.passed for test in found.tests] == [True, True, False]
    assert found.tests[1].upper_bound == pytest.approx(0.05)
    assert [test.chain.names for test in found.passed] == [("safe",), ("bold",)]


def test_the_strong_answerer_alone_when_none_passes():
    assert certified("mad", "safe").chain is None
    assert certified().chain is None


def test_the_cheapest_is_taken_by_what_it_costs_here():
    assert certified("lucky", "safe").chain == Chain(names=("lucky",))


def test_runs_of_other_requests_are_refused():
    with pytest.raises(InvalidParameterError):
        certified_chain(
            [candidate("safe", 1)],
            run=lambda _: RUNS["safe"],
            strong_scores=np.ones(3),
            quality_drop_at_most=0.1,
            upper_bound=plain_bound,
        )


def binomial_bound(strong, chain):
    """Hoeffding for differences in [-1, 1] at 95 %."""
    return float(np.mean(strong - chain)) + np.sqrt(2 * np.log(20) / len(strong))


def test_the_promise_is_broken_in_at_most_1_search_of_20():
    # Sureness says nothing, so every accepted answer costs 0.1 of quality in truth; search makes some look free.
    promise, broken = 0.1, 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        n = 400
        scores = (random.random((2, 2 * n)) < [[0.7], [0.9]]).astype(float)
        table = ChainTable(
            names=("cheap", "strong"),
            scores=scores,
            usd=np.outer([1.0, 10.0], np.ones(2 * n)),
            sure=random.random((1, 2 * n)),
        )
        halves = [
            ChainTable(names=table.names, scores=part, usd=usd, sure=sure)
            for part, usd, sure in zip(
                np.split(table.scores, 2, axis=1),
                np.split(table.usd, 2, axis=1),
                np.split(table.sure, 2, axis=1),
                strict=True,
            )
        ]
        points = chain_points(halves[0], strong_scores=halves[0].scores[1])
        tried = candidates([points], quality_drop_at_most=promise, certify_requests=n, confidence=0.95)
        found = certified_chain(
            tried,
            run=lambda chain, table=halves[1]: run_chain(table, chain),
            strong_scores=halves[1].scores[1],
            quality_drop_at_most=promise,
            upper_bound=binomial_bound,
        )
        accepted = 0.0 if found.chain is None else 1 - min(found.chain.thresholds[0], 1.0)
        broken += 0.2 * accepted > promise
    assert broken <= 10
