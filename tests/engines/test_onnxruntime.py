from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from halve.core import Model, TensorAnswerer
from halve.engines.onnxruntime import OnnxRuntimeEngine
from halve.errors import AnswerError, ModelError


def write_onnx(path: Path, *, outputs=("out",), inputs=("x",), batch="batch") -> None:
    """Every output is the sum of all inputs plus its own number."""
    nodes = [helper.make_node("Sum", list(inputs), ["total"])]
    constants = []
    for number, output in enumerate(outputs):
        constants.append(helper.make_tensor(f"c{number}", TensorProto.FLOAT, [1], [100.0 * number]))
        nodes.append(helper.make_node("Add", ["total", f"c{number}"], [output]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def load(tmp_path, model_file, request):
    def load(**shape):
        write_onnx(tmp_path / "m.onnx", **shape)
        model = Model(name="m", engine="onnxruntime", files=(model_file(tmp_path / "m.onnx"),))
        answerer = OnnxRuntimeEngine().load(model, threads=1, folder=tmp_path)
        request.addfinalizer(answerer.close)
        return answerer

    return load


ROW = np.array([0, 2, 1], np.float32)


def test_a_single_output_of_any_name_is_the_logits(load):
    np.testing.assert_array_equal(load().answer([ROW]).answers, [1])


def test_of_several_outputs_the_one_named_logits_is_taken(load):
    answerer = load(outputs=("hidden", "logits"))
    assert isinstance(answerer, TensorAnswerer)
    np.testing.assert_array_equal(answerer.answer([ROW, ROW[::-1]]).answers, [1, 1])


def test_several_outputs_without_logits_are_refused(load):
    with pytest.raises(ModelError, match=r"hold one named 'logits'. Got \['a', 'b'\]"):
        load(outputs=("a", "b"))


def test_several_inputs_cannot_take_a_tensor_payload(load):
    with pytest.raises(ModelError, match=r"exactly one for tensor payloads. Got \['x', 'y'\]"):
        load(inputs=("x", "y"))


def test_a_batch_axis_of_one_is_served_one_by_one(load):
    assert load(batch=1).answer([ROW, ROW[::-1], ROW[[1, 0, 2]]]).answers.tolist() == [1, 1, 0]


def test_any_other_fixed_batch_axis_is_refused(load):
    with pytest.raises(ModelError, match=r"batch axis of model 'm' must be dynamic or 1. Got 4"):
        load(batch=4)


def test_inputs_are_named_as_the_graph_names_them(load, tmp_path):
    answerer = load()
    assert list(answerer.inputs([ROW])) == ["x"]
    assert answerer.inputs([ROW])["x"].dtype == np.float32
    assert answerer.runtime_model == tmp_path / "m.onnx"


def test_a_file_that_is_no_onnx_is_refused(make_model, folder):
    (folder / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"broken\.onnx of model 'tiny' cannot be loaded"):
        OnnxRuntimeEngine().load(make_model("onnxruntime", "broken.onnx"), threads=1, folder=folder)


def test_text_inputs_follow_the_graph(make_model, folder, texts):
    model = make_model("onnxruntime", "encoder.onnx", "tokenizer.json", text=True)
    answerer = OnnxRuntimeEngine().load(model, threads=1, folder=folder)
    inputs = answerer.inputs(texts)
    assert list(inputs) == ["input_ids", "attention_mask"]
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.int64)}
    answerer.close()


def test_text_cannot_enter_a_model_of_other_inputs(make_model, folder):
    model = make_model("onnxruntime", "convolution.onnx", "tokenizer.json", text=True)
    with pytest.raises(ModelError, match=r"among input_ids, attention_mask, token_type_ids. Got \['input'\]"):
        OnnxRuntimeEngine().load(model, threads=1, folder=folder)


def test_answering_after_closing_says_so(load):
    answerer = load()
    answerer.close()
    with pytest.raises(AnswerError, match="model 'm' is closed"):
        answerer.answer([ROW])


def test_a_failing_input_leaves_no_noise_on_the_terminal(make_model, folder, capfd):
    answerer = OnnxRuntimeEngine().load(make_model("onnxruntime", "convolution.onnx"), threads=1, folder=folder)
    with pytest.raises(AnswerError):
        answerer.answer([np.zeros((1, 3, 3), np.float32)])
    answerer.close()
    assert capfd.readouterr() == ("", "")
