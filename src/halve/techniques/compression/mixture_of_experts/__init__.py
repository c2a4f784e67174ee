"""Mixture of experts: a feed-forward of which a token visits only a part. It saves compute and no memory."""

from halve.techniques.compression.mixture_of_experts.accounting import Accounting, account
from halve.techniques.compression.mixture_of_experts.config import MixtureConfig
from halve.techniques.compression.mixture_of_experts.convert import Converted, auxiliary_losses, convert
from halve.techniques.compression.mixture_of_experts.find import FeedForward, feed_forwards, mixtures
from halve.techniques.compression.mixture_of_experts.fit import LayerConversion
from halve.techniques.compression.mixture_of_experts.rebuild import Specification, rebuild, specification_of
from halve.techniques.compression.mixture_of_experts.router import (
    Routing,
    capacity,
    load_balance_loss,
    route,
    within_capacity,
    z_loss,
)
from halve.techniques.compression.mixture_of_experts.split import Split, balanced_clusters

__all__ = [
    "Accounting",
    "Converted",
    "FeedForward",
    "LayerConversion",
    "MixtureConfig",
    "Routing",
    "Specification",
    "Split",
    "account",
    "auxiliary_losses",
    "balanced_clusters",
    "capacity",
    "convert",
    "feed_forwards",
    "load_balance_loss",
    "mixtures",
    "rebuild",
    "route",
    "specification_of",
    "within_capacity",
    "z_loss",
]
