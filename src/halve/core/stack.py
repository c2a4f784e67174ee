"""A stack: a chain of answerers from cheap to dear, and how each of their models is run."""

from dataclasses import dataclass, field, replace
from typing import Literal

from halve.core.model import Model
from halve.errors import InvalidParameterError

ConfidenceRule = Literal["maximum_probability", "margin", "entropy"]
"""How sure a classifier is, in [0, 1]: the top probability; the gap between the top two; 1 - H(p) / log(k)."""


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """A stage's answer stands if its confidence by this rule is at least the threshold."""

    rule: ConfidenceRule
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One answerer of the chain.

    Args:
        kind: `model` runs a model; `exact_cache` returns the stored answer to an identical request.
        model: Name of the model, for `model` stages.
        accept: When the answer stands. None means always: the last stage has none.
        capacity_entries: For `exact_cache`: entries kept, least recently used dropped first.
        ttl_seconds: For `exact_cache`: how long an entry stays good; None is forever.
    """

    kind: Literal["model", "exact_cache"]
    model: str | None = None
    accept: Acceptance | None = None
    capacity_entries: int = 100_000
    ttl_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """When a free replica takes waiting requests.

    A free replica takes the oldest waiting requests, at most `max_batch_size` of them, as soon as either
    that many wait, or the oldest has waited `max_wait_seconds`. Zero wait never idles while work waits.
    """

    max_batch_size: int = 1
    max_wait_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.max_batch_size < 1:
            raise InvalidParameterError("max_batch_size", rule="at least 1", value=self.max_batch_size)
        if not 0 <= self.max_wait_seconds < float("inf"):
            rule = "a finite number of seconds, at least 0"
            raise InvalidParameterError("max_wait_seconds", rule=rule, value=self.max_wait_seconds)


@dataclass(frozen=True, kw_only=True)
class ReplicaPolicy:
    """How many replicas run. The first form is static; autoscaling adds its own fields."""

    replicas: int = 1

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise InvalidParameterError("replicas", rule="at least 1", value=self.replicas)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """How one model is run: each replica owns `threads` vCPUs of an instance of `instance_type`."""

    model: str
    instance_type: str
    threads: int = 1
    batch: BatchPolicy = field(default_factory=BatchPolicy)
    replica: ReplicaPolicy = field(default_factory=ReplicaPolicy)

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InvalidParameterError("threads", rule="at least 1", value=self.threads)

    @property
    def vcpus(self) -> int:
        """Virtual processors that all replicas own together."""
        return self.threads * self.replica.replicas


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """The HTTP server in front of the chain: each replica owns one vCPU."""

    instance_type: str
    replica: ReplicaPolicy = field(default_factory=ReplicaPolicy)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The ordered stages, the models they use, and one deployment per model.

    Args:
        name: Of the service; clients address it by this name.
        models, deployments: One for each model stage, in the order of the stages.
        stages: From cheap to dear.
        gateway: The HTTP server in front.
        labels: Class names in the order of the models' outputs, if they have names.

    Raises:
        InvalidParameterError: If a stage has no model or deployment, names are not unique, the last
            stage may decline to answer, or an earlier model stage never does.
    """

    schema: Literal["halve.stack/1"] = "halve.stack/1"
    name: str
    models: tuple[Model, ...]
    stages: tuple[Stage, ...]
    deployments: tuple[Deployment, ...]
    gateway: Gateway
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        deployed = [deployment.model for deployment in self.deployments]
        used = [stage.model for stage in self.stages if stage.kind == "model"]
        if not used or self.stages[-1].kind != "model":
            raise InvalidParameterError("stages", rule="a chain that ends in a model", value=self.stages)
        for field_name, listed in (("models", names), ("deployments", deployed), ("stages", used)):
            if len(set(listed)) != len(listed):
                raise InvalidParameterError(field_name, rule="unique in their model", value=listed)
        for field_name, listed in (("models", names), ("deployments", deployed)):
            if listed != used:
                rule = f"one for each model that a stage uses, in the order of the stages, {used}"
                raise InvalidParameterError(field_name, rule=rule, value=listed)
        for stage in self.stages[:-1]:
            if stage.kind == "model" and stage.accept is None:
                rule = "set for every model stage but the last"
                raise InvalidParameterError(f"accept of stage {stage.model!r}", rule=rule, value=None)
        if self.stages[-1].accept is not None:
            rule = "empty for the last stage, which always answers"
            raise InvalidParameterError("accept", rule=rule, value=self.stages[-1].accept)

    @property
    def model_stages(self) -> tuple[Stage, ...]:
        """The stages that run a model, in order."""
        return tuple(stage for stage in self.stages if stage.kind == "model")

    @property
    def cache_stage(self) -> Stage | None:
        """The exact cache, if the chain has one."""
        return next((stage for stage in self.stages if stage.kind == "exact_cache"), None)

    def model(self, name: str) -> Model:
        """Return the model of that name; KeyError if the stack has none."""
        return {model.name: model for model in self.models}[name]

    def deployment(self, model_name: str) -> Deployment:
        """Return the deployment of that model; KeyError if the stack has none."""
        return {deployment.model: deployment for deployment in self.deployments}[model_name]

    def without_entries(self) -> "Stack":
        """Return the stack as a file may hold it: naming no Python code."""
        return replace(self, models=tuple(replace(model, entry=None) for model in self.models))

    def with_model(self, old_name: str, new: Model) -> "Stack":
        """Return the stack with one model replaced by another, deployed and accepted as the old one was."""

        def renamed(name: str | None) -> str | None:
            return new.name if name == old_name else name

        return replace(
            self,
            models=tuple(new if model.name == old_name else model for model in self.models),
            stages=tuple(replace(stage, model=renamed(stage.model)) for stage in self.stages),
            deployments=tuple(
                replace(deployment, model=new.name) if deployment.model == old_name else deployment
                for deployment in self.deployments
            ),
        )

    def with_first_stage(self, model: Model, accept: Acceptance, *, max_batch_size: int, behind: int = 0) -> "Stack":
        """Return the stack with this model asked first, behind the cache; one that is there gets a new threshold.

        It runs on one thread of the last model's instance type.

        Args:
            model: Asked first.
            accept: When its answers stand.
            max_batch_size: Most of its batches.
            behind: So many model stages stay in front of it.
        """
        stage = Stage(kind="model", model=model.name, accept=accept)
        if model in self.models:
            return replace(self, stages=tuple(stage if old.model == model.name else old for old in self.stages))
        deployment = Deployment(
            model=model.name,
            instance_type=self.deployments[-1].instance_type,
            batch=BatchPolicy(max_batch_size=max_batch_size),
        )
        at = len(self.stages) - len(self.model_stages) + behind
        return replace(
            self,
            models=(*self.models[:behind], model, *self.models[behind:]),
            stages=(*self.stages[:at], stage, *self.stages[at:]),
            deployments=(*self.deployments[:behind], deployment, *self.deployments[behind:]),
        )

    def without_model(self, name: str) -> "Stack":
        """Return the stack without a model that is not the last, its stage and its deployment."""
        return replace(
            self,
            models=tuple(model for model in self.models if model.name != name),
            stages=tuple(stage for stage in self.stages if stage.model != name),
            deployments=tuple(deployment for deployment in self.deployments if deployment.model != name),
        )

    def with_last_only(self) -> "Stack":
        """Return the stack without the model stages before the last."""
        last = self.model_stages[-1]
        at = len(self.stages) - len(self.model_stages)
        return replace(
            self, models=self.models[-1:], stages=(*self.stages[:at], last), deployments=self.deployments[-1:]
        )

    def with_deployment(self, deployment: Deployment) -> "Stack":
        """Return the stack with the deployment of the same model replaced."""
        kept = tuple(deployment if old.model == deployment.model else old for old in self.deployments)
        return replace(self, deployments=kept)

    def with_replicas(self, *, gateway: int, models: dict[str, int]) -> "Stack":
        """Return the stack with new replica counts; models not named keep theirs."""
        deployments = tuple(
            replace(old, replica=replace(old.replica, replicas=models.get(old.model, old.replica.replicas)))
            for old in self.deployments
        )
        front = replace(self.gateway, replica=replace(self.gateway.replica, replicas=gateway))
        return replace(self, deployments=deployments, gateway=front)
