"""Structured pruning: whole channels, neurons, heads and blocks, chosen by measured latency."""

from halve.techniques.compression.pruning.structured.depth import (
    Block,
    block_effects,
    least_blocks,
    removable_blocks,
    remove_blocks,
)
from halve.techniques.compression.pruning.structured.groups import Group, Member, prunable_groups
from halve.techniques.compression.pruning.structured.importance import IMPORTANCES, Importance, unit_scores
from halve.techniques.compression.pruning.structured.latency import LatencyTable, measure_latency
from halve.techniques.compression.pruning.structured.plan import Plan, plan_widths
from halve.techniques.compression.pruning.structured.prune import Iterations, Pruned, prune
from halve.techniques.compression.pruning.structured.rebuild import GroupChange, RebuildSpecification, rebuild
from halve.techniques.compression.pruning.structured.reconstruct import reconstruct
from halve.techniques.compression.pruning.structured.runtime import SecondsOf, Timer, seconds_in_onnxruntime
from halve.techniques.compression.pruning.structured.shrink import shrink, specification_of

__all__ = [
    "IMPORTANCES",
    "Block",
    "Group",
    "GroupChange",
    "Importance",
    "Iterations",
    "LatencyTable",
    "Member",
    "Plan",
    "Pruned",
    "RebuildSpecification",
    "SecondsOf",
    "Timer",
    "block_effects",
    "least_blocks",
    "measure_latency",
    "plan_widths",
    "prunable_groups",
    "prune",
    "rebuild",
    "reconstruct",
    "removable_blocks",
    "remove_blocks",
    "seconds_in_onnxruntime",
    "shrink",
    "specification_of",
    "unit_scores",
]
