"""The config file, halve.yaml, as dataclasses: the only document that may name Python functions."""

import re
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, get_args

from halve.core import Objective, Preprocess
from halve.errors import InvalidParameterError

LeverName = Literal[
    "right_sizing",
    "batching",
    "exact_cache",
    "semantic_cache",
    "cascade",
    "quantization",
    "distillation",
    "pruning",
    "mixture_of_experts",
]
LADDER: tuple[LeverName, ...] = get_args(LeverName)
"""The rungs, low risk and low effort first."""


NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
NAME_RULE = "1 to 64 letters, digits, dots, dashes or underscores, because it names a folder"
RESERVED_NAMES = ("gateway", "exact_cache", "semantic-cache")
"""Stations and stages of their own."""


def exactly_one(owner: str, **given: object) -> None:
    """Raise unless exactly one of the named values is set."""
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        rule = f"described by exactly one of {', '.join(given)}"
        raise InvalidParameterError(owner, rule=rule, value=chosen)


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    """Labelled examples.

    Args:
        file: JSONL, CSV, Parquet or NPZ, relative to the config.
        payload, reference: Names of the columns (arrays, for NPZ).
        entry: Or `module:function`, returning `(payloads, references)` or an iterable of `Example`.
        labels: Class names, in the order of the model's outputs.
        certify_share: Share of the examples, by content hash, that only the certificate sees.
    """

    file: str | None = None
    payload: str = "payload"
    reference: str = "label"
    entry: str | None = None
    labels: tuple[str, ...] = ()
    certify_share: float = 0.5

    def __post_init__(self) -> None:
        exactly_one("examples", file=self.file, entry=self.entry)
        if not 0 < self.certify_share < 1:
            raise InvalidParameterError("examples.certify_share", rule="in (0, 1)", value=self.certify_share)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model: an ONNX file, or `module:function` returning a torch module in evaluation mode.

    A torch module takes float32 (batch, ...) for `tensor` payloads, or `(input_ids, attention_mask)`, both
    int64 (batch, tokens), for `wordpiece`; it returns logits, float32 (batch, classes).
    `preprocess.tokenizer_file` may also be `module:function` returning the path.
    """

    name: str
    file: str | None = None
    entry: str | None = None
    preprocess: Preprocess = field(default_factory=Preprocess)

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.name) or self.name in RESERVED_NAMES:
            rule = f"{NAME_RULE}, and none of {', '.join(RESERVED_NAMES)}"
            raise InvalidParameterError("name of a model", rule=rule, value=self.name)
        exactly_one(f"model {self.name}", file=self.file, entry=self.entry)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What makes vectors of texts, for the semantic cache; without it that lever does nothing.

    Args:
        file: An ONNX file that takes `input_ids` (and `attention_mask`, `token_type_ids`), relative to the config.
        entry: Or `module:function` returning a torch module: `(input_ids, attention_mask)` to float32 (batch, any).
        pooling: How token states (batch, tokens, any) become one vector: `mean` or `cls`.
        preprocess: Always `wordpiece`.
    """

    file: str | None = None
    entry: str | None = None
    pooling: Literal["mean", "cls"] = "mean"
    preprocess: Preprocess

    def __post_init__(self) -> None:
        exactly_one("encoder", file=self.file, entry=self.entry)
        if self.preprocess.kind != "wordpiece":
            raise InvalidParameterError("encoder.preprocess.kind", rule="wordpiece", value=self.preprocess.kind)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What distillation, pruning and mixture of experts may train on; without it they do nothing.

    Labels are welcome and not needed: the model in service answers. What stands among the examples is left out.

    Args:
        file: JSONL, CSV, Parquet or NPZ, relative to the config.
        payload: Name of the column (array, for NPZ).
        reference: Column of right answers, if there is one.
        entry: Or `module:function`, returning payloads, or `(payloads, references)` with class indices, -1 for none.
        augment: `module:function` that changes one batch of named tensors in a way that changes no right answer.
        epochs: Passes over the data in every training; each lever has a default of its own.
    """

    file: str | None = None
    payload: str = "payload"
    reference: str | None = None
    entry: str | None = None
    augment: str | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        exactly_one("training", file=self.file, entry=self.entry)
        if self.epochs is not None and self.epochs < 1:
            raise InvalidParameterError("training.epochs", rule="at least 1", value=self.epochs)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Arrivals drawn instead of recorded: `gamma` is bursty (squared_variation > 1), `diurnal` a daily sine."""

    kind: Literal["poisson", "gamma", "diurnal"] = "poisson"
    requests_per_second: float
    duration_seconds: float
    squared_variation: float = 4.0
    peak_to_mean: float = 2.0
    period_seconds: float = 86_400.0


