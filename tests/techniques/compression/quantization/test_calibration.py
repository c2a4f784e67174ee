import numpy as np
import pytest

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.calibration import fitted, observe, record
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.observers import MinMax

TEXT = (
    "g (float[{batch}, 3] x, int64[{batch}] k) => (float[{batch}, 3] y) {{ a = Mul (x, two) b = Relu (a) y = Neg (b) }}"
)
TWO = {"two": np.array(2, np.float32)}


@pytest.fixture
def content(onnx_model):
    return lambda batch="N": onnx_model(TEXT.format(batch=batch), **TWO)


def batch(rows, *, start=0):
    x = np.arange(start, start + 3 * rows, dtype=np.float32).reshape(rows, 3)
    return {"x": x, "k": np.arange(rows)}


def test_inner_tensors_inputs_and_outputs_are_recorded_batch_by_batch(content):
    batches = [batch(2), batch(1, start=-6)]
    recorded = list(record(Graph.load(content()), batches, ["b", "x", "y"]))
    for given, values in zip(batches, recorded, strict=True):
        assert np.array_equal(values["x"], given["x"])
        assert np.array_equal(values["b"], np.maximum(2 * given["x"], 0))
        assert np.array_equal(values["y"], -values["b"])


def test_inputs_alone_need_no_run(content):
    (values,) = record(Graph.load(content()), [batch(2)], ["x"])
    assert list(values) == ["x"]


def test_batches_are_run_one_at_a_time(content):
    recorded = record(Graph.load(content()), [batch(2), batch(1)], ["a"])
    assert len(next(recorded)["a"]) == 2
    assert len(next(recorded)["a"]) == 1


@pytest.mark.parametrize(
    ("rows", "firsts"),
    [(4, [[0, 1], [2, 3]]), (5, [[0, 1], [2, 3], [3, 4]]), (1, [[0, 0]]), (2, [[0, 1]]), (3, [[0, 1], [1, 2]])],
)
def test_a_fixed_batch_axis_gets_pieces_of_its_size(content, rows, firsts):
    pieces = fitted(content(2), [batch(rows)])
    assert [piece["k"].tolist() for piece in pieces] == firsts
    assert all(np.array_equal(piece["x"][:, 0], 3 * piece["k"]) for piece in pieces)
    recorded = list(record(Graph.load(content(2)), [batch(rows)], ["a"]))
    assert [values["a"].shape for values in recorded] == [(2, 3)] * len(firsts)


def test_a_free_batch_axis_keeps_the_batches(content):
    batches = [batch(5)]
    assert fitted(content(), batches) is batches


def test_ranges_are_those_of_all_batches(content):
    ranges = observe(Graph.load(content()), [batch(2), batch(1, start=-6)], ["a", "b"], MinMax)
    assert ranges == {"a": (-12.0, 10.0), "b": (0.0, 10.0)}
    assert observe(Graph.load(content()), [batch(2)], [], MinMax) == {}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"x": np.zeros((0, 3), np.float32)}, r"calibration\[1\]\['x'\] must be at least one row. Got 0"),
        ({"z": np.zeros(1)}, r"calibration\[1\] must be tensors named \['k', 'x'\]. Got \['k', 'x', 'z'\]"),
        ({"x": np.zeros((2, 4), np.float32)}, r"calibration\[1\]\['x'\] must be of shape \('N', 3\). Got \(2, 4\)"),
        ({"x": np.zeros(3, np.float32)}, r"calibration\[1\]\['x'\] must be of shape \('N', 3\). Got \(3,\)"),
        ({"x": np.zeros((2, 3))}, r"calibration\[1\]\['x'\] must be of type float32. Got 'float64'"),
        ({"x": np.full((2, 3), np.nan, np.float32)}, r"calibration\[1\]\['x'\] must be finite. Got 'NaN or infinity'"),
        ({"k": np.arange(3)}, r"calibration\[1\] must be of as many rows in every input. Got {'x': 2, 'k': 3}"),
    ],
)
def test_batches_that_say_nothing_are_refused(content, change, problem):
    with pytest.raises(InvalidParameterError, match=problem):
        list(record(Graph.load(content()), [batch(2), {**batch(2), **change}], ["a"]))


def test_no_batches_are_refused(content):
    with pytest.raises(InvalidParameterError, match=r"calibration must be at least one batch. Got 0"):
        observe(Graph.load(content()), [], ["a"], MinMax)


def test_names_that_are_no_tensors_are_refused(content):
    with pytest.raises(InvalidParameterError, match=r"tensors must be names of tensors that .* computes. Got 'zzz'"):
        list(record(Graph.load(content()), [batch(2)], ["zzz"]))


def test_a_tensor_that_overflows_is_named(content):
    huge = {**batch(2), "x": np.full((2, 3), 3e38, np.float32)}
    with pytest.raises(ModelError, match=r"tensor 'a' must be finite on the calibration inputs. Got .* in batch 1"):
        observe(Graph.load(content()), [batch(2), huge], ["a"], MinMax)


def test_only_numbers_with_fractions_have_ranges(content):
    with pytest.raises(InvalidParameterError, match=r"tensor 'k' must be of a float type. Got 'int64'"):
        observe(Graph.load(content()), [batch(2)], ["k"], MinMax)


def test_a_model_that_fails_as_it_runs_is_refused(onnx_model):
    text = "g (float[N, M] x) => (float[N, 4] y) { a = Relu (x) y = MatMul (a, w) }"
    graph = Graph.load(onnx_model(text, w=np.ones((3, 4), np.float32)))
    with pytest.raises(ModelError, match="onnxruntime cannot run the model"):
        list(record(graph, [{"x": np.ones((2, 5), np.float32)}], ["y"]))
