import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import Example
from halve.core.hashing import payload_hash
from halve.errors import WorkloadError
from halve.workload import read_columns, training_from, training_set, without_examples

TEXTS = ["up", "down", "left", "right"]
NAMES = ("no", "yes")


def test_nothing_needs_to_be_labelled():
    for references in (None, [None] * 4, [""] * 4, [-1] * 4, np.full(4, -1)):
        training = training_set(TEXTS, references)
        assert training.references.tolist() == [-1] * 4
        assert training.references.dtype == np.int64
        assert len(training) == 4
        assert training.left_out == 0


@pytest.mark.parametrize(
    ("references", "labels", "expected"),
    [
        ([0, None, -1, 7], (), [0, -1, -1, 7]),
        (np.array([2, -1, 0, 1], np.int32), (), [2, -1, 0, 1]),
        (["yes", "", None, "no"], NAMES, [1, -1, -1, 0]),
        ([1, None, "no", -1], NAMES, [1, -1, 0, -1]),
        (["1", "", "0", "-1"], (), [1, -1, 0, -1]),  # as a CSV column with gaps is read
        (np.array(["yes", "no", "", "yes"]), NAMES, [1, 0, -1, 1]),
        (["3", "", "2", "3"], ("3", "2"), [0, -1, 1, 0]),  # names that are digits are names
    ],
)
def test_some_may_be_labelled_by_class_index_or_name(references, labels, expected):
    training = training_set(TEXTS, references, labels=labels)
    assert training.references.tolist() == expected
    assert training.sha256 == payload_hash(TEXTS)


@given(st.lists(st.one_of(st.none(), st.integers(-1, 5)), min_size=1, max_size=20))
def test_class_indices_come_through_and_all_else_is_no_label(references):
    training = training_set([f"text {number}" for number in range(len(references))], references)
    assert training.references.tolist() == [-1 if value is None else value for value in references]


def test_tensors_become_float32_of_one_shape():
    training = training_set([[1, 2], [3.5, 4]], [0, 1])
    assert [payload.dtype for payload in training.payloads] == [np.float32, np.float32]
    assert training.sha256 == payload_hash([np.array([1, 2], np.float32), np.array([3.5, 4], np.float32)])


@pytest.mark.parametrize(
    ("payloads", "references", "labels", "sentence"),
    [
        ([], None, (), r"the training data must hold at least 1 row\. Got 0\."),
        (TEXTS, [0], (), r"must hold one reference per payload\. Got 4 and 1\."),
        (TEXTS, [0, 1, 2.5, 1], (), r"reference of row 3 of the training data must be a class index, .*Got 2\.5\."),
        (TEXTS, [0, True, 1, 1], (), r"row 2 .*Got True\."),
        (TEXTS, [0, 1, 1, -2], (), r"row 4 .*Got -2\."),
        (TEXTS, [0, "yes", 1, 1], (), r"row 2 .*Got 'yes'\."),
        (TEXTS, ["yes", None, "", "maybe"], NAMES, r"row 4 must be one of the labels\. Got 'maybe'\."),
        (TEXTS, ["yes", "no", "yse", "no"], NAMES, r"row 3 must be .*Did you mean 'yes'\?"),
        (TEXTS, [0, 1, 2, 1], NAMES, r"row 3 must be a class index below 2, the number of labels\. Got 2\."),
        ([[1.0], [float("nan")]], None, (), r"payload of row 2 of the training data must be finite"),
        ([[1.0], [1.0, 2.0]], None, (), r"payload of row 2 .* must be a tensor of shape \(1,\), like row 1"),
    ],
)
def test_what_is_no_training_data_is_named_by_its_row(payloads, references, labels, sentence):
    with pytest.raises(WorkloadError, match=sentence):
        training_set(payloads, references, labels=labels)


def test_a_csv_with_gaps_in_its_labels_is_partly_labelled(tmp_path):
    (tmp_path / "log.csv").write_text("text,class\nup,1\ndown,\nleft,0\n")
    payloads, references = read_columns(tmp_path / "log.csv", payload="text", reference="class")
    assert training_set(payloads, references).references.tolist() == [1, -1, 0]
    payloads, references = read_columns(tmp_path / "log.csv", payload="text", reference=None)
    assert training_set(payloads, references).references.tolist() == [-1, -1, -1]


def test_a_function_gives_payloads_or_payloads_with_references():
    assert training_from(TEXTS).references.tolist() == [-1] * 4
    assert training_from((TEXTS, [0, 1, None, 1])).references.tolist() == [0, 1, -1, 1]
    assert training_from((TEXTS, ["yes", "no", "", "yes"]), labels=NAMES).references.tolist() == [1, 0, -1, 1]
    assert training_from(("one", "two")).payloads == ["one", "two"], "a pair of texts is two payloads"
    assert len(training_from(np.zeros((5, 2), np.float32))) == 5
    assert len(training_from(text for text in TEXTS)) == 4


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "payloads of the training function must be a sequence. Got NoneType"),
        ("a text", "payloads of the training function must be a sequence. Got str"),
        ((TEXTS, "abcd"), "references of the training function must be a sequence. Got str"),
        ((TEXTS, 7), "references of the training function must be a sequence. Got int"),
        ([], r"the training function must hold at least 1 row\. Got 0"),
    ],
)
def test_what_a_function_must_not_give(value, sentence):
    with pytest.raises(WorkloadError, match=sentence):
        training_from(value)


def test_payloads_that_are_examples_are_left_out_with_their_references():
    training = training_set(TEXTS, [0, 1, None, 1])
    kept = without_examples(training, [Example(payload="down", reference=0), Example(payload="far", reference=0)])
    assert kept.payloads == ["up", "left", "right"]
    assert kept.references.tolist() == [0, -1, 1]
    assert (kept.left_out, kept.sha256) == (1, payload_hash(["up", "left", "right"]))
    assert without_examples(training, []).sha256 == training.sha256


def test_all_payloads_being_examples_is_an_error():
    examples = [Example(payload=text, reference=0) for text in TEXTS]
    with pytest.raises(WorkloadError, match=r"a payload that is no example\. All 4 of them are examples too\."):
        without_examples(training_set(TEXTS), examples)


numbers = st.lists(st.integers(-2, 2), min_size=1, max_size=12)


@given(numbers, numbers)
def test_no_example_is_ever_trained_on(trained, examples):
    """Payloads are compared by content: -0.0 is 0.0, and a repeated example is left out each time."""
    training = training_set([[float(number) * (-0.0 if number == 0 else 1.0)] for number in trained])
    known = [Example(payload=np.array([number], np.float32), reference=0) for number in examples]
    if set(trained) <= set(examples):
        with pytest.raises(WorkloadError, match="no example"):
            without_examples(training, known)
        return
    kept = without_examples(training, known)
    assert [float(payload[0]) for payload in kept.payloads] == [n for n in trained if n not in set(examples)]
    assert kept.left_out + len(kept) == len(training)