@dataclass(frozen=True, kw_only=True)
class TrafficConfig:
    """When requests arrive.

    Args:
        trace: A trace inside the package: `azure-code` or `azure-conv` (one hour each, 2023).
        file: CSV with a column of timestamps (seconds or ISO 8601), relative to the config.
        timestamp: That column.
        content: Column naming what was asked (an id or the text): repeats are observed from it.
        generate: Or arrivals drawn from a process.
        thin: Share of arrivals kept, evenly at random, (0, 1].
        multiply: Each arrival becomes so many, spread over its gap to the next.
        speed_up: Time runs so many times faster.
        popularity_exponent: States a Zipf law of repeats; without it nothing repeats unless `content` says so.
    """

    trace: Literal["azure-code", "azure-conv"] | None = None
    file: str | None = None
    timestamp: str = "timestamp"
    content: str | None = None
    generate: GenerateConfig | None = None
    thin: float = 1.0
    multiply: int = 1
    speed_up: float = 1.0
    popularity_exponent: float | None = None

    def __post_init__(self) -> None:
        exactly_one("traffic", trace=self.trace, file=self.file, generate=self.generate)
        if self.content is not None and self.file is None:
            rule = "given only with traffic.file: it names a column of it"
            raise InvalidParameterError("traffic.content", rule=rule, value=self.content)
        if not 0 < self.thin <= 1:
            raise InvalidParameterError("traffic.thin", rule="in (0, 1]", value=self.thin)
        if self.multiply < 1:
            raise InvalidParameterError("traffic.multiply", rule="at least 1", value=self.multiply)
        if not 0 < self.speed_up < float("inf"):
            raise InvalidParameterError("traffic.speed_up", rule="positive and finite", value=self.speed_up)


@dataclass(frozen=True, kw_only=True)
class PricesConfig:
    """Which instance types may be rented, at the catalogue's prices or your own (USD per hour)."""

    instances: tuple[str, ...] = ("m6a.large", "m6a.xlarge", "c6a.large", "c6a.xlarge")
    as_of: date | None = None
    usd_per_hour: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.instances:
            raise InvalidParameterError("prices.instances", rule="at least one instance type", value=[])


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """How the model is run today: eager, one request at a time, on so many static replicas.

    `replicas: peak` is the common rule: busiest second x seconds per request / target_utilization.
    """

    instance_type: str = "m6a.large"
    threads: int = 2
    replicas: int | Literal["peak"] = "peak"
    target_utilization: float = 0.7

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InvalidParameterError("baseline.threads", rule="at least 1", value=self.threads)
        if isinstance(self.replicas, int) and self.replicas < 1:
            raise InvalidParameterError("baseline.replicas", rule="at least 1, or 'peak'", value=self.replicas)
        if not 0 < self.target_utilization <= 1:
            value = self.target_utilization
            raise InvalidParameterError("baseline.target_utilization", rule="in (0, 1]", value=value)


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """The confirmation: the busiest window is really served, and so many seconds of it compared. 0 turns it off.

    Twice as many are replayed: every other block of five seconds is learned from instead.
    """

    seconds: float = 30.0

    def __post_init__(self) -> None:
        if not (self.seconds == 0 or 1 <= self.seconds < float("inf")):
            raise InvalidParameterError("replay.seconds", rule="0, or at least 1 and finite", value=self.seconds)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything `halve optimize` needs."""

    schema: Literal["halve.config/1"] = "halve.config/1"
    name: str
    examples: ExamplesConfig
    model: ModelConfig
    answerers: tuple[ModelConfig, ...] = ()
    training: TrainingConfig | None = None
    encoder: EncoderConfig | None = None
    students: tuple[ModelConfig, ...] = ()
    metric: Literal["accuracy"] = "accuracy"
    traffic: TrafficConfig
    prices: PricesConfig = field(default_factory=PricesConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    objective: Objective = field(default_factory=Objective)
    levers: tuple[LeverName, ...] = LADDER
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.name):
            raise InvalidParameterError("name", rule=NAME_RULE, value=self.name)
        names = [given.name for given in (self.model, *self.answerers, *self.students)]
        if len(set(names)) != len(names):
            raise InvalidParameterError("names of model, answerers and students", rule="unique", value=names)
        for given in self.students:
            if given.entry is None:
                rule = "a module:function that returns an untrained network: a file cannot be trained"
                raise InvalidParameterError(f"student {given.name}.entry", rule=rule, value=None)
        if self.seed < 0:
            raise InvalidParameterError("seed", rule="at least 0", value=self.seed)
