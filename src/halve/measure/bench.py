"""The measuring room's counter: what levers and the ladder ask for, measured once and remembered on disk.

Every result is a file named by what it depends on, written whole or not at all. Asking again, in this
process or after a kill -9, reads the file. This module decides nothing.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from halve.core import (
    Answerer,
    BuildModel,
    Engine,
    FloatArray,
    InstanceType,
    Measure,
    Metric,
    Model,
    Outcomes,
    Payload,
    Progress,
    RunnerName,
    Seconds,
    ServiceCurve,
    Split,
    Stack,
    Workload,
)
from halve.core.documents import replace_file
from halve.core.measurement import Measurement
from halve.errors import InvalidParameterError, RunFolderError, StorageError
from halve.measure.artifacts import adopt_files, new_folder
from halve.measure.compose import AcceptedMask, CacheHits, Composition, compose, exits
from halve.measure.host import usable_cores
from halve.measure.planner import GATEWAY, Fewest, fit_replicas, measured, price, run_simulation
from halve.measure.profile import BATCH_SIZES, OUTCOMES_BATCH, profile_curve, profile_outcomes
from halve.pricing import Catalogue

_log = logging.getLogger("halve.measure")


class StoredAnswers(Protocol):
    """What a semantic cache would answer, as its lever says."""

    def __call__(
        self, model: Model, payloads: Sequence[Payload], table: Outcomes, *, folder: Path
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return answers (n,) and probabilities (n, classes) of a cache that holds the table's other answers."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the techniques decide, passed in so that measuring knows none of them."""

    accepted: AcceptedMask
    cache_hits: CacheHits
    fewest_replicas: Fewest
    drop_upper_bound: Callable[[FloatArray, FloatArray], float]
    stored_answers: StoredAnswers | None = None


