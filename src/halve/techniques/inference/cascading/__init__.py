"""A cheap model answers what it is sure of; the rest goes on. Runs no model.

Two stages of a classifier: `confidence`, `thresholds`, `composition`. Chains of any answerers from recorded outcomes:
`signals`, `calibration`, `scorer`, `neighbours` say how sure an answer is; `chains` and `chain_search` choose
answerers, order and thresholds; `guarantee` certifies them, `ledger` counts, `watch` guards the promise in production.
"""

from halve.techniques.inference.cascading.calibration import IsotonicCurve, fit_isotonic, fit_temperature
from halve.techniques.inference.cascading.chain_search import (
    Candidate,
    ChainPoints,
    candidates,
    chain_points,
    cheapest,
    frontier,
)
from halve.techniques.inference.cascading.chains import Chain, ChainRun, ChainTable, run_chain, single
from halve.techniques.inference.cascading.composition import Composition, compose
from halve.techniques.inference.cascading.confidence import RULES, ConfidenceRule, accepted, confidence
from halve.techniques.inference.cascading.guarantee import CertifiedChain, ChainTest, certified_chain
from halve.techniques.inference.cascading.ledger import CascadeLedger, RandomControl, cascade_ledger, random_control
from halve.techniques.inference.cascading.neighbours import NeighbourSuccess, exact_nearest
from halve.techniques.inference.cascading.scorer import LogisticScorer, fit_scorer
from halve.techniques.inference.cascading.signals import TOKEN_RULES, TokenRule, agreement, energy, token_confidence
from halve.techniques.inference.cascading.thresholds import (
    LEAST_GAP,
    NEVER,
    SHARES_OF_THE_BUDGET,
    ThresholdPoint,
    choose_threshold,
    threshold_curve,
    threshold_ladder,
)
from halve.techniques.inference.cascading.watch import Evidence, Watch, WatchVerdict

__all__ = [
    "LEAST_GAP",
    "NEVER",
    "RULES",
    "SHARES_OF_THE_BUDGET",
    "TOKEN_RULES",
    "Candidate",
    "CascadeLedger",
    "CertifiedChain",
    "Chain",
    "ChainPoints",
    "ChainRun",
    "ChainTable",
    "ChainTest",
    "Composition",
    "ConfidenceRule",
    "Evidence",
    "IsotonicCurve",
    "LogisticScorer",
    "NeighbourSuccess",
    "RandomControl",
    "ThresholdPoint",
    "TokenRule",
    "Watch",
    "WatchVerdict",
    "accepted",
    "agreement",
    "candidates",
    "cascade_ledger",
    "certified_chain",
    "chain_points",
    "cheapest",
    "choose_threshold",
    "compose",
    "confidence",
    "energy",
    "exact_nearest",
    "fit_isotonic",
    "fit_scorer",
    "fit_temperature",
    "frontier",
    "random_control",
    "run_chain",
    "single",
    "threshold_curve",
    "threshold_ladder",
    "token_confidence",
]
