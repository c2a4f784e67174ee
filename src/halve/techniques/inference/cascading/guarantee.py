"""Which chain may be used: fixed-sequence testing of few candidates on requests that the search never saw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.chain_search import Candidate
from halve.techniques.inference.cascading.chains import Chain, ChainRun, Numbers

UpperBound = Callable[[Numbers, Numbers], float]
"""One-sided upper confidence bound of the mean of (strong - chain), from paired scores."""


@dataclass(frozen=True, kw_only=True)
class ChainTest:
    """One candidate on the certify requests.

    Args:
        chain: The candidate.
        usd_per_request: Mean USD there.
        quality_drop: Mean of (strong score - chain score) there.
        upper_bound: Of the true mean, at the confidence of the certificate.
        passed: Whether that is within the promise.
    """

    chain: Chain
    usd_per_request: float
    quality_drop: float
    upper_bound: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class CertifiedChain:
    """What may be used.

    Args:
        chain: The cheapest that passed, or None: the strong answerer alone.
        tests: In order, the last one failed or all passed.
        requests: How many certify requests there were.
        quality_drop_at_most: The promise.
    """

    chain: Chain | None
    tests: tuple[ChainTest, ...]
    requests: int
    quality_drop_at_most: float

    @property
    def passed(self) -> tuple[ChainTest, ...]:
        """Return the tests that passed, from cautious to bold: what a watch can fall back to."""
        return tuple(test for test in self.tests if test.passed)


def certified_chain(
    candidates: Sequence[Candidate],
    *,
    run: Callable[[Chain], ChainRun],
    strong_scores: Numbers,
    quality_drop_at_most: float,
    upper_bound: UpperBound,
) -> CertifiedChain:
    """Test candidates in the given order and return the cheapest that passed before the first failure.

    With a bound that fails with probability at most alpha, the chain returned breaks the promise with probability at
    most alpha, for the whole sequence: breaking it takes a false pass of the first candidate that truly loses too
    much, and that is one test. No correction for the number of candidates is due.

    Valid if the requests are exchangeable with those to come, and if candidates and their order were fixed without
    looking at these requests. What breaks it: candidates tuned here, dependent requests, a second try in another order.

    Source: Angelopoulos, Bates, Candes, Jordan & Lei 2021, Learn then Test, arXiv:2110.01052, section 2.3; Maurer,
    Hothorn & Lehmacher 1995.

    Args:
        candidates: From cautious to bold, as `chain_search.candidates` gives them; may be empty.
        run: Returns what a chain does with the certify requests.
        strong_scores: float64 (n,), of the strong answerer on them.
        quality_drop_at_most: The promise, in score units.
        upper_bound: Called with (strong scores, chain scores), once per test, at the confidence promised.

    Raises:
        InvalidParameterError: If a run is not of as many requests.
    """
    tests: list[ChainTest] = []
    for candidate in candidates:
        did = run(candidate.chain)
        if did.scores.shape != strong_scores.shape:
            rule = f"of the {len(strong_scores)} certify requests"
            raise InvalidParameterError("run", rule=rule, value=did.scores.shape)
        bound = float(upper_bound(strong_scores, did.scores))
        test = ChainTest(
            chain=candidate.chain,
            usd_per_request=float(np.mean(did.usd)),
            quality_drop=float(np.mean(strong_scores - did.scores)),
            upper_bound=bound,
            passed=bound <= quality_drop_at_most,
        )
        tests.append(test)
        if not test.passed:
            break
    passed = [test for test in tests if test.passed]
    best = min(passed, key=lambda test: test.usd_per_request).chain if passed else None
    return CertifiedChain(
        chain=best, tests=tuple(tests), requests=len(strong_scores), quality_drop_at_most=quality_drop_at_most
    )
