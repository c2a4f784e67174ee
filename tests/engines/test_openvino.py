import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from halve.core import Model, TensorAnswerer
from halve.engines.onnxruntime import OnnxRuntimeEngine
from halve.engines.openvino import OpenVinoEngine, Port, compile_file
from halve.errors import AnswerError, ModelError

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="openvino is not installed: pip install 'halve[openvino]'"
)


def write_quantized(path, *, classes=5, features=16) -> None:
    """Write x -> x W with QuantizeLinear and DequantizeLinear around the product, as quantizers do."""
    rng = np.random.default_rng(0)
    constants = {
        "x_scale": np.float32(0.02),
        "x_zero": np.uint8(120),
        "w": rng.integers(-127, 128, (features, classes)).astype(np.int8),
        "w_scale": rng.uniform(0.005, 0.02, classes).astype(np.float32),
        "w_zero": np.zeros(classes, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xr"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wr"], axis=1),
        helper.make_node("MatMul", ["xr", "wr"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def quantized(tmp_path, model_file):
    write_quantized(tmp_path / "m.onnx")
    return lambda engine: Model(name="m", engine=engine, files=(model_file(tmp_path / "m.onnx"),))


@pytest.fixture
def rows():
    return [*np.random.default_rng(1).uniform(-2, 2, (50, 16)).astype(np.float32)]


@needs_openvino
def test_a_quantized_file_answers_as_onnxruntime_does(quantized, rows, tmp_path):
    ours = OpenVinoEngine().load(quantized("openvino"), threads=1, folder=tmp_path)
    reference = OnnxRuntimeEngine().load(quantized("onnxruntime"), threads=1, folder=tmp_path)
    found, expected = ours.answer(rows), reference.answer(rows)
    assert np.array_equal(found.answers, expected.answers)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
    ours.close()
    reference.close()


@needs_openvino
def test_a_quantized_file_runs_in_integers(tmp_path):
    write_quantized(tmp_path / "m.onnx")
    executed = compile_file(tmp_path / "m.onnx", threads=1, owner="m").get_runtime_model()
    kinds = {
        str(op.get_rt_info()["layerType"].value): str(op.get_rt_info()["runtimePrecision"].value)
        for op in executed.get_ops()
    }
    assert kinds["FullyConnected"] in ("i8", "u8")


@needs_openvino
def test_an_answerer_shows_its_inputs(make_model, folder, images, texts):
    tensor = OpenVinoEngine().load(make_model("openvino", "convolution.onnx"), threads=1, folder=folder)
    assert isinstance(tensor, TensorAnswerer)
    assert list(tensor.inputs(images)) == ["input"]
    model = make_model("openvino", "encoder.onnx", "tokenizer.json", text=True)
    text = OpenVinoEngine().load(model, threads=1, folder=folder)
    assert list(text.inputs(texts)) == ["input_ids", "attention_mask"]
    tensor.close()
    text.close()


@needs_openvino
def test_a_file_that_is_no_onnx_is_refused(make_model, folder):
    (folder / "broken-openvino.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"broken-openvino\.onnx of model 'tiny' cannot be loaded"):
        OpenVinoEngine().load(make_model("openvino", "broken-openvino.onnx"), threads=1, folder=folder)


@needs_openvino
def test_a_failing_input_leaves_no_noise_on_the_terminal(make_model, folder, capfd):
    answerer = OpenVinoEngine().load(make_model("openvino", "convolution.onnx"), threads=1, folder=folder)
    message = r"input must have shape \(any, 1, 8, 8\). Got \(1, 1, 3, 3\)"
    with pytest.raises(AnswerError, match=message):
        answerer.answer([np.zeros((1, 3, 3), np.float32)])
    answerer.close()
    assert capfd.readouterr() == ("", "")


@needs_openvino
def test_nothing_is_sent_and_nothing_is_written(tmp_path):
    write_quantized(tmp_path / "m.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = f"""
import pathlib, sys
import numpy as np
seen = []
def watch(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "subprocess", "os.fork", "os.mkdir")):
        seen.append(event)
    if event == "open" and set(str(arguments[1])) & set("wax+"):
        seen.append(f"{{event}} {{arguments[0]}}")
from halve.engines.openvino import OpenVinoSession, compile_file
sys.addaudithook(watch)
session = OpenVinoSession(compile_file(pathlib.Path({str(tmp_path / "m.onnx")!r}), threads=1, owner="m"))
session.run(["logits"], {{"x": np.ones((2, 16), np.float32)}})
from openvino.tools.ovc.telemetry_utils import tm
print(tm.__name__, seen, any(name.startswith("openvino_telemetry.") for name in sys.modules))
"""
    environment = os.environ | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub [] False"
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize("shape", [(2, 3), (9, 3)])
def test_a_tensor_of_the_ports_shape_fits(shape):
    Port(name="x", shape=(None, 3)).check(shape)
    Port(name="x", shape=()).check(shape)
    with pytest.raises(ValueError, match=r"x must have shape \(any, 4\). Got \(., 3\)"):
        Port(name="x", shape=(None, 4)).check(shape)


@pytest.mark.parametrize("shape", [(2, 4), (2,), (2, 3, 1)])
def test_any_other_tensor_is_refused(shape):
    with pytest.raises(ValueError, match=r"x must have shape \(any, 3\)"):
        Port(name="x", shape=(None, 3)).check(shape)
