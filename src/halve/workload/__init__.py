"""Examples and traffic: read, split, drawn, changed, described. Runs no model and knows no price."""

from halve.workload.arrivals import diurnal, gamma_bursts, poisson, read_arrivals
from halve.workload.azure import AZURE_TRACES, azure_trace
from halve.workload.describe import TrafficDescription, describe
from halve.workload.metrics import Accuracy
from halve.workload.readers import (
    checked_payloads,
    encode_references,
    examples_from,
    read_columns,
    read_examples,
    read_payloads,
)
from halve.workload.split import split_examples
from halve.workload.traffic import assign_examples, declare_popularity, multiply, speed_up, thin
from halve.workload.training import training_from, training_set, without_examples

__all__ = [
    "AZURE_TRACES",
    "Accuracy",
    "TrafficDescription",
    "assign_examples",
    "azure_trace",
    "checked_payloads",
    "declare_popularity",
    "describe",
    "diurnal",
    "encode_references",
    "examples_from",
    "gamma_bursts",
    "multiply",
    "poisson",
    "read_arrivals",
    "read_columns",
    "read_examples",
    "read_payloads",
    "speed_up",
    "split_examples",
    "thin",
    "training_from",
    "training_set",
    "without_examples",
]
