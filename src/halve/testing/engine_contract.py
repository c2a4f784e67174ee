"""What every engine must do, as checks that anyone can run on their own engine.

    check_engine(EngineCase(engine=MyEngine(), model=model, folder=folder, payloads=payloads, bad_payload=bad))

Each check raises AssertionError with one sentence; none needs pytest.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from halve.core import Answerer, Engine, Model, Payload, Prediction
from halve.errors import AnswerError, ModelError

TOLERANCE = 1e-4
"""Largest difference of a probability that may come from rounding."""


@dataclass(frozen=True, kw_only=True)
class EngineCase:
    """An engine with a model it can run.

    Args:
        engine: The engine under test.
        model: With at least one file.
        folder: What the model's file paths are relative to.
        payloads: At least 3 that it answers, at least 2 of them differently.
        bad_payload: One that it cannot answer: of a wrong shape or kind, or never recorded.
    """

    engine: Engine
    model: Model
    folder: Path
    payloads: Sequence[Payload]
    bad_payload: Payload


def check_engine(case: EngineCase) -> None:
    """Run every check of ENGINE_CHECKS."""
    for check in ENGINE_CHECKS:
        check(case)


def check_answers(case: EngineCase) -> None:
    """One answer per payload, int64 or text; probability rows sum to 1 and peak at the answer."""
    with _loaded(case) as answerer:
        prediction = answerer.answer(case.payloads)
    _require(len(prediction) == len(case.payloads), f"{len(prediction)} answers to {len(case.payloads)} payloads")
    _require(prediction.answers.dtype in (np.int64, np.object_), f"answers of type {prediction.answers.dtype}")
    _require(len(set(prediction.answers.tolist())) > 1, "all answers are equal: the case cannot tell order")
    if prediction.probabilities is not None:
        sums = prediction.probabilities.sum(axis=1)
        _require(prediction.probabilities.dtype == np.float32, f"probabilities of {prediction.probabilities.dtype}")
        _require(bool(np.allclose(sums, 1, atol=1e-5)), f"probability rows sum to {sums.min()} to {sums.max()}")
        if prediction.answers.dtype == np.int64:
            peak = prediction.probabilities.argmax(axis=1)
            _require(bool(np.array_equal(peak, prediction.answers)), "an answer is not the most probable class")


def check_order(case: EngineCase) -> None:
    """Answers follow the payloads: turned around, they come back turned around."""
    with _loaded(case) as answerer:
        forward, backward = answerer.answer(case.payloads), answerer.answer(case.payloads[::-1])
    _require_same(forward, _take(backward, slice(None, None, -1)), "when the payloads are turned around")


def check_determinism(case: EngineCase) -> None:
    """The same batch gives the same bits, also from a model loaded afresh."""
    with _loaded(case) as answerer:
        first, again = answerer.answer(case.payloads), answerer.answer(case.payloads)
    with _loaded(case) as answerer:
        fresh = answerer.answer(case.payloads)
    _require_same(first, again, "on the second call", tolerance=0)
    _require_same(first, fresh, "from a model loaded afresh", tolerance=0)


def check_batch_independence(case: EngineCase) -> None:
    """What shares the batch changes no answer, and no probability beyond TOLERANCE."""
    with _loaded(case) as answerer:
        together = answerer.answer(case.payloads)
        for index, payload in enumerate(case.payloads):
            _require_same(_take(together, slice(index, index + 1)), answerer.answer([payload]), f"alone, {index}")


def check_threads(case: EngineCase) -> None:
    """The number of threads changes no probability beyond TOLERANCE."""
    with _loaded(case, threads=1) as one:
        single = one.answer(case.payloads)
    with _loaded(case, threads=2) as two:
        _require_same(single, two.answer(case.payloads), "with 2 threads")


def check_empty_batch(case: EngineCase) -> None:
    """No payloads, no answers."""
    with _loaded(case) as answerer:
        _require(len(answerer.answer([])) == 0, "an empty batch got answers")


def check_close_twice(case: EngineCase) -> None:
    """Closing twice is allowed, and one answerer's end is not another's."""
    with _loaded(case) as other:
        answerer = case.engine.load(case.model, threads=1, folder=case.folder)
        answerer.close()
        answerer.close()
        _require(len(other.answer(case.payloads)) == len(case.payloads), "closing one answerer closed another")


def check_payloads_untouched(case: EngineCase) -> None:
    """Answering changes nothing that the caller holds."""
    before = copy.deepcopy(list(case.payloads))
    with _loaded(case) as answerer:
        answerer.answer(case.payloads)
    same = all(np.array_equal(old, new) for old, new in zip(before, case.payloads, strict=True))
    _require(same, "answering changed a payload")


def check_bad_payload(case: EngineCase) -> None:
    """A payload that cannot be answered is named by its position, and later batches still work."""
    with _loaded(case) as answerer:
        for position in (0, 2):
            batch = [*case.payloads[:position], case.bad_payload, *case.payloads[position:]]
            try:
                answerer.answer(batch)
            except AnswerError as error:
                _require(error.index == position, f"input {error.index} was blamed instead of {position}")
                _require(error.model == case.model.name, f"model {error.model!r} was blamed")
            else:
                raise AssertionError("a payload that cannot be answered raised no AnswerError")
        _require(len(answerer.answer(case.payloads)) == len(case.payloads), "a failure broke the answerer")


def check_changed_file(case: EngineCase) -> None:
    """A file that differs from its SHA-256 is refused."""
    changed = replace(case.model.files[0], sha256="0" * 64)
    _require_refused(case, replace(case.model, files=(changed, *case.model.files[1:])), case.folder)


def check_missing_file(case: EngineCase) -> None:
    """A file that is not there is refused."""
    with tempfile.TemporaryDirectory() as empty:
        _require_refused(case, case.model, Path(empty))


def check_escaping_file(case: EngineCase) -> None:
    """A path that leaves the folder is refused, even where it leads to the right bytes."""
    with tempfile.TemporaryDirectory() as name:
        outer, inner = Path(name), Path(name) / "inner"
        inner.mkdir()
        for file in case.model.files:
            for folder in (outer, inner):
                (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(case.folder / file.path, folder / file.path)
        first = case.model.files[0]
        _require_refused(case, replace(case.model, files=(replace(first, path=f"../{first.path}"),)), inner)


ENGINE_CHECKS: tuple[Callable[[EngineCase], None], ...] = (
    check_answers,
    check_order,
    check_determinism,
    check_batch_independence,
    check_threads,
    check_empty_batch,
    check_close_twice,
    check_payloads_untouched,
    check_bad_payload,
    check_changed_file,
    check_missing_file,
    check_escaping_file,
)
"""Every check, for `pytest.mark.parametrize` or a loop."""


@contextmanager
def _loaded(case: EngineCase, *, threads: int = 1) -> Iterator[Answerer]:
    answerer = case.engine.load(case.model, threads=threads, folder=case.folder)
    try:
        yield answerer
    finally:
        answerer.close()


def _take(prediction: Prediction, rows: slice) -> Prediction:
    probabilities = prediction.probabilities
    return Prediction(
        answers=prediction.answers[rows], probabilities=None if probabilities is None else probabilities[rows]
    )


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _require_same(left: Prediction, right: Prediction, when: str, *, tolerance: float = TOLERANCE) -> None:
    _require(bool(np.array_equal(left.answers, right.answers)), f"answers differ {when}")
    if left.probabilities is None or right.probabilities is None:
        _require(left.probabilities is right.probabilities, f"probabilities come and go {when}")
        return
    difference = float(np.abs(left.probabilities - right.probabilities).max())
    _require(difference <= tolerance, f"probabilities differ by {difference} {when}")


def _require_refused(case: EngineCase, model: Model, folder: Path) -> None:
    try:
        case.engine.load(model, threads=1, folder=folder).close()
    except ModelError:
        return
    raise AssertionError("a missing, changed or escaping file was loaded")
