"""A cheap model answers what it is sure of; the rest goes on. Confidence, thresholds, composition; runs no model."""

from halve.techniques.inference.cascading.composition import Composition, compose
from halve.techniques.inference.cascading.confidence import RULES, ConfidenceRule, accepted, confidence
from halve.techniques.inference.cascading.thresholds import (
    LEAST_GAP,
    NEVER,
    SHARES_OF_THE_BUDGET,
    ThresholdPoint,
    choose_threshold,
    threshold_curve,
    threshold_ladder,
)

__all__ = [
    "LEAST_GAP",
    "NEVER",
    "RULES",
    "SHARES_OF_THE_BUDGET",
    "Composition",
    "ConfidenceRule",
    "ThresholdPoint",
    "accepted",
    "choose_threshold",
    "compose",
    "confidence",
    "threshold_curve",
    "threshold_ladder",
]
