"""The contract suite must catch engines that break the contract: each of these breaks one thing."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from halve.core import Model, ModelFile, Outcomes, Prediction
from halve.engines.recorded import RecordedAnswerer, RecordedEngine, save_recorded
from halve.errors import AnswerError
from halve.testing import engine_contract
from halve.testing.engine_contract import EngineCase, check_engine


class Wrapped:
    """A recorded model whose answers pass through `spoil`."""

    def __init__(self, inner: RecordedAnswerer) -> None:
        self.inner = inner
        self.calls = 0
        self.is_closed = False

    def answer(self, payloads):
        return self.inner.answer(payloads)

    def close(self):
        self.inner.close()


class Reversed(Wrapped):
    def answer(self, payloads):
        prediction = self.inner.answer(payloads)
        return Prediction(answers=np.sort(prediction.answers), probabilities=prediction.probabilities)


class Restless(Wrapped):
    def answer(self, payloads):
        self.calls += 1
        prediction = self.inner.answer(payloads)
        return Prediction(
            answers=prediction.answers, probabilities=prediction.probabilities[:, ::1] + np.float32(1e-6 * self.calls)
        )


class Crowded(Wrapped):
    def answer(self, payloads):
        prediction = self.inner.answer(payloads)
        return Prediction(answers=prediction.answers + (len(payloads) == 1), probabilities=prediction.probabilities)


class AfraidOfNothing(Wrapped):
    def answer(self, payloads):
        if len(payloads) == 0:
            return self.inner.answer([np.full(2, 1, np.float32)])
        return self.inner.answer(payloads)


class Careless(Wrapped):
    def answer(self, payloads):
        prediction = self.inner.answer(payloads)
        payloads[0][:] = 5
        return prediction


class Blaming(Wrapped):
    def answer(self, payloads):
        try:
            return self.inner.answer(payloads)
        except AnswerError as error:
            raise AnswerError(error.model, index=0, cause="something") from error


class CloseOnce(Wrapped):
    def close(self):
        if self.is_closed:
            raise AssertionError("closed already")
        self.is_closed = True


class Spoiled:
    """An engine that wraps every answerer."""

    name = "recorded"

    def __init__(self, wrapper):
        self.wrapper = wrapper

    def load(self, model, *, threads, folder):
        return self.wrapper(RecordedEngine().load(model, threads=threads, folder=folder))


class Trusting:
    """An engine that checks no file."""

    name = "recorded"

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, model, *, threads, folder):
        file = ModelFile(path=self.path.name, sha256=hashlib.sha256(self.path.read_bytes()).hexdigest(), size_bytes=1)
        trusted = Model(name=model.name, engine="recorded", files=(file,))
        return RecordedEngine().load(trusted, threads=threads, folder=self.path.parent)


@pytest.fixture
def case(tmp_path):
    payloads = [np.full(2, number, np.float32) for number in (3, 1, 2, 4)]
    probabilities = np.eye(4, dtype=np.float32)[[3, 1, 2, 0]]
    outcomes = Outcomes(
        model="m",
        answers=np.array([3, 1, 2, 0]),
        scores=np.ones(4),
        compute_seconds=np.ones(4),
        probabilities=probabilities,
    )
    path = tmp_path / "m.parquet"
    save_recorded(outcomes, path, payloads=payloads)
    file = ModelFile(path=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size_bytes=1)
    return EngineCase(
        engine=RecordedEngine(),
        model=Model(name="m", engine="recorded", files=(file,)),
        folder=tmp_path,
        payloads=payloads,
        bad_payload="never recorded",
    )


def with_engine(case, engine):
    return EngineCase(**{**vars(case), "engine": engine})


def test_an_engine_that_keeps_the_contract_passes(case):
    check_engine(case)


@pytest.mark.parametrize(
    ("wrapper", "check", "says"),
    [
        (Reversed, "check_order", "answers differ when the payloads are turned around"),
        (Reversed, "check_answers", "an answer is not the most probable class"),
        (Restless, "check_determinism", "probabilities differ by .* on the second call"),
        (Crowded, "check_batch_independence", "answers differ alone, 0"),
        (AfraidOfNothing, "check_empty_batch", "an empty batch got answers"),
        (Careless, "check_payloads_untouched", "answering changed a payload"),
        (Blaming, "check_bad_payload", "input 0 was blamed instead of 2"),
        (CloseOnce, "check_close_twice", "closed already"),
    ],
)
def test_a_broken_answerer_is_caught(case, wrapper, check, says):
    with pytest.raises(AssertionError, match=says):
        getattr(engine_contract, check)(with_engine(case, Spoiled(wrapper)))


@pytest.mark.parametrize("check", ["check_changed_file", "check_missing_file", "check_escaping_file"])
def test_an_engine_that_checks_no_file_is_caught(case, check):
    engine = Trusting(case.folder / case.model.files[0].path)
    with pytest.raises(AssertionError, match="a missing, changed or escaping file was loaded"):
        getattr(engine_contract, check)(with_engine(case, engine))
