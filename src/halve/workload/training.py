"""What may be trained on: payloads with or without labels, and none that stands among the examples."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from halve.core import Example, IntArray, TrainingSet
from halve.core.hashing import payload_digest, payload_hash
from halve.errors import WorkloadError
from halve.workload.readers import checked_payloads, encode_references

UNLABELLED = -1


def training_set(
    payloads: Iterable[object],
    references: Iterable[object] | None = None,
    *,
    labels: Sequence[str] = (),
    source: str = "the training data",
) -> TrainingSet:
    """Return checked payloads and class indices.

    Args:
        payloads: Texts, or numbers of one shape each.
        references: One per payload: a class index, a label's name, or nothing (None, an empty text or -1) where nobody
            has labelled it. None: nobody has labelled anything.
        labels: Class names, in the order of the model's outputs.
        source: For messages.

    Raises:
        WorkloadError: If there is no row, lengths differ, a payload breaks a rule of `read_examples`, or a reference is
            no class.
    """
    rows = checked_payloads(payloads, source=source)
    given = [None] * len(rows) if references is None else list(references)
    if len(given) != len(rows):
        raise WorkloadError(f"{source} must hold one reference per payload. Got {len(rows)} and {len(given)}.")
    references = _class_indices(given, labels, source)
    return TrainingSet(payloads=rows, references=references, sha256=payload_hash(rows))


def training_from(value: object, *, labels: Sequence[str] = ()) -> TrainingSet:
    """Return what a user's function gave: payloads, or `(payloads, references)`; errors as in `training_set`."""
    source = "the training function"
    if isinstance(value, tuple) and len(value) == 2 and not isinstance(value[0], str):
        payloads, references = value
    else:
        payloads, references = value, None
    for what, part in (("payloads", payloads), ("references", [] if references is None else references)):
        if isinstance(part, str) or not isinstance(part, Iterable):
            raise WorkloadError(f"{what} of {source} must be a sequence. Got {type(part).__name__}.")
    return training_set(payloads, references, labels=labels, source=source)


def without_examples(training: TrainingSet, examples: Iterable[Example]) -> TrainingSet:
    """Return the set without the payloads that stand among the examples, byte for byte.

    A certificate speaks of what was never learned.

    Raises:
        WorkloadError: If none is left.
    """
    known = {payload_digest(example.payload) for example in examples}
    kept = [row for row, payload in enumerate(training.payloads) if payload_digest(payload) not in known]
    if not kept:
        n = len(training.payloads)
        raise WorkloadError(f"training must hold a payload that is no example. All {n} of them are examples too.")
    payloads = [training.payloads[row] for row in kept]
    return replace(
        training,
        payloads=payloads,
        references=training.references[kept],
        sha256=payload_hash(payloads),
        left_out=len(training.payloads) - len(kept),
    )


def _class_indices(given: Sequence[object], labels: Sequence[str], source: str) -> IntArray:
    found = [_reference(value, labels, row, source) for row, value in enumerate(given, start=1)]
    stand_in = labels[0] if labels else 0  # unlabelled rows keep their place, so that messages count rows right
    examples = [Example(payload="", reference=stand_in if value is None else value) for value in found]
    numbers = [example.reference for example in encode_references(examples, labels)]
    return np.array([UNLABELLED if a is None else b for a, b in zip(found, numbers, strict=True)], np.int64)


def _reference(value: object, labels: Sequence[str], row: int, source: str) -> int | str | None:
    """Return a class index, a name if there are labels, or None where nobody has labelled it."""
    value = value.item() if isinstance(value, np.generic) else value
    text = value.strip() if isinstance(value, str) else None
    if text is not None and not labels and text.removeprefix("-").isdecimal():
        value = int(text)  # a CSV column with gaps holds texts
    if value is None or text == "" or (isinstance(value, int) and value == UNLABELLED):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and labels:
        return value
    rule = "a class index, a label's name, or nothing"
    raise WorkloadError(f"reference of row {row} of {source} must be {rule}. Got {value!r}.")
