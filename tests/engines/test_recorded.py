import numpy as np
import pytest

from halve.core import Model, Outcomes, TensorAnswerer
from halve.engines.recorded import RecordedEngine, payload_key, save_recorded
from halve.errors import AnswerError, InvalidParameterError, ModelError


@pytest.fixture
def record(tmp_path, model_file):
    def record(answers, payloads, *, save=save_recorded, **columns):
        n = len(answers)
        outcomes = Outcomes(
            model="api",
            answers=np.asarray(answers) if isinstance(answers[0], int) else np.asarray(answers, object),
            scores=np.ones(n),
            compute_seconds=np.arange(n, dtype=float),
            **columns,
        )
        path = tmp_path / "answers.parquet"
        save(outcomes, path, payloads=payloads) if save else outcomes.save(path)
        model = Model(name="api", engine="recorded", files=(model_file(path),))
        return RecordedEngine().load(model, threads=1, folder=tmp_path)

    return record


def test_texts_answer_texts_in_the_order_asked(record):
    answerer = record(["yes", "no", "maybe"], ["a", "b", "c"])
    prediction = answerer.answer(["c", "a", "c"])
    assert prediction.answers.tolist() == ["maybe", "yes", "maybe"]
    assert prediction.probabilities is None
    assert not isinstance(answerer, TensorAnswerer)


def test_recorded_seconds_come_with_the_answers(record):
    assert record([4, 5, 6], ["a", "b", "c"]).compute_seconds(["c", "b"]).tolist() == [2.0, 1.0]


def test_probabilities_are_those_recorded(record):
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    answerer = record([0, 1], ["a", "b"], probabilities=probabilities)
    np.testing.assert_array_equal(answerer.answer(["b", "a"]).probabilities, probabilities[::-1])


def test_the_first_of_several_recordings_of_a_payload_stands(record):
    assert record([3, 4, 5], ["a", "b", "a"]).answer(["a"]).answers.tolist() == [3]


def test_a_payload_that_was_never_recorded_is_named(record):
    with pytest.raises(AnswerError, match="model 'api' failed on input 1: no answer to this payload was recorded"):
        record([1, 2], ["a", "b"]).answer(["a", "c"])


def test_every_row_needs_its_payload(record):
    with pytest.raises(InvalidParameterError, match=r"payloads must be one per row, 2. Got 1"):
        record([1, 2], ["a"])


def test_outcomes_without_payload_keys_are_refused(record):
    with pytest.raises(ModelError, match=r"answers\.parquet of model 'api' must have a column payload_sha256"):
        record([1, 2], ["a", "b"], save=None)


def test_a_file_that_is_no_table_is_refused(make_model, folder):
    (folder / "broken.parquet").write_bytes(b"not a table")
    with pytest.raises(ModelError, match=r"model 'tiny' cannot be loaded: .*not a readable outcomes table"):
        RecordedEngine().load(make_model("recorded", "broken.parquet"), threads=1, folder=folder)


def test_payload_keys_tell_kind_shape_and_content_apart():
    flat = np.arange(6, dtype=np.float32)
    payloads = ["a", "b", "", flat, flat.reshape(2, 3), flat.reshape(3, 2), flat + 1, np.float32(0)]
    keys = [payload_key(payload) for payload in payloads]
    assert len(set(keys)) == len(payloads)
    assert payload_key(flat.reshape(2, 3).astype(np.float64)) == keys[4]
    assert payload_key(np.asfortranarray(flat.reshape(2, 3))) == keys[4]
