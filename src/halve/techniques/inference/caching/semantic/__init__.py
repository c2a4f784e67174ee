"""A question that means the same as an earlier one gets its stored answer.

From the inside out: `wording`, `lexicon` and `differences` compare two texts, `evidence` looks at a question's
neighbours, `scorer` says how likely a stored answer is right, `thresholds` proves where to draw the line and `policy`
decides. `partition` keeps tenants, prompts and tools apart, `store` says what a store promises (`sqlite`, `postgres`),
`cache` is what serves, `single_flight` merges what is under way. Vectors, models and the network are passed in.
"""

from halve.techniques.inference.caching.semantic.among import first_of_each, lookups_among, lookups_in_time
from halve.techniques.inference.caching.semantic.cache import Lookup as CacheLookup
from halve.techniques.inference.caching.semantic.cache import SemanticCache, SemanticCounts
from halve.techniques.inference.caching.semantic.eviction import Limits
from halve.techniques.inference.caching.semantic.evidence import Lookup
from halve.techniques.inference.caching.semantic.fitting import (
    FittedPolicy,
    LabelledLookup,
    LabelledPairs,
    calibrated,
    fit_assessor,
    fit_policy,
)
from halve.techniques.inference.caching.semantic.full_cache import full_cache, spread
from halve.techniques.inference.caching.semantic.log_replay import LogReplay, Mistake, replay_log
from halve.techniques.inference.caching.semantic.neighbour import Decision, Neighbour
from halve.techniques.inference.caching.semantic.partition import (
    Scope,
    cacheable,
    content_digest,
    from_chat_request,
    partition_key,
)
from halve.techniques.inference.caching.semantic.policy import FillLevel, HitPolicy, default_policy
from halve.techniques.inference.caching.semantic.pooled import PooledThresholds
from halve.techniques.inference.caching.semantic.postgres import PostgresStore
from halve.techniques.inference.caching.semantic.single_flight import Near, SingleFlight
from halve.techniques.inference.caching.semantic.sqlite import SQLiteStore
from halve.techniques.inference.caching.semantic.store import EntryStore, NewEntry
from halve.techniques.inference.caching.semantic.thresholds import (
    ThresholdChoice,
    choose_threshold,
    precision_recall_curve,
)

__all__ = [
    "CacheLookup",
    "Decision",
    "EntryStore",
    "FillLevel",
    "FittedPolicy",
    "HitPolicy",
    "LabelledLookup",
    "LabelledPairs",
    "Limits",
    "LogReplay",
    "Lookup",
    "Mistake",
    "Neighbour",
    "Near",
    "NewEntry",
    "PooledThresholds",
    "PostgresStore",
    "SQLiteStore",
    "Scope",
    "SemanticCache",
    "SemanticCounts",
    "SingleFlight",
    "ThresholdChoice",
    "cacheable",
    "calibrated",
    "choose_threshold",
    "content_digest",
    "default_policy",
    "fit_assessor",
    "first_of_each",
    "full_cache",
    "fit_policy",
    "from_chat_request",
    "lookups_among",
    "lookups_in_time",
    "partition_key",
    "precision_recall_curve",
    "replay_log",
    "spread",
]
