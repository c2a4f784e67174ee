import numpy as np
import onnx
import pytest

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.agreement import relative_rmse
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.runtime import run_logits
from halve.techniques.compression.quantization.weight_only import quantize_weight_only


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "group_size"), [(64, 32), (40, 16), (33, 16), (48, 64)])
def test_the_kernel_multiplies_with_the_weights_that_were_packed(dense, rng, bits, inputs, group_size):
    """The identity shows the weights that the runtime unpacks; a last group may be short, their number odd."""
    graph = Graph.load(dense(rng.standard_normal((inputs, 24))))
    made = quantize_weight_only(graph, bits=bits, group_size=group_size)
    (rounded,) = made.layers.values()
    unpacked = run_logits(made.content, [{"input": np.eye(inputs, dtype=np.float32)}])
    np.testing.assert_allclose(unpacked, rounded.real().T, atol=1e-5)
    assert np.abs(unpacked - graph.constant("w0")).max() <= rounded.grid.scale.max()


def test_a_gemm_keeps_its_bias(rng):
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    dense (float[n, 32] input) => (float[n, 8] logits) <float[8, 32] weight, float[8] bias> {
        logits = Gemm <transB = 1> (input, weight, bias)
    }
    """
    model = onnx.parser.parse_model(text)
    for name, shape in (("weight", (8, 32)), ("bias", (8,))):
        value = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    graph, inputs = Graph.load(model.SerializeToString()), [{"input": rng.standard_normal((16, 32)).astype(np.float32)}]
    made = quantize_weight_only(graph, bits=8, group_size=32)
    expected = run_logits(graph.to_bytes(), inputs)
    assert relative_rmse(expected, run_logits(made.content, inputs)) < 0.01


def test_gptq_errs_less_than_nearest_on_correlated_inputs(dense, rng):
    graph = Graph.load(dense(rng.standard_normal((64, 48))))
    mixing = rng.standard_normal((8, 64))
    batches = [{"input": (rng.standard_normal((64, 8)) @ mixing).astype(np.float32)} for _ in range(4)]
    expected = run_logits(graph.to_bytes(), batches)
    errors = {
        method: relative_rmse(
            expected, run_logits(quantize_weight_only(graph, method=method, batches=batches).content, batches)
        )
        for method in ("nearest", "gptq")
    }
    assert errors["gptq"] < 0.6 * errors["nearest"]


def test_four_bits_take_an_eighth_and_eight_a_quarter(dense, rng):
    graph = Graph.load(dense(rng.standard_normal((512, 512))))
    whole = len(graph.to_bytes())
    for bits, share in ((4, (4 + 36 / 32) / 32), (8, (8 + 40 / 32) / 32)):
        assert len(quantize_weight_only(graph, bits=bits).content) == pytest.approx(share * whole, rel=0.02)


def test_the_accuracy_level_is_the_kernel_s(dense, rng):
    graph = Graph.load(dense(rng.standard_normal((64, 16))))
    for level in (0, 4):
        model = onnx.load_from_string(quantize_weight_only(graph, accuracy_level=level).content)
        (node,) = (node for node in model.graph.node if node.op_type == "MatMulNBits")
        assert {a.name: a.i for a in node.attribute}["accuracy_level"] == level


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"bits": 5}, r"bits must be 4 or 8\. Got 5"),
        ({"group_size": 48}, r"group_size must be one of \(16, 32, 64, 128, 256\)\. Got 48"),
        ({"method": "adaround"}, r"method must be nearest or gptq\. Got 'adaround'"),
        ({"method": "gptq"}, r"batches must be at least one for gptq\. Got 0"),
        ({"accuracy_level": 2}, r"accuracy_level must be 0 or 4\. Got 2"),
    ],
)
def test_numbers_that_break_their_rule_are_named(dense, rng, given, sentence):
    graph = Graph.load(dense(rng.standard_normal((32, 4))))
    with pytest.raises(InvalidParameterError, match=sentence):
        quantize_weight_only(graph, **given)


def test_convolutions_alone_have_no_kernel(rng):
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    conv (float[n, 2, 5, 5] input) => (float[n, 3, 5, 5] logits) <float[3, 2, 1, 1] weight> {
        logits = Conv (input, weight)
    }
    """
    model = onnx.parser.parse_model(text)
    value = rng.standard_normal((3, 2, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(value, "weight"))
    with pytest.raises(ModelError, match="must hold Gemm or MatMul with constant weights"):
        quantize_weight_only(Graph.load(model.SerializeToString()))
