"""The rooms wired together for one config: bench, gate, levers, optimizer."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from halve.assembly import entries
from halve.assembly.config import LADDER, Config, LeverName
from halve.assembly.models import adopt_encoder, adopt_model
from halve.assembly.semantic import encode_texts, runner, stored_answers
from halve.assembly.workload import fingerprint, load_workload
from halve.core import (
    BatchPolicy,
    BuildModel,
    Deployment,
    Gateway,
    Lever,
    Model,
    Progress,
    ReplicaPolicy,
    ServiceCurve,
    Stack,
    Stage,
    Workload,
)
from halve.core.documents import to_plain
from halve.errors import InvalidParameterError
from halve.gate import PairedGate, drop_upper_bound
from halve.levers.batching import Batching
from halve.levers.cascade import Cascade, accepted_mask
from halve.levers.distillation import Distillation
from halve.levers.exact_cache import ExactCaching, cache_hits
from halve.levers.mixture_of_experts import MixtureOfExperts
from halve.levers.pruning import Pruning
from halve.levers.quantization import Quantization
from halve.levers.right_sizing import RightSizing
from halve.levers.semantic_cache import SemanticCaching
from halve.measure.bench import MeasuringBench, Rules
from halve.measure.host import describe_host, usable_cores
from halve.pricing import Catalogue, InstanceType
from halve.techniques.compression.quantization import detect_hardware
from halve.techniques.infrastructure.right_sizing import fewest_replicas, peak_replicas
from halve.workload import Accuracy

LEVERS: dict[LeverName, Callable[[], Lever]] = {
    "right_sizing": RightSizing,
    "batching": Batching,
    "exact_cache": ExactCaching,
    "semantic_cache": SemanticCaching,
    "cascade": Cascade,
    "quantization": Quantization,
    "distillation": Distillation,
    "pruning": Pruning,
    "mixture_of_experts": MixtureOfExperts,
}
__all__ = ["JOINT", "LADDER", "LEVERS", "Wired", "baseline_stack", "wire"]

JOINT: tuple[LeverName, ...] = ("cascade", "batching", "right_sizing")
"""Levers that re-tune a finished stack: thresholds, then batches, then instances and threads."""


@dataclass(frozen=True, kw_only=True)
class Wired:
    """Everything one optimization needs, and what its figures rest on."""

    config: Config
    folder: Path
    workload: Workload
    bench: MeasuringBench
    gate: PairedGate
    assumptions: tuple[str, ...]

    def levers(self, names: Sequence[LeverName]) -> list[Lever]:
        """Return fresh levers, in the order of the ladder."""
        return [make() for name, make in LEVERS.items() if name in names and name in self.config.levers]


def wire(
    config: Config,
    *,
    config_folder: Path,
    runs: Path,
    progress: Progress,
    measure_gateway: Callable[[Workload], ServiceCurve],
) -> Wired:
    """Load data, models and prices, and return them wired. The config's folder must be importable."""
    with progress.task("loading examples and traffic", total=1) as advance:
        workload = load_workload(config, folder=config_folder)
        advance()
    folder = runs / f"{config.name}-{_key(config, workload)}"
    catalogue, instances, assumptions = _prices(config)
    confidence = config.objective.confidence
    rules = Rules(
        accepted=accepted_mask,
        cache_hits=cache_hits,
        fewest_replicas=fewest_replicas,
        drop_upper_bound=lambda before, after: drop_upper_bound(before, after, confidence=confidence),
        stored_answers=stored_answers,
    )
    questions = [example.payload for example in workload.search if isinstance(example.payload, str)]
    bench = MeasuringBench(
        workload=workload,
        folder=folder,
        baseline=Model(name=config.model.name, engine="torch"),
        engine=lambda name: runner(name, stored=questions),
        metric=Accuracy(),
        catalogue=catalogue,
        instances=instances,
        brought=(),
        untrained=(),
        measure_gateway=lambda: measure_gateway(workload),
        rules=rules,
        seed=config.seed,
        progress=progress,
        encode_texts=partial(encode_texts, folder=folder),
    )

    def make(model: Model, *, build: BuildModel) -> Model:
        return bench.make_model(model, build=build)

    bench.baseline = adopt_model(config.model, folder=config_folder, make=make)
    bench.brought = [adopt_model(given, folder=config_folder, make=make) for given in config.answerers]
    bench.untrained = [adopt_model(given, folder=config_folder, make=make) for given in config.students]
    if config.encoder is not None:
        bench.encoder = adopt_encoder(config.encoder, folder=config_folder, make=make)
    gate = PairedGate(objective=config.objective)
    return Wired(
        config=config,
        folder=folder,
        workload=workload,
        bench=bench,
        gate=gate,
        assumptions=(*assumptions, *_trained_on(workload)),
    )


