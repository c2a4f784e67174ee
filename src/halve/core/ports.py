"""The seams: what rooms may ask of one another without knowing who answers.

`halve.testing.engine_contract` is the contract of engines and answerers as checks, which each of ours runs through.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from halve.core.measurement import Measurement
from halve.core.model import Model
from halve.core.run import Certificate, Change, Verdict
from halve.core.stack import Stack
from halve.core.tables import CachedAnswer, Outcomes, Prediction, ServiceCurve
from halve.core.workload import FloatArray, Objective, Payload, Split, Workload


class Answerer(Protocol):
    """A loaded model. Not thread-safe: one replica, one answerer, one thread at a time."""

    def answer(self, payloads: Sequence[Payload]) -> Prediction:
        """Return one answer per payload, in order. Mutates nothing the caller can see.

        An empty batch gives an empty prediction. The answer to a payload does not depend on what shares
        its batch, beyond floating-point rounding.

        Raises:
            AnswerError: If the model raises, or answers NaN, on an input; it names the input's position.
        """
        ...

    def close(self) -> None:
        """Give back memory and threads; `answer` must not be called afterwards. May be called twice."""
        ...


@runtime_checkable
class TensorAnswerer(Answerer, Protocol):
    """An answerer that can show the tensors it feeds its model: what calibration and export need."""

    def inputs(self, payloads: Sequence[Payload]) -> dict[str, NDArray[Any]]:
        """Return the model's named input tensors for these payloads, batch axis first, in the model's order."""
        ...

    @property
    def runtime_model(self) -> object:
        """What the engine runs: a `torch.nn.Module`, or the path of an ONNX file."""
        ...


class Engine(Protocol):
    """Runs models of one kind."""

    name: str

    def load(self, model: Model, *, threads: int, folder: Path) -> Answerer:
        """Load a model whose file paths are relative to `folder`, checking every SHA-256.

        Raises:
            ModelError: If a file is missing, changed or not loadable.
            MissingExtraError: If the engine's library is not installed.
        """
        ...


class Metric(Protocol):
    """How right an answer is."""

    name: str
    is_binary: bool
    """Whether every score is exactly 0 or 1; then bounds are exact."""

    def score(self, answers: NDArray[np.int64] | NDArray[np.object_], references: Sequence[int | str]) -> FloatArray:
        """Return one score in [0, 1] per answer, float64 (n,)."""
        ...


class Accepts(Protocol):
    """The acceptance of one stage, as its lever serves it."""

    def __call__(self, prediction: Prediction) -> NDArray[np.bool_]:
        """Return, per answer of the batch, whether it stands."""
        ...


class EarlyWatch(Protocol):
    """Watches what early stages answer in production: some of it is asked of the last model too."""

    share: float
    """Of early answers that are asked twice, drawn at random, in (0, 1]."""

    @property
    def place(self) -> int:
        """How many times thresholds were tightened."""
        ...

    @property
    def upper_bound(self) -> float:
        """Of the share of requests answered otherwise than the last model would, under the thresholds in force."""
        ...

    def shadow(self, *, same: bool, skipped: int) -> str | None:
        """Take whether both answers are the same, and how many requests since the last were not asked twice.

        Returns:
            A sentence if thresholds change, else None.
        """
        ...


class AnswerMemory(Protocol):
    """What a semantic cache learns from: the last model's answers. Safe from any thread."""

    def remember(self, payload: Payload, answer: CachedAnswer) -> None:
        """Store an answer; it is on disk when this returns."""
        ...

    def close(self) -> None:
        """Write what is noted and let go. May be called twice."""
        ...


class AnswerCache(Protocol):
    """A cache stage, as its lever serves it. Called from one thread only."""

    def get(self, key: bytes, *, now_seconds: float) -> CachedAnswer | None:
        """Return the stored answer of this key, or None."""
        ...

    def put(self, key: bytes, answer: CachedAnswer, *, now_seconds: float) -> None:
        """Store an answer; never changes what `get` already returned."""
        ...


class Progress(Protocol):
    """Where long work says how far it is."""

    def task(self, description: str, *, total: int) -> AbstractContextManager["Advance"]:
        """Open a bar of `total` steps; it closes with the context."""
        ...


class Advance(Protocol):
    """Moves one bar."""

    def __call__(self, steps: int = 1) -> None:
        """Move it by so many steps."""
        ...


