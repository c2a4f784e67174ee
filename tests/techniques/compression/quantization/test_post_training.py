import hashlib
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization import (
    disagreement,
    probe_saturation,
    quantize_dynamic,
    quantize_static,
)
from halve.techniques.compression.quantization.runtime import run_logits


def int8_weights(path):
    return [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and numpy_helper.to_array(tensor).ndim > 1
    ]


def operators(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.fixture
def uniform(dense, rng):
    """A network of dense layers with uniform weights, as nn.Linear starts them, and inputs for it."""
    sizes = [(64, 256), (256, 256), (256, 64)]
    weights = [rng.uniform(-1, 1, size) * np.sqrt(3 / size[0]) for size in sizes]
    return dense(*weights), [{"input": rng.standard_normal((64, 64)).astype(np.float32)} for _ in range(4)]


@pytest.mark.parametrize("weight_bits", [7, 8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_residual_network_keeps_its_answers(exported, images, rng, tmp_path, weight_bits, per_channel):
    fp32, int8 = exported / "residual.onnx", tmp_path / "int8.onnx"
    made = quantize_static(fp32, int8, calibration=images, weight_bits=weight_bits, per_channel=per_channel)
    fresh = [{"input": rng.standard_normal((64, 1, 8, 8)).astype(np.float32)}]
    agreement = disagreement(fp32, int8, fresh)
    assert agreement.n == 64
    assert 0 < agreement.relative_rmse < 0.05
    assert agreement.argmax_disagreement_share <= 0.05
    assert made.agreement == disagreement(fp32, int8, images)
    assert (made.weight_bits, made.per_channel, made.activation_type) == (weight_bits, per_channel, "uint8")
    assert int8.stat().st_size < fp32.stat().st_size * 1.5  # Tiny: scales and zero points weigh as much as weights.


@pytest.mark.parametrize("make", ["static", "dynamic"])
def test_an_encoder_with_masked_tokens_keeps_its_answers(exported, tokens, tmp_path, make):
    fp32, int8 = exported / "encoder.onnx", tmp_path / "int8.onnx"
    if make == "static":
        quantize_static(fp32, int8, calibration=tokens, weight_bits=8)
    else:
        quantize_dynamic(fp32, int8, weight_bits=8)
    agreement = disagreement(fp32, int8, tokens)
    assert 0 < agreement.relative_rmse < 0.1
    assert int8_weights(int8)


def test_logits_are_not_rounded_to_eight_bits(uniform, tmp_path):
    fp32, inputs = uniform
    quantize_static(fp32, tmp_path / "q.onnx", calibration=inputs, weight_bits=8)
    logits = run_logits(tmp_path / "q.onnx", inputs)
    assert len(np.unique(logits)) > 0.9 * logits.size


def test_products_run_in_int8_and_large_models_shrink_four_times(uniform, tmp_path):
    fp32, inputs = uniform
    quantize_static(fp32, tmp_path / "static.onnx", calibration=inputs, weight_bits=8)
    quantize_dynamic(fp32, tmp_path / "dynamic.onnx", weight_bits=8)
    for name in ("static.onnx", "dynamic.onnx"):
        assert (tmp_path / name).stat().st_size < 0.3 * fp32.stat().st_size
    assert operators(tmp_path / "static.onnx")["QuantizeLinear"] > 0
    assert operators(tmp_path / "dynamic.onnx")["MatMulInteger"] == 3


@pytest.mark.parametrize(("weight_bits", "static", "dynamic"), [(7, 63, 64), (8, 127, 127)])
def test_weights_fill_exactly_their_bits(uniform, tmp_path, weight_bits, static, dynamic):
    fp32, inputs = uniform
    quantize_static(fp32, tmp_path / "static.onnx", calibration=inputs, weight_bits=weight_bits)
    quantize_dynamic(fp32, tmp_path / "dynamic.onnx", weight_bits=weight_bits)
    for name, largest in (("static.onnx", static), ("dynamic.onnx", dynamic)):
        weights = int8_weights(tmp_path / name)
        assert len(weights) == 3
        assert {int(np.abs(weight.astype(int)).max()) for weight in weights} == {largest}


def test_eight_bit_weights_answer_wrongly_where_products_saturate(uniform, tmp_path):
    """Uniform weights and 8 bits saturate on AVX2 without VNNI; elsewhere 8 bits are at least as good as 7."""
    fp32, inputs = uniform
    errors = {}
    for bits in (7, 8):
        quantize_static(fp32, tmp_path / f"{bits}.onnx", calibration=inputs, weight_bits=bits, per_channel=True)
        errors[bits] = disagreement(fp32, tmp_path / f"{bits}.onnx", inputs).relative_rmse
    assert errors[7] < 0.03
    if probe_saturation().saturates:
        assert errors[8] > 2 * errors[7]
    else:
        assert errors[8] < errors[7]


def test_one_scale_per_channel_saves_channels_of_unlike_size(dense, rng, tmp_path):
    weights = rng.standard_normal((32, 16)) * np.logspace(-3, 0, 16)
    fp32, inputs = dense(weights), [{"input": rng.standard_normal((64, 32)).astype(np.float32)}]
    errors = []
    for per_channel in (False, True):
        int8 = tmp_path / f"{per_channel}.onnx"
        quantize_static(fp32, int8, calibration=inputs, weight_bits=7, per_channel=per_channel)
        small = (run_logits(int8, inputs) - run_logits(fp32, inputs))[:, 0]
        errors.append(float(np.abs(small).max() / np.abs(run_logits(fp32, inputs)[:, 0]).max()))
    assert errors[1] < 0.1
    assert errors[0] > 5 * errors[1]


@pytest.mark.parametrize("per_channel", [False, True])
def test_channels_of_zeros_and_constants_stay_so(dense, rng, tmp_path, per_channel):
    weights = rng.standard_normal((16, 6))
    weights[:, 1], weights[:, 4] = 0, 0.25
    inputs = rng.standard_normal((32, 16)).astype(np.float32)
    inputs[:, 3] = 7
    batches = [{"input": inputs}]
    fp32, static, dynamic = dense(weights), tmp_path / "static.onnx", tmp_path / "dynamic.onnx"
    quantize_static(fp32, static, calibration=batches, weight_bits=8, per_channel=per_channel)
    quantize_dynamic(fp32, dynamic, weight_bits=8, per_channel=per_channel)
    for path in (static, dynamic):
        logits = run_logits(path, batches)
        assert np.all(logits[:, 1] == 0)
        assert disagreement(fp32, path, batches).relative_rmse < 0.05


def test_calibration_of_zeros_gives_a_model_that_runs(dense, rng, tmp_path):
    fp32 = dense(rng.standard_normal((8, 8)), rng.standard_normal((8, 3)))
    zeros = [{"input": np.zeros((4, 8), np.float32)}]
    made = quantize_static(fp32, tmp_path / "int8.onnx", calibration=zeros, weight_bits=8)
    assert made.agreement.relative_rmse == 0
    assert np.all(run_logits(tmp_path / "int8.onnx", zeros) == 0)


def test_measured_activations_choose_the_smaller_error_with_a_bonus_for_uint8(uniform, tmp_path):
    fp32, inputs = uniform
    errors = {
        kind: quantize_static(
            fp32, tmp_path / f"{kind}.onnx", calibration=inputs, weight_bits=7, activation_type=kind
        ).agreement.relative_rmse
        for kind in ("uint8", "int8")
    }
    made = quantize_static(
        fp32, tmp_path / "measured.onnx", calibration=inputs, weight_bits=7, activation_type="measured"
    )
    assert made.activation_type == ("int8" if errors["int8"] < 0.8 * errors["uint8"] else "uint8")
    same = (tmp_path / f"{made.activation_type}.onnx").read_bytes()
    assert (tmp_path / "measured.onnx").read_bytes() == same


def test_ten_runs_give_the_same_bytes(exported, images, tmp_path):
    def digest(number):
        path = tmp_path / f"{number}.onnx"
        quantize_static(exported / "residual.onnx", path, calibration=images, weight_bits=7)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert len({digest(number) for number in range(10)}) == 1


def test_ten_dynamic_runs_give_the_same_bytes(exported, tmp_path):
    def digest(number):
        path = tmp_path / f"{number}.onnx"
        quantize_dynamic(exported / "encoder.onnx", path, weight_bits=8)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert len({digest(number) for number in range(10)}) == 1


def test_nothing_is_printed_logged_or_left_behind(exported, images, tmp_path, capfd, caplog):
    quantize_static(exported / "residual.onnx", tmp_path / "s.onnx", calibration=images, weight_bits=8)
    quantize_dynamic(exported / "encoder.onnx", tmp_path / "d.onnx", weight_bits=8)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.onnx", "s.onnx"]
    for path in tmp_path.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
        assert b"halve-" not in path.read_bytes()


def test_dynamic_never_touches_convolutions(exported, tmp_path):
    quantize_dynamic(exported / "residual.onnx", tmp_path / "d.onnx", weight_bits=8)
    found = operators(tmp_path / "d.onnx")
    assert found["Conv"] == operators(exported / "residual.onnx")["Conv"] > 0
    assert "ConvInteger" not in found


@pytest.mark.parametrize("bits", [4, 6, 9, 16])
def test_weight_bits_are_seven_or_eight(exported, images, tmp_path, bits):
    with pytest.raises(InvalidParameterError, match=rf"weight_bits must be 7 or 8. Got {bits}"):
        quantize_static(exported / "residual.onnx", tmp_path / "q.onnx", calibration=images, weight_bits=bits)
    with pytest.raises(InvalidParameterError, match=rf"weight_bits must be 7 or 8. Got {bits}"):
        quantize_dynamic(exported / "encoder.onnx", tmp_path / "q.onnx", weight_bits=bits)


@pytest.mark.parametrize(
    ("calibration", "problem"),
    [
        ([], r"calibration must be at least one batch. Got 0"),
        ([{"input": np.zeros((0, 8), np.float32)}], r"calibration\[0\]\['input'\] must be at least one row. Got 0"),
        (
            [{"image": np.zeros((1, 8), np.float32)}],
            r"calibration\[0\] must be tensors named \['input'\]. Got",
        ),
        ([{"input": np.full((1, 8), np.nan, np.float32)}], r"calibration\[0\]\['input'\] must be finite. Got 'NaN or"),
        ([{"input": np.full((1, 8), -np.inf, np.float32)}], r"calibration\[0\]\['input'\] must be finite. Got 'NaN or"),
    ],
)
def test_calibration_that_says_nothing_is_refused(dense, rng, tmp_path, calibration, problem):
    fp32 = dense(rng.standard_normal((8, 3)))
    with pytest.raises(InvalidParameterError, match=problem):
        quantize_static(fp32, tmp_path / "q.onnx", calibration=calibration, weight_bits=8)
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(dense, rng, tmp_path, bad):
    weights = rng.standard_normal((8, 3))
    weights[2, 1] = bad
    fp32 = dense(weights)
    inputs = [{"input": np.ones((2, 8), np.float32)}]
    with pytest.raises(ModelError, match=r"weight 'w0' of dense\.onnx must be finite. Got NaN or infinity"):
        quantize_static(fp32, tmp_path / "q.onnx", calibration=inputs, weight_bits=8)
    with pytest.raises(ModelError, match=r"weight 'w0' of dense\.onnx must be finite. Got NaN or infinity"):
        quantize_dynamic(fp32, tmp_path / "q.onnx", weight_bits=8)


def test_logits_that_overflow_are_refused(dense, tmp_path):
    fp32 = dense(np.full((8, 8), 1e30), np.full((8, 3), 1e30))
    inputs = [{"input": np.ones((2, 8), np.float32)}]
    with pytest.raises(ModelError, match=r"logits of dense\.onnx on the calibration inputs must be finite"):
        quantize_static(fp32, tmp_path / "q.onnx", calibration=inputs, weight_bits=8)


def test_files_that_are_no_models_are_refused(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    for name in ("broken.onnx", "absent.onnx"):
        with pytest.raises(ModelError, match=f"{name} is not a readable ONNX file"):
            quantize_dynamic(tmp_path / name, tmp_path / "q.onnx", weight_bits=8)


def test_calibration_of_a_wrong_shape_is_refused(dense, rng, tmp_path):
    fp32 = dense(rng.standard_normal((8, 3)))
    with pytest.raises(InvalidParameterError, match=r"must be of shape \('batch', 8\). Got \(2, 5\)"):
        quantize_static(fp32, tmp_path / "q.onnx", calibration=[{"input": np.zeros((2, 5), np.float32)}], weight_bits=8)


def test_models_do_not_compare_on_nothing(exported):
    with pytest.raises(InvalidParameterError, match=r"inputs must be at least one batch. Got 0"):
        disagreement(exported / "residual.onnx", exported / "residual.onnx", [])
