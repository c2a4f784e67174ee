"""What this processor does with 8-bit numbers: which instructions it has, and whether its products saturate.

Without VNNI, x86 multiplies u8 by s8 with VPMADDUBSW, which adds two products into a signed 16-bit number
and saturates: 2 * 255 * 127 = 64,770 > 32,767. With 7-bit weights, |w| <= 64, the largest sum is
2 * 255 * 64 = 32,640 and nothing is lost. Source: Intel Software Developer's Manual, VPMADDUBSW;
ONNX Runtime, "Quantize ONNX models", section on reduce_range.
"""

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from halve.errors import MissingExtraError
from halve.techniques.compression.quantization.runtime import open_session

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""Those that decide how 8-bit products are computed, as Linux spells them."""

HARDWARE_CLASSES = (
    ("avx512_vnni", "x86-avx512-vnni"),
    ("avx_vnni", "x86-avx-vnni"),
    ("avx512f", "x86-avx512"),
    ("avx2", "x86-avx2"),
)
"""First match wins."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A processor.

    Args:
        architecture: `x86`, `arm64`, or as the system calls it.
        instruction_sets: Those of INSTRUCTION_SETS that every core has; empty if the system does not tell.
    """

    architecture: str
    instruction_sets: tuple[str, ...]

    @property
    def hardware_class(self) -> str:
        """Hosts of one class give an INT8 model the same answers: `x86-avx2`, `x86-avx512-vnni`, `arm64`, ..."""
        for instruction_set, name in HARDWARE_CLASSES:
            if instruction_set in self.instruction_sets:
                return name
        return self.architecture

    @property
    def has_int8_dot_product(self) -> bool:
        """Whether four 8-bit products are added straight into 32 bits, without a 16-bit step between."""
        return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"} & set(self.instruction_sets))


class WeightBits(NamedTuple):
    """How many bits to give to weights, and why."""

    bits: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """What the runtime's u8 x s8 product gave on the worst case.

    Args:
        saturates: Whether it differs from the exact product by more than one step of the weights.
        relative_error: |given - exact| / exact.
    """

    saturates: bool
    relative_error: float


def detect_hardware(*, cpuinfo: Path = Path("/proc/cpuinfo")) -> Hardware:
    """Return this host's processor; where the system does not tell its instruction sets, they are empty."""
    architecture = _architecture(platform.machine())
    try:
        text = cpuinfo.read_text()
    except OSError:
        return Hardware(architecture=architecture, instruction_sets=())
    return parse_cpuinfo(text, architecture=architecture)


def parse_cpuinfo(text: str, *, architecture: str) -> Hardware:
    """Return the processor that a /proc/cpuinfo describes: what every core has, where cores differ."""
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, flags=re.MULTILINE)
    shared = set.intersection(*(set(line.split()) for line in lines)) if lines else set()
    return Hardware(
        architecture=architecture, instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in shared)
    )


def weight_bits_for(hardware: Hardware) -> WeightBits:
    """Return 7 where u8 x s8 products pass through 16 bits and saturate, else 8; with the reason."""
    name = hardware.hardware_class
    if hardware.architecture == "x86" and not hardware.has_int8_dot_product:
        known = "has no VNNI" if hardware.instruction_sets else "does not tell its instruction sets"
        return WeightBits(
            bits=7,
            reason=f"{name} {known}: 8-bit products are added in pairs into 16 bits and saturate; 7-bit weights fit",
        )
    if hardware.has_int8_dot_product:
        return WeightBits(bits=8, reason=f"{name} adds 8-bit products into 32 bits, so nothing saturates")
    return WeightBits(bits=8, reason=f"{name} widens 8-bit products without saturation")


def probe_saturation(*, weight_bits: int = 8) -> Saturation:
    """Multiply the worst case, 255 x the largest weight, through onnxruntime's own kernel on this host.

    A QDQ MatMul as deployed, (16, 64) x (64, 64); takes milliseconds.

    Raises:
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    depth, largest = 64, 127 if weight_bits == 8 else 64
    session = open_session(worst_case_matmul(depth=depth, weight=largest))
    given = session.run(None, {"input": np.full((16, depth), 255, np.float32)})[0]
    exact = 255.0 * largest * depth
    relative_error = float(np.abs(given - exact).max()) / exact
    return Saturation(saturates=relative_error > 1 / 127, relative_error=relative_error)


def worst_case_matmul(*, depth: int, weight: int) -> bytes:
    """Return an ONNX model: `input` (rows, depth) as u8 times constant s8 weights (depth, 64), scales 1."""
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise MissingExtraError("the saturation probe", package="onnx", extra="onnx") from None
    constants: dict[str, Any] = {
        "one": np.float32(1),
        "zero_u8": np.uint8(0),
        "zero_s8": np.int8(0),
        "weights_s8": np.full((depth, 64), weight, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "one", "zero_u8"], ["input_u8"]),
        helper.make_node("DequantizeLinear", ["input_u8", "one", "zero_u8"], ["input_f"]),
        helper.make_node("DequantizeLinear", ["weights_s8", "one", "zero_s8"], ["weights_f"]),
        helper.make_node("MatMul", ["input_f", "weights_f"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "worst_case",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", depth])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", 64])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _architecture(machine: str) -> str:
    machine = machine.lower()
    if machine in ("x86_64", "amd64", "i386", "i686"):
        return "x86"
    return "arm64" if machine in ("arm64", "aarch64") else machine or "unknown"