@dataclass(kw_only=True, eq=False)
class MeasuringBench:
    """Implements `core.Bench` over a run folder.

    Args:
        workload: Examples, traffic, promises.
        baseline: The model that the user brought.
        folder: The run folder; tables go to `outcomes/` and `curves/`, artifacts to `models/`.
        engine: Returns the engine of a name.
        metric: Scores answers.
        catalogue: Prices.
        instances: Instance types that the user allows, and this host's curves speak for.
        brought: Cheaper answerers of the user.
        untrained: Networks of the user that distillation may train.
        measure_gateway: Measures the gateway's own processor seconds per request; called at most once.
        rules: Decisions of the techniques.
        seed: Of every draw.
        progress: Where bars go.
        encoder: What makes vectors of texts.
        encode_texts: Makes them; needed with an encoder.
    """

    workload: Workload
    baseline: Model
    folder: Path
    engine: Callable[[RunnerName], Engine]
    metric: Metric
    catalogue: Catalogue
    instances: Sequence[InstanceType]
    brought: Sequence[Model]
    untrained: Sequence[Model]
    measure_gateway: Callable[[], ServiceCurve]
    rules: Rules
    seed: int
    progress: Progress
    encoder: Model | None = None
    encode_texts: Callable[[Model, Sequence[str]], NDArray[np.float32]] | None = None
    _made: dict[str, Model] = field(default_factory=dict, init=False)
    _outcomes: dict[Path, Outcomes] = field(default_factory=dict, init=False)
    _curves: dict[Path, ServiceCurve] = field(default_factory=dict, init=False)
    _measurements: dict[tuple[str, str], Measurement] = field(default_factory=dict, init=False)

    def load(self, model: Model, *, threads: int = 1) -> Answerer:
        """Load the model with its engine; the caller closes it."""
        return self.engine(model.engine).load(model, threads=threads, folder=self.folder)

    def outcomes(self, model: Model, *, split: Split = "search") -> Outcomes:
        """Return the model's answers and scores over a split."""
        path = self.folder / "outcomes" / f"{model.name}-{model.fingerprint[:12]}-{split}.parquet"
        if path not in self._outcomes:
            if not path.exists():
                self._profile_outcomes(model, split).save(path)
            self._outcomes[path] = Outcomes.load(path)
        return self._outcomes[path]

    def _profile_outcomes(self, model: Model, split: Split) -> Outcomes:
        examples = self.workload.examples(split)
        if model.engine == "semantic_cache":
            return self._stored_outcomes(model, split)
        answerer = self.load(model, threads=usable_cores())
        try:
            with self.progress.task(f"answers of {model.name} ({split})", total=len(examples)) as advance:
                outcomes = profile_outcomes(
                    answerer,
                    model=model.name,
                    examples=examples,
                    metric=self.metric,
                    advance=advance,
                    batch_size=1 if model.answers_singly else OUTCOMES_BATCH,
                )
                self._check_classes(model, outcomes)
                return outcomes
        finally:
            answerer.close()

    def _stored_outcomes(self, model: Model, split: Split) -> Outcomes:
        """Return what a cache full of the baseline's answers to the other examples of the split would answer."""
        if self.rules.stored_answers is None:
            raise InvalidParameterError("rules.stored_answers", rule="given for a semantic cache", value=None)
        examples, table = self.workload.examples(split), self.outcomes(self.baseline, split=split)
        payloads = [example.payload for example in examples]
        with self.progress.task(f"answers of {model.name} ({split})", total=len(examples)) as advance:
            began = time.perf_counter()
            answers, rows = self.rules.stored_answers(model, payloads, table, folder=self.folder)
            each = (time.perf_counter() - began) / len(examples)
            advance(len(examples))
        return Outcomes(
            model=model.name,
            answers=answers,
            scores=self.metric.score(answers, [example.reference for example in examples]),
            compute_seconds=np.full(len(examples), each),
            probabilities=rows,
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the encoder's vectors, float32 (n, dimension), unit length."""
        if self.encoder is None or self.encode_texts is None:
            raise InvalidParameterError("encoder", rule="named in the config", value=None)
        with self.progress.task(f"vectors of {len(texts):,} texts", total=1) as advance:
            vectors = self.encode_texts(self.encoder, texts)
            advance()
        return vectors

    def _check_classes(self, model: Model, outcomes: Outcomes) -> None:
        labels, rows = self.workload.labels, outcomes.probabilities
        if labels and rows is not None and rows.shape[1] != len(labels):
            rule = f"as many as model {model.name!r} has classes, {rows.shape[1]}"
            raise InvalidParameterError("examples.labels", rule=rule, value=len(labels))

    def service_curve(self, model: Model, *, threads: int) -> ServiceCurve:
        """Return seconds per batch size with that many threads on this host."""
        path = self.folder / "curves" / f"{model.name}-{model.fingerprint[:12]}-{threads}.json"
        return self._remembered_curve(path, lambda: self._profile_curve(model, threads))

    def gateway_curve(self) -> ServiceCurve:
        """Return the gateway's own processor seconds per request."""
        return self._remembered_curve(self.folder / "curves" / f"{GATEWAY}.json", self.measure_gateway)

    def _remembered_curve(self, path: Path, make: Callable[[], ServiceCurve]) -> ServiceCurve:
        if path not in self._curves:
            if not path.exists():
                make().save(path)
            self._curves[path] = ServiceCurve.load(path)
        return self._curves[path]

    def _profile_curve(self, model: Model, threads: int) -> ServiceCurve:
        plural = "thread" if threads == 1 else "threads"
        with self.progress.task(f"speed of {model.name}, {threads} {plural}", total=1) as advance:
            curve = profile_curve(
                lambda: self.load(model, threads=threads),
                model=model.name,
                threads=threads,
                payloads=[example.payload for example in self.workload.search],
                longest_batch_seconds=self.workload.objective.latency_p99_seconds,
                batch_sizes=(1,) if model.answers_singly else BATCH_SIZES,
            )
            advance()
            return curve

    def curves(self, stack: Stack) -> Mapping[str, ServiceCurve]:
        """Return the curves of the gateway and of every model, by station name, as deployed."""
        found = {GATEWAY: self.gateway_curve()}
        for deployment in stack.deployments:
            model = stack.model(deployment.model)
            found[deployment.model] = self.service_curve(model, threads=deployment.threads)
        return found

    def composition(self, stack: Stack, *, split: Split) -> Composition:
        """Return who answers each example of the split, what, and how well."""
        outcomes = {model.name: self.outcomes(model, split=split) for model in stack.models}
        return compose(stack, outcomes=outcomes, accepted=self.rules.accepted)

    def measure(self, stack: Stack, *, split: Split = "search") -> Measurement:
        """Compose and simulate the stack exactly as given, on the whole trace."""
        key = (repr(stack), split)
        if key not in self._measurements:
            self._measurements[key] = self._measure(stack, split)
        return self._measurements[key]

    def _measure(self, stack: Stack, split: Split) -> Measurement:
        traffic, curves = self.workload.traffic, self.curves(stack)
        composition = self.composition(stack, split=split)
        leaving = exits(stack, traffic=traffic, composition=composition, cache_hits=self.rules.cache_hits)
        simulation = run_simulation(stack, traffic=traffic, leaving=leaving, curves=curves, seed=self.seed)
        return measured(
            stack,
            split=split,
            scores=composition.scores,
            simulation=simulation,
            leaving=leaving,
            traffic=traffic,
            curves=curves,
            catalogue=self.catalogue,
        )

    def fit(self, stack: Stack, *, split: Split = "search") -> Stack | None:
        """Return the stack with the fewest replicas that keep the p99 promise with room; None if no number does.

        Batches larger than were measured with the stack's threads are cut to what was: nothing is extrapolated.
        """
        stack = self._as_measured(stack)
        if not self._has_room(stack):
            return None
        traffic = self.workload.traffic
        composition = self.composition(stack, split=split)
        leaving = exits(stack, traffic=traffic, composition=composition, cache_hits=self.rules.cache_hits)
        return fit_replicas(
            stack,
            traffic=traffic,
            leaving=leaving,
            curves=self.curves(stack),
            latency_p99_seconds=self.workload.objective.latency_p99_seconds,
            fewest=self.rules.fewest_replicas,
            seed=self.seed,
        )

    def _has_room(self, stack: Stack) -> bool:
        """Return whether one replica of each model fits its instance type."""
        try:
            self.usd_per_hour(stack.with_replicas(gateway=1, models={model.name: 1 for model in stack.models}))
        except InvalidParameterError as error:
            _log.info("%s", error)
            return False
        return True

    def _as_measured(self, stack: Stack) -> Stack:
        curves = self.curves(stack)
        for deployment in stack.deployments:
            largest = curves[deployment.model].max_batch_size
            if deployment.batch.max_batch_size > largest:
                batch = replace(deployment.batch, max_batch_size=largest)
                stack = stack.with_deployment(replace(deployment, batch=batch))
        return stack

    def usd_per_hour(self, stack: Stack) -> float:
        """Return what the stack's instances cost, without simulating it."""
        idle = {GATEWAY: 0.0, **{model.name: 0.0 for model in stack.models}}
        bill = price(
            stack,
            catalogue=self.catalogue,
            curves=self.curves(stack),
            busy_seconds=idle,
            duration_seconds=self.workload.traffic.duration_seconds,
            n_requests=self.workload.traffic.n_requests,
        )
        return bill.usd_per_hour

    def drop_upper_bound(self, scores: FloatArray) -> float:
        """Return the gate's upper confidence bound of the drop of these search scores against the baseline."""
        return self.rules.drop_upper_bound(self.outcomes(self.baseline).scores, scores)

    def instance_types(self) -> Sequence[InstanceType]:
        """Return the allowed instance types, cheapest first."""
        return sorted(self.instances, key=lambda kind: (kind.usd_per_hour, kind.name))

    def threads_options(self) -> Sequence[int]:
        """Return the thread counts worth trying on this host: powers of two up to its cores."""
        return [threads for threads in (1, 2, 4, 8, 16) if threads <= usable_cores()]

    def answerers(self) -> Sequence[Model]:
        """Return the answerers that the user brought or a lever made, cheapest first."""
        known = (*self.brought, *self._made.values())
        return sorted(known, key=lambda model: self.service_curve(model, threads=1).median_seconds[0])

    def students(self) -> Sequence[Model]:
        """Return the untrained networks that the user brought for distillation to train."""
        return self.untrained

    def workspace(self, name: str) -> Path:
        """Return a folder of the run for work in progress: what a killed build left there is found again."""
        folder = self.folder / "workspaces" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError.of(folder, error) from error
        return folder

    def seconds(self, owner: str, actions: Mapping[str, Callable[[], object]], *, measure: Measure) -> Seconds:
        """Return what `measure(actions)` gave, once for this owner and these names."""
        key = hashlib.sha256(json.dumps(list(actions)).encode()).hexdigest()[:12]
        path = self.folder / "timings" / f"{owner}-{key}.json"
        if not path.exists():
            found = {name: [float(value) for value in values] for name, values in measure(actions).items()}
            with replace_file(path) as partial:
                partial.write_text(json.dumps(found) + "\n")
        try:
            document: dict[str, list[float]] = json.loads(path.read_text())
        except ValueError as error:
            raise RunFolderError(f"{path} is damaged or was not written by halve: {error}") from None
        return document

    def make_model(self, model: Model, *, build: BuildModel) -> Model:
        """Return the model with its files, building them at most once for this name, parent and recipe."""
        recipe = model.recipe
        identity = [model.name, model.parent, recipe and [recipe.technique, dict(recipe.parameters)]]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        folder = self.folder / "models" / f"{model.name}-{key}"
        if not folder.exists():
            with self.progress.task(f"making {model.name}", total=1) as advance, new_folder(folder) as partial:
                build(partial)
                advance()
        made = replace(model, files=(*model.files, *adopt_files(folder, relative_to=self.folder)))
        if made.parent is not None:
            self._made[made.name] = made
        return made

    def model_folder(self, model: Model) -> Path:
        """Return the folder that the model's file paths are relative to."""
        return self.folder
