"""What a gateway serves: a stack with everything its stages need, checked once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from halve.core import Accepts, AnswerCache, Answerer, AnswerMemory, Deployment, EarlyWatch, Model, Payload, Stack
from halve.errors import InvalidParameterError

LoadAnswerer = Callable[[Model, int], Answerer]
"""Loads a model with that many threads, in the thread that will use it."""

CACHE_STAGE = "exact_cache"
"""Name of the cache stage in answers and metrics; model stages bear their model's name."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What one item must look like, so that a request that no model could answer is refused at the door.

    Args:
        datatype: `FP32` for tensors, `BYTES` for text, None for either.
        shape: Shape of one tensor without batch axis; None accepts any.
    """

    datatype: Literal["FP32", "BYTES"] | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the gateway refuses rather than risk.

    Args:
        in_flight_items: Items being answered at once; one more gets 503.
        body_bytes: Longest request body; longer ones get 413.
        drain_seconds: How long a shutdown waits for requests that were already accepted.
    """

    in_flight_items: int = 10_000
    body_bytes: int = 16 * 2**20
    drain_seconds: int = 30

    def __post_init__(self) -> None:
        for name in ("in_flight_items", "body_bytes", "drain_seconds"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(f"limits.{name}", rule="at least 1", value=getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A stack made runnable.

    Args:
        stack: Stages from cheap to dear, and how each model is run.
        load: Loads a model; called once per replica, in that replica's thread.
        accepts: For every model stage but the last: which answers stand.
        cache: For a stack with a cache stage.
        cache_key: For a stack with a cache stage: equal bytes mean the identical request.
        memory: Told what the last model answers, for a stack with a semantic cache; closed with the gateway.
        watch: Watches early answers, if given; `accepts` must follow what it says.
        labels: Class names in the order of the models' outputs.
        usd_per_vcpu_second: Price of one vCPU, for every instance type of the stack.
        takes: What an item must look like.

    Raises:
        InvalidParameterError: If a stage lacks its acceptance, its cache or a price.
    """

    stack: Stack
    load: LoadAnswerer
    accepts: Mapping[str, Accepts] = field(default_factory=dict)
    cache: AnswerCache | None = None
    cache_key: Callable[[Payload], bytes] | None = None
    memory: AnswerMemory | None = None
    watch: EarlyWatch | None = None
    labels: tuple[str, ...] = ()
    usd_per_vcpu_second: Mapping[str, float]
    takes: InputSpec = field(default_factory=InputSpec)

    def __post_init__(self) -> None:
        for stage in self.stack.model_stages[:-1]:
            if stage.model not in self.accepts:
                rule = f"given for model {stage.model!r}, which may decline to answer"
                raise InvalidParameterError("accepts", rule=rule, value=sorted(self.accepts))
        if (self.stack.cache_stage is not None) != (self.cache is not None and self.cache_key is not None):
            rule = "given exactly when the stack has a cache stage"
            raise InvalidParameterError("cache and cache_key", rule=rule, value=self.stack.cache_stage)
        types = {self.stack.gateway.instance_type, *(deployed.instance_type for deployed in self.stack.deployments)}
        missing = sorted(types - set(self.usd_per_vcpu_second))
        if missing:
            rule = f"given for {', '.join(missing)}"
            raise InvalidParameterError("usd_per_vcpu_second", rule=rule, value=sorted(self.usd_per_vcpu_second))

    @property
    def links(self) -> tuple["Link", ...]:
        """The model stages in order, each with its deployment and its acceptance; the last accepts all."""
        stages = self.stack.model_stages
        names = [stage.model for stage in stages if stage.model is not None]
        return tuple(
            Link(
                model=self.stack.model(name),
                deployment=self.stack.deployment(name),
                accepts=None if name == names[-1] else self.accepts[name],
            )
            for name in names
        )


@dataclass(frozen=True, kw_only=True)
class Link:
    """One model stage of the chain."""

    model: Model
    deployment: Deployment
    accepts: Accepts | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The chain's answer to one item: class index or text, float32 (classes,) or None, and who gave it."""

    answer: int | str
    probabilities: NDArray[np.float32] | None
    stage: str