def _trained_on(workload: Workload) -> list[str]:
    """Say what levers may train on, and what of it was left out because it is examined."""
    training = workload.training
    if training is None:
        return []
    labelled = int((training.references >= 0).sum())
    left_out = f"; {training.left_out:,} more were left out, because they are examples" if training.left_out else ""
    given = f"{len(training):,} payloads ({labelled:,} with a label)"
    return [f"Levers may train on {given}, none of them an example{left_out}."]


def _key(config: Config, workload: Workload) -> str:
    """Return 12 digits that change with the config, the data, the user's code behind it, the host or its versions."""
    models = (config.model, *config.answerers, *config.students)
    named = {f"model {given.name}.entry": given.entry for given in models}
    named = {"examples.entry": config.examples.entry, **named}
    if config.training is not None:
        named |= {"training.entry": config.training.entry, "training.augment": config.training.augment}
    if config.encoder is not None:
        named["encoder.entry"] = config.encoder.entry
    code = [entries.source_hash(entry, field=field) for field, entry in named.items() if entry]
    # Timings and INT8 files of another machine, or of another version of a library, answer another question.
    host = to_plain(describe_host())
    identity = json.dumps([to_plain(config), fingerprint(workload), code, host], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _prices(config: Config) -> tuple[Catalogue, list[InstanceType], list[str]]:
    """Return the catalogue, the instance types this host can speak for, and what that takes for granted."""
    catalogue = Catalogue.load(as_of=config.prices.as_of).with_prices(config.prices.usd_per_hour)
    here = detect_hardware().hardware_class
    named = [
        catalogue.instance(name) for name in dict.fromkeys((*config.prices.instances, config.baseline.instance_type))
    ]
    alike = [
        kind for kind in named if not kind.accelerator and _architecture(kind.hardware_class) == _architecture(here)
    ]
    usable = [kind for kind in alike if kind.name in config.prices.instances]
    rule = f"of an architecture that can be measured here ({here}), without accelerator"
    if not usable:
        raise InvalidParameterError("prices.instances", rule=rule, value=list(config.prices.instances))
    if config.baseline.instance_type not in {kind.name for kind in alike}:
        raise InvalidParameterError("baseline.instance_type", rule=rule, value=config.baseline.instance_type)
    return catalogue, usable, [*_taken_for_granted(alike, here), *_not_considered(named, alike)]


def _taken_for_granted(kinds: Sequence[InstanceType], here: str) -> list[str]:
    """Say that this host's speed stands for that of the instances: one sentence per hardware class."""
    sentences = []
    for hardware_class in dict.fromkeys(kind.hardware_class for kind in kinds):
        names = ", ".join(kind.name for kind in kinds if kind.hardware_class == hardware_class)
        likeness = "the same class" if hardware_class == here else f"another class, {here}"
        sentences.append(
            f"One vCPU of {names} ({hardware_class}) is taken to be as fast as one core of this host ({likeness})."
        )
    return sentences


def _not_considered(named: Sequence[InstanceType], alike: Sequence[InstanceType]) -> list[str]:
    return [
        f"{kind.name} was not considered: its speed ({kind.hardware_class}) cannot be measured here."
        for kind in named
        if kind not in alike
    ]


def _architecture(hardware_class: str) -> str:
    return hardware_class.partition("-")[0]


def baseline_stack(wired: Wired) -> Stack:
    """Return how the model is run today: one request at a time, static replicas, no cache."""
    config, bench, given = wired.config, wired.bench, wired.config.baseline
    if given.threads > usable_cores():
        rule = f"at most the cores of this host, {usable_cores()}, because more would only be in each other's way"
        raise InvalidParameterError("baseline.threads", rule=rule, value=given.threads)
    seconds = float(bench.service_curve(bench.baseline, threads=given.threads).median_seconds[0])
    front_seconds = float(bench.gateway_curve().median_seconds[0])
    peak = wired.workload.traffic.peak_requests_per_second(window_seconds=1.0)

    def replicas(seconds_per_request: float) -> int:
        return peak_replicas(
            peak_requests_per_second=peak,
            seconds_per_request=seconds_per_request,
            target_utilization=given.target_utilization,
        )

    count = replicas(seconds) if given.replicas == "peak" else given.replicas
    deployment = Deployment(
        model=bench.baseline.name,
        instance_type=given.instance_type,
        threads=given.threads,
        batch=BatchPolicy(),
        replica=ReplicaPolicy(replicas=count),
    )
    return Stack(
        name=config.name,
        models=(bench.baseline,),
        stages=(Stage(kind="model", model=bench.baseline.name),),
        deployments=(deployment,),
        gateway=Gateway(instance_type=given.instance_type, replica=ReplicaPolicy(replicas=replicas(front_seconds))),
        labels=wired.workload.labels,
    )