class Bench(Protocol):
    """What a lever may ask of the measuring room. Everything is remembered: asking twice measures once."""

    workload: Workload
    seed: int
    progress: Progress

    @property
    def baseline(self) -> Model:
        """The model that the user brought: what every quality is compared with."""
        ...

    def load(self, model: Model, *, threads: int = 1) -> Answerer:
        """Load the model with its engine; the caller closes it."""
        ...

    def outcomes(self, model: Model, *, split: Split = "search") -> Outcomes:
        """Return the model's answers and scores over a split. Levers may only ask for `search`."""
        ...

    def service_curve(self, model: Model, *, threads: int) -> ServiceCurve:
        """Return seconds per batch size with that many threads on this host."""
        ...

    def measure(self, stack: Stack, *, split: Split = "search") -> Measurement:
        """Compose and simulate the stack exactly as given, on the whole trace."""
        ...

    def fit(self, stack: Stack, *, split: Split = "search") -> Stack | None:
        """Return the stack with the fewest replicas that keep the p99 promise with room; None if no number does.

        The split's examples stand for the arrivals. Levers may only ask for `search`.
        """
        ...

    def usd_per_hour(self, stack: Stack) -> float:
        """Return what the stack's instances cost, without simulating it."""
        ...

    def drop_upper_bound(self, scores: FloatArray) -> float:
        """Return the gate's upper confidence bound of the drop of these search scores against the baseline."""
        ...

    def threads_options(self) -> Sequence[int]:
        """Return the thread counts that this host can measure, rising."""
        ...

    def instance_types(self) -> Sequence["InstanceType"]:
        """Return the instance types the user allows whose speed this host's curves speak for, cheapest first."""
        ...

    def answerers(self) -> Sequence[Model]:
        """Return the answerers that the user brought or a lever made, cheapest first."""
        ...

    @property
    def encoder(self) -> Model | None:
        """What makes vectors of texts, if the config names it."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the encoder's vectors, float32 (n, dimension), unit length; there must be an encoder."""
        ...

    def students(self) -> Sequence[Model]:
        """Return the untrained networks that the user brought for distillation to train."""
        ...

    def workspace(self, name: str) -> Path:
        """Return a folder of the run for work in progress: what a killed build left there is found again."""
        ...

    def seconds(self, owner: str, actions: Mapping[str, Callable[[], object]], *, measure: "Measure") -> "Seconds":
        """Return what `measure(actions)` gave, once for this owner and these names: parts that a lever times itself."""
        ...

    def make_model(self, model: Model, *, build: "BuildModel") -> Model:
        """Return the model with its files, building them at most once for this name, parent and recipe.

        `build(folder)` writes files into an empty folder; they are hashed, and moved into the run atomically.
        """
        ...

    def model_folder(self, model: Model) -> Path:
        """Return the folder that the model's file paths are relative to."""
        ...


Seconds = Mapping[str, Sequence[float]]
"""Seconds of one call of each action, one per round, by name."""


class Measure(Protocol):
    """Times actions against each other."""

    def __call__(self, actions: Mapping[str, Callable[[], object]], /) -> Seconds:
        """Return the seconds of each action, one per round."""
        ...


class BuildModel(Protocol):
    """Writes a model's files into a folder."""

    def __call__(self, folder: Path, /) -> None:
        """Write the files; the folder exists and is empty."""
        ...


class InstanceType(Protocol):
    """A rentable machine, as the pricing room lists it."""

    @property
    def name(self) -> str:
        """As the cloud spells it: `c6a.large`."""
        ...

    @property
    def vcpus(self) -> int:
        """Virtual processors."""
        ...

    @property
    def memory_gib(self) -> float:
        """Memory in GiB."""
        ...

    @property
    def usd_per_hour(self) -> float:
        """On-demand price."""
        ...


class Lever(Protocol):
    """One rung of the ladder."""

    name: str

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield changes to try, cheapest effort first; nothing if the lever has nothing to offer.

        Replica counts need not be right: the ladder fits them before it measures.
        """
        ...

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say in one sentence why nothing was proposed, with the number behind it."""
        ...


class Gate(Protocol):
    """Judges a change on the search split, and certifies the result on the certify split."""

    objective: Objective

    def judge(self, *, baseline: Measurement, before: Measurement, after: Measurement) -> Verdict:
        """Keep a change that is cheaper than `before`, fast enough, and provably not worse than promised.

        Quality is always judged against the baseline, so that small drops cannot add up unseen.
        """
        ...

    def certify(self, *, baseline: Measurement, steps: Sequence[tuple[str, str, Measurement]]) -> Certificate:
        """Test kept rungs (lever, description, measurement) in order, on certify scores; stop at the first failure.

        The certificate speaks for the last step that passed; without steps it holds for the baseline; if the first
        fails, it does not hold and shows that one.
        """
        ...
