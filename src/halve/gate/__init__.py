"""Keep or reject, with the numbers: paired tests, bounds, the error budget, the certificate. Measures nothing."""

from halve.gate.budget import ErrorBudget
from halve.gate.gate import LEAST_SAVING_RATE, PairedGate
from halve.gate.paired import PairedDrop, compare, drop_lower_bound, drop_p_value, drop_upper_bound
from halve.gate.power import examples_needed, minimum_detectable_drop, power_to_certify, require_enough_examples

__all__ = [
    "LEAST_SAVING_RATE",
    "ErrorBudget",
    "PairedDrop",
    "PairedGate",
    "compare",
    "drop_lower_bound",
    "drop_p_value",
    "drop_upper_bound",
    "examples_needed",
    "minimum_detectable_drop",
    "power_to_certify",
    "require_enough_examples",
]
