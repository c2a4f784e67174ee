"""A bench and levers that follow a script: what the ladder does with proposals, without any model.

A stack is told apart by the replicas of its gateway: the script says what each number costs, how fast it
is, and which examples it gets right.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from halve.core import (
    QUANTILE_LEVELS,
    Answerer,
    BuildModel,
    Change,
    Deployment,
    Example,
    FloatArray,
    Gateway,
    InstanceType,
    Latency,
    LedgerLine,
    Measure,
    Measurement,
    Model,
    Objective,
    Outcomes,
    Progress,
    ReplicaPolicy,
    Seconds,
    ServiceCurve,
    Split,
    Stack,
    Stage,
    Traffic,
    Workload,
)
from halve.core.progress import Silent


def scripted_stack(number: int) -> Stack:
    """Return the stack of that number, at least 1."""
    return Stack(
        name="scripted",
        models=(Model(name="full", engine="recorded"),),
        stages=(Stage(kind="model", model="full"),),
        deployments=(Deployment(model="full", instance_type="c6a.large"),),
        gateway=Gateway(instance_type="c6a.large", replica=ReplicaPolicy(replicas=number)),
    )


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a stack measures.

    Args:
        usd: USD per 1,000 requests.
        wrong: How many of the examples it gets wrong, from the first on.
        latency_seconds: Of every request.
        fits: Whether any replica count keeps the promise.
    """

    usd: float
    wrong: int = 0
    latency_seconds: float = 0.01
    fits: bool = True


@dataclass(kw_only=True)
class ScriptedBench:
    """Implements `core.Bench`; `asked` counts measurements by stack number and split."""

    script: Mapping[int, Script]
    n_examples: int = 2000
    objective: Objective = field(default_factory=Objective)
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    asked: list[tuple[int, Split]] = field(default_factory=list)

    @property
    def baseline(self) -> Model:
        """The scripted model."""
        return scripted_stack(1).models[0]

    @property
    def workload(self) -> Workload:
        """Examples and traffic that nobody looks at."""
        examples = [Example(payload=str(i), reference=0) for i in range(self.n_examples)]
        traffic = Traffic(
            arrival_seconds=np.zeros(1), content=np.zeros(1, int), example=np.zeros(1, int), duration_seconds=1.0
        )
        return Workload(name="scripted", search=examples, certify=examples, traffic=traffic, objective=self.objective)

    def measure(self, stack: Stack, *, split: Split = "search") -> Measurement:
        """Return what the script says."""
        number = stack.gateway.replica.replicas
        self.asked.append((number, split))
        line = self.script[number]
        scores = (0.0,) * line.wrong + (1.0,) * (self.n_examples - line.wrong)
        return Measurement(
            stack=stack.name,
            provenance="simulated",
            split=split,
            scores=scores,
            ledger=(LedgerLine(name="full", usd_per_1k_requests=line.usd),),
            latency=Latency(
                mean_seconds=line.latency_seconds, quantile_seconds=(line.latency_seconds,) * len(QUANTILE_LEVELS)
            ),
            utilization={"full": 0.5},
            stage_share={"full": 1.0},
            instances={"c6a.large": number},
            peak_memory_bytes=1,
            n_requests=1000,
        )

    def fit(self, stack: Stack, *, split: Split = "search") -> Stack | None:
        """Return the stack as it is, unless the script says that nothing fits."""
        return stack if self.script[stack.gateway.replica.replicas].fits else None

    def usd_per_hour(self, stack: Stack) -> float:
        """Return the scripted cost."""
        return self.script[stack.gateway.replica.replicas].usd

    def drop_upper_bound(self, scores: FloatArray) -> float:
        """Return the observed drop against a baseline that is always right."""
        return float(1 - np.mean(scores))

    def load(self, model: Model, *, threads: int = 1) -> Answerer:
        """Refuse: there is no model behind a script."""
        raise LookupError(f"{model.name} on {threads} threads: the script holds no model")

    def outcomes(self, model: Model, *, split: Split = "search") -> Outcomes:
        """Refuse: there is no model behind a script."""
        raise LookupError(f"{model.name} on {split}: the script holds no outcomes")

    def service_curve(self, model: Model, *, threads: int) -> ServiceCurve:
        """Refuse: there is no model behind a script."""
        raise LookupError(f"{model.name} on {threads} threads: the script holds no curve")

    def threads_options(self) -> Sequence[int]:
        """Return one thread."""
        return (1,)

    def instance_types(self) -> Sequence[InstanceType]:
        """Return none."""
        return ()

    def answerers(self) -> Sequence[Model]:
        """Return none."""
        return ()

    def students(self) -> Sequence[Model]:
        """Return none."""
        return ()

    def workspace(self, name: str) -> Path:
        """Refuse: there is no folder behind a script."""
        raise LookupError(f"{name}: the script has no folder")

    def seconds(self, owner: str, actions: Mapping[str, Callable[[], object]], *, measure: Measure) -> Seconds:
        """Refuse: a script runs nothing."""
        raise LookupError(f"{owner}, {list(actions)}, {measure}: the script times nothing")

    def make_model(self, model: Model, *, build: BuildModel) -> Model:
        """Refuse: there is no folder behind a script."""
        raise LookupError(f"{model.name}, {build}: the script makes no models")

    def model_folder(self, model: Model) -> Path:
        """Refuse: there is no folder behind a script."""
        raise LookupError(f"{model.name}: the script has no folder")


@dataclass(frozen=True, kw_only=True)
class ScriptedLever:
    """Proposes the stacks of these numbers, whatever it starts from; `only_after` waits for a start."""

    name: str
    numbers: Sequence[int] = ()
    only_after: int | None = None

    def propose(self, stack: Stack, bench: object) -> Iterable[Change]:
        """Yield one change per number."""
        if self.only_after is not None and stack.gateway.replica.replicas != self.only_after:
            return
        for number in self.numbers:
            after = replace(stack, gateway=scripted_stack(number).gateway)
            yield Change(lever=self.name, description=f"number {number}", before=stack, after=after)

    def nothing(self, stack: Stack, bench: object) -> str:
        """Say so."""
        return f"{self.name} has nothing to offer"
