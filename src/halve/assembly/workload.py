"""Examples, training data and traffic of a config become a `Workload`."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from halve.assembly import entries
from halve.assembly.config import Config, ExamplesConfig, GenerateConfig, TrafficConfig
from halve.core import Augment, Example, Traffic, TrainingSet, Workload
from halve.errors import InvalidParameterError
from halve.gate import require_enough_examples
from halve.workload import (
    assign_examples,
    azure_trace,
    declare_popularity,
    diurnal,
    encode_references,
    examples_from,
    gamma_bursts,
    multiply,
    poisson,
    read_arrivals,
    read_columns,
    read_examples,
    speed_up,
    split_examples,
    thin,
    training_from,
    training_set,
    without_examples,
)


def load_workload(config: Config, *, folder: Path) -> Workload:
    """Return the config's workload; paths are relative to `folder`.

    Raises:
        WorkloadError: If examples or traffic cannot be used, or are too few for the promise.
    """
    examples, seed = _examples(config.examples, folder), config.seed
    training = _training(config, folder)
    search, certify = split_examples(examples, certify_share=config.examples.certify_share, seed=seed)
    require_enough_examples(len(certify), config.objective)
    return Workload(
        name=config.name,
        search=search,
        certify=certify,
        traffic=_traffic(config.traffic, folder, seed=seed),
        objective=config.objective,
        labels=config.examples.labels,
        training=None if training is None else without_examples(training, examples),
    )


def _examples(given: ExamplesConfig, folder: Path) -> Sequence[Example]:
    if given.entry is not None:
        examples = examples_from(entries.call(given.entry, field="examples.entry"))
    else:
        examples = read_examples(folder / str(given.file), payload=given.payload, reference=given.reference)
    if given.labels:
        return encode_references(examples, labels=given.labels)
    named = next((example.reference for example in examples if isinstance(example.reference, str)), None)
    if named is not None:
        rule = "given when references are names, in the order of the model's outputs"
        raise InvalidParameterError("examples.labels", rule=rule, value=f"none, but a reference is {named!r}")
    return examples


def _training(config: Config, folder: Path) -> TrainingSet | None:
    given, labels = config.training, config.examples.labels
    if given is None:
        return None
    if given.entry is not None:
        found = training_from(entries.call(given.entry, field="training.entry"), labels=labels)
    else:
        path = folder / str(given.file)
        payloads, references = read_columns(path, payload=given.payload, reference=given.reference)
        found = training_set(payloads, references, labels=labels, source=str(path))
    augment = entries.resolve(given.augment, field="training.augment") if given.augment else None
    return replace(found, augment=cast("Augment | None", augment), epochs=given.epochs)


def _traffic(given: TrafficConfig, folder: Path, *, seed: int) -> Traffic:
    if given.trace is not None:
        traffic = azure_trace(given.trace)
    elif given.file is not None:
        traffic = read_arrivals(folder / given.file, timestamp=given.timestamp, content=given.content)
    else:
        traffic = _generated(given.generate, seed=seed)
    if given.thin < 1:
        traffic = thin(traffic, given.thin, seed=seed)
    if given.multiply > 1:
        traffic = multiply(traffic, given.multiply, seed=seed)
    if given.speed_up != 1:
        traffic = speed_up(traffic, given.speed_up)
    if given.popularity_exponent is not None:
        traffic = declare_popularity(traffic, exponent=given.popularity_exponent, seed=seed)
    return assign_examples(traffic, seed=seed)


def _generated(given: GenerateConfig | None, *, seed: int) -> Traffic:
    if given is None:
        raise TypeError("TrafficConfig lets exactly one source through")
    rate, duration = given.requests_per_second, given.duration_seconds
    if given.kind == "gamma":
        return gamma_bursts(
            requests_per_second=rate,
            duration_seconds=duration,
            squared_variation=given.squared_variation,
            seed=seed,
        )
    if given.kind == "diurnal":
        return diurnal(
            requests_per_second=rate,
            duration_seconds=duration,
            peak_to_mean=given.peak_to_mean,
            period_seconds=given.period_seconds,
            seed=seed,
        )
    return poisson(requests_per_second=rate, duration_seconds=duration, seed=seed)


def fingerprint(workload: Workload) -> str:
    """Return a SHA-256 over every payload, reference and arrival: the same data, the same run folder."""
    digest = hashlib.sha256()
    for example in (*workload.search, *workload.certify):
        if isinstance(example.payload, str):
            digest.update(b"text" + example.payload.encode())
        else:
            digest.update(repr(example.payload.shape).encode() + example.payload.tobytes())
        digest.update(repr(example.reference).encode())
    if workload.training is not None:
        digest.update(workload.training.sha256.encode() + workload.training.references.tobytes())
    traffic = workload.traffic
    for array in (traffic.arrival_seconds, traffic.content, traffic.example):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def with_seed(config: Config, seed: int | None) -> Config:
    """Return the config with the seed of the command line, if one was given."""
    return config if seed is None else replace(config, seed=seed)
