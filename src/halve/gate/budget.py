"""The error budget of the ladder, in one place: which decision may be wrong how often, and which promises nothing."""

from dataclasses import dataclass

from halve.core import Objective


@dataclass(frozen=True, kw_only=True)
class ErrorBudget:
    """What each split may spend of the error that the objective allows, alpha = 1 - confidence.

    The certificate spends all of alpha, once, on the certify split, which no search has seen. It tests the kept
    rungs in an order fixed beforehand and stops at the first failure. Each test runs at the full alpha: a false
    pass anywhere needs a false pass at the first rung whose drop truly is too large, and that one test errs
    with probability alpha (Maurer, Hothorn & Lehmacher 1995; Westfall & Krishen 2001). No correction for the
    number of rungs is due.

    Decisions on the search split carry no guarantee. Hundreds of stacks are compared on the same examples and the
    winner is picked, so its score is flattered (the winner's curse). Each of these decisions uses the same bound
    at the same confidence, as a filter only: a rung that barely passes here will often fail the certificate.

    Args:
        certificate: Probability of a false certificate, for the whole fixed sequence.
        search_decision: Error rate at which one decision on the search split is made; spends nothing of the above.
    """

    certificate: float
    search_decision: float

    @classmethod
    def of(cls, objective: Objective) -> "ErrorBudget":
        """Return the budget that an objective allows."""
        alpha = 1 - objective.confidence
        return cls(certificate=alpha, search_decision=alpha)
