import re

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization import Hardware, detect_hardware, probe_saturation, weight_bits_for
from halve.techniques.compression.quantization.crossover import LayerTiming, TimingPoint
from halve.techniques.compression.quantization.hardware import (
    Probe,
    Saturation,
    gather_probe,
    parse_cpuinfo,
    worst_case_matmul,
)

INT16_MAX = 2**15 - 1

PROCESSORS = [
    ("x86", "flags\t\t: fpu sse2 avx2 sha_ni", "x86-avx2", 7),
    ("x86", "flags\t\t: fpu avx2 avx512f avx512bw", "x86-avx512", 7),
    ("x86", "flags\t\t: avx2 avx512f avx512_vnni amx_int8 amx_tile", "x86-amx", 8),
    ("x86", "flags\t\t: avx2 avx512f avx512_vnni", "x86-avx512-vnni", 8),
    ("x86", "flags\t\t: avx2 avx_vnni", "x86-avx-vnni", 8),
    ("x86", "flags\t\t: fpu sse2", "x86", 7),
    ("x86", "model name : no flags here", "x86", 7),
    ("arm64", "Features\t: fp asimd asimddp i8mm", "arm64-i8mm", 8),
    ("arm64", "Features\t: fp asimd asimddp", "arm64-dotprod", 8),
    ("arm64", "Features\t: fp asimd", "arm64", 8),
    ("riscv64", "isa\t\t: rv64imafdc", "riscv64", 8),
]


@pytest.mark.parametrize(("architecture", "text", "hardware_class", "bits"), PROCESSORS)
def test_processors_are_told_apart(architecture, text, hardware_class, bits):
    hardware = parse_cpuinfo(text, architecture=architecture)
    assert hardware.hardware_class == hardware_class
    assert weight_bits_for(hardware).bits == bits
    assert weight_bits_for(hardware).reason.startswith(hardware_class)


def test_where_cores_differ_only_what_all_have_counts():
    text = "flags : avx2 avx_vnni avx512f\n\nflags : avx2 avx_vnni\n"
    assert parse_cpuinfo(text, architecture="x86").instruction_sets == ("avx2", "avx_vnni")


def test_a_longer_name_is_not_a_shorter_one():
    assert parse_cpuinfo("flags : avx2x avx512_vnnix", architecture="x86").instruction_sets == ()


def test_the_reason_names_the_missing_instructions():
    bits, reason = weight_bits_for(Hardware(architecture="x86", instruction_sets=("avx2",)))
    assert bits == 7
    assert "no VNNI" in reason
    assert "does not tell" in weight_bits_for(Hardware(architecture="x86", instruction_sets=())).reason


def test_a_system_without_cpuinfo_still_answers(tmp_path):
    hardware = detect_hardware(cpuinfo=tmp_path / "absent")
    assert hardware.instruction_sets == ()
    assert hardware.architecture == detect_hardware().architecture


@given(
    activations=st.tuples(*[st.integers(0, 255)] * 2),
    weights=st.tuples(*[st.integers(-64, 64)] * 2),
)
def test_seven_bit_weights_never_saturate_a_pair_of_products(activations, weights):
    assert abs(np.dot(activations, weights)) <= INT16_MAX


def test_eight_bit_weights_can():
    assert INT16_MAX < 2 * 255 * 127


def test_this_host_keeps_the_rule():
    """The rule from the instruction sets agrees with what onnxruntime's kernels do here."""
    bits = weight_bits_for(detect_hardware()).bits
    assert not probe_saturation(weight_bits=bits).saturates
    if detect_hardware().has_int8_dot_product:
        assert not probe_saturation(weight_bits=8).saturates


def test_the_probe_runs_an_integer_kernel(tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    model = worst_case_matmul(depth=64, weight=127)
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    import onnx

    operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert operators & {"MatMulIntegerToFloat", "QLinearMatMul", "MatMulInteger"}
    assert "MatMul" not in operators


def probe(*, saturates):
    """A host that promises VNNI, and what its products gave."""
    return Probe(
        hardware=Hardware(architecture="x86", instruction_sets=("avx2", "avx512_vnni")),
        saturation=Saturation(saturates=saturates, relative_error=0.494 if saturates else 0.0),
    )


def timing(ratio):
    """INT8 takes `ratio` times as long as 100 us in fp32, give or take 2 %."""
    point = TimingPoint(
        rows=1, fp32_seconds=1e-4, int8_seconds=ratio * 1e-4, ratio_low=0.98 * ratio, ratio_high=1.02 * ratio
    )
    return LayerTiming(points=(point,))


def test_the_probe_outweighs_what_the_system_promises():
    assert weight_bits_for(probe(saturates=True).hardware).bits == 8
    bits, reason = probe(saturates=True).weight_bits
    assert bits == 7
    assert "the worst case is 49% off" in reason
    assert probe(saturates=False).weight_bits.bits == 8


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize(("ratio", "starts"), [(0.5, "faster in INT8"), (1.0, "as fast"), (1.5, "slower in INT8")])
def test_a_layer_gets_integers_unless_they_are_slower(ratio, starts, saturates):
    bits, reason = probe(saturates=saturates).decide(timing(ratio))
    assert bits == (32 if ratio > 1 else 7 if saturates else 8)
    assert reason.startswith(starts)
    assert re.search(rf"{100 * ratio:.0f} us in INT8, 100 us in fp32", reason)


def test_the_gathered_probe_never_contradicts_itself():
    found = gather_probe()
    assert found.saturation == probe_saturation(weight_bits=8)
    assert not (found.saturation.saturates and found.hardware.has_int8_dot_product)
    assert not probe_saturation(weight_bits=found.weight_bits.bits).saturates


def test_only_seven_and_eight_bits_are_probed():
    with pytest.raises(InvalidParameterError, match=r"weight_bits must be 7 or 8\. Got 4"):
        probe_saturation(weight_bits=4)
