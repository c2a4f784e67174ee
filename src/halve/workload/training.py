"""What may be trained on: payloads with or without labels, and none that stands among the examples."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from halve.core import Example, TrainingSet
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
    numbers = [_class_index(value, labels, row, source) for row, value in enumerate(given, start=1)]
    return TrainingSet(payloads=rows, references=np.array(numbers, np.int64), sha256=payload_hash(rows))


def training_from(value: object, *, labels: Sequence[str] = ()) -> TrainingSet:
    """Return what a user's function gave: payloads, or `(payloads, references)`; errors as in `training_set`."""
    source = "the training function"
    if isinstance(value, tuple) and len(value) == 2 and not isinstance(value[0], str):
        payloads, references = value
    else:
        payloads, references = value, None
    for what, part in (("payloads", payloads), ("references", references)):
        if part is not None and (isinstance(part, str) or not isinstance(part, Iterable)):
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


def _class_index(value: object, labels: Sequence[str], row: int, source: str) -> int:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value == "" or (isinstance(value, int) and value == UNLABELLED):
        return UNLABELLED
    if isinstance(value, int | str) and not isinstance(value, bool):
        (encoded,) = encode_references([Example(payload="", reference=value)], labels)
        if isinstance(encoded.reference, int) and encoded.reference >= 0:
            return encoded.reference
    rule = "a class index, a label's name, or nothing"
    raise WorkloadError(f"reference of row {row} of {source} must be {rule}. Got {value!r}.")
