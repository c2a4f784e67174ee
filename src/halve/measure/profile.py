"""Runs one model for real: once over the examples, and over batch sizes. Nothing here decides anything."""

import gc
import time
from collections.abc import Callable, Sequence

import numpy as np

from halve.core import (
    Advance,
    Answerer,
    Example,
    Metric,
    Outcomes,
    Payload,
    Prediction,
    ServiceCurve,
)
from halve.errors import AnswerError

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
OUTCOMES_BATCH = 32


def profile_outcomes(
    answerer: Answerer,
    *,
    model: str,
    examples: Sequence[Example],
    metric: Metric,
    advance: Advance,
    batch_size: int = OUTCOMES_BATCH,
) -> Outcomes:
    """Run a model once over all examples, in batches.

    Raises:
        AnswerError: If the model fails on an example; the index is the example's place in the split.
    """
    predictions: list[Prediction] = []
    seconds: list[float] = []
    for start in range(0, len(examples), batch_size):
        payloads = [example.payload for example in examples[start : start + batch_size]]
        began = time.perf_counter()
        try:
            predictions.append(answerer.answer(payloads))
        except AnswerError as error:
            raise AnswerError(model, index=start + error.index, cause=error.cause) from error
        seconds += [(time.perf_counter() - began) / len(payloads)] * len(payloads)
        advance(len(payloads))
    answers = np.concatenate([prediction.answers for prediction in predictions])
    rows = [prediction.probabilities for prediction in predictions]
    known = [row for row in rows if row is not None]
    return Outcomes(
        model=model,
        answers=answers,
        scores=metric.score(answers, [example.reference for example in examples]),
        compute_seconds=np.asarray(seconds),
        probabilities=np.concatenate(known) if len(known) == len(rows) else None,
    )


def profile_curve(
    load: Callable[[], Answerer],
    *,
    model: str,
    threads: int,
    payloads: Sequence[Payload],
    longest_batch_seconds: float,
    budget_seconds: float = 1.5,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> ServiceCurve:
    """Load a model and measure wall seconds per batch size.

    A warm-up of each size comes first, then repeats of all sizes in turn: interleaved, so that a slow
    moment of the host hits all of them alike. Sizes whose warm-up takes longer than
    `longest_batch_seconds` are dropped (never size 1): such a batch could not keep the latency promise.
    Repeats stop after `budget_seconds`, but never before 7 of each size.

    Args:
        load: Loads the model, with `threads` threads; it is closed again here.
        payloads: Real payloads; each repeat draws the next ones, so that text lengths vary as in reality.
    """
    memory_before_bytes = resident_bytes()
    answerer = load()
    try:
        timed = _Turns(answerer, payloads)
        samples = _repeat(timed, _feasible(timed, batch_sizes, longest_batch_seconds), budget_seconds)
        memory_bytes = max(resident_bytes() - memory_before_bytes, 0)
    finally:
        answerer.close()
    return ServiceCurve(
        model=model,
        threads=threads,
        batch_sizes=tuple(samples),
        samples_seconds=tuple(tuple(seconds) for seconds in samples.values()),
        peak_memory_bytes=memory_bytes,
    )


def _feasible(timed: "_Turns", batch_sizes: Sequence[int], longest_seconds: float) -> list[int]:
    sizes = []
    for size in batch_sizes:
        timed.seconds(size)  # the first call of a shape also allocates
        if size > 1 and timed.seconds(size) > longest_seconds:
            break
        sizes.append(size)
    return sizes


def _repeat(timed: "_Turns", sizes: Sequence[int], budget_seconds: float) -> dict[int, list[float]]:
    samples: dict[int, list[float]] = {size: [] for size in sizes}
    began, repeats = time.perf_counter(), 0
    gc.collect()
    gc.disable()
    try:
        while repeats < 7 or (time.perf_counter() - began < budget_seconds and repeats < 60):
            for size in sizes:
                samples[size].append(timed.seconds(size))
            repeats += 1
    finally:
        gc.enable()
    return samples


class _Turns:
    """Times calls on ever new payloads."""

    def __init__(self, answerer: Answerer, payloads: Sequence[Payload]) -> None:
        self._answerer, self._payloads, self._next = answerer, payloads, 0

    def seconds(self, size: int) -> float:
        """Return the wall seconds of one call with the next `size` payloads."""
        n = len(self._payloads)
        batch = [self._payloads[(self._next + i) % n] for i in range(size)]
        self._next = (self._next + size) % n
        began = time.perf_counter()
        self._answerer.answer(batch)
        return time.perf_counter() - began


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)
