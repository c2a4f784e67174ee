"""What this processor does with 8-bit numbers: which instructions it has, and whether its products saturate.

Without VNNI, x86 multiplies u8 by s8 with VPMADDUBSW, which adds two products into a signed 16-bit number
and saturates: 2 * 255 * 127 = 64,770 > 32,767. With 7-bit weights, |w| <= 64, the largest sum is
2 * 255 * 64 = 32,640 and nothing is lost. Source: Intel Software Developer's Manual, VPMADDUBSW;
ONNX Runtime, "Quantize ONNX models", section on reduce_range.

What decides is the probe, which multiplies the worst case through onnxruntime's own kernel. /proc/cpuinfo only
gives the host its name: under an emulator it tells of another processor than the one that the process runs on.
"""

import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from halve.errors import InvalidParameterError, MissingExtraError
from halve.techniques.compression.quantization.runtime import open_session

if TYPE_CHECKING:
    from halve.techniques.compression.quantization.crossover import LayerTiming

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Those that decide how 8-bit products are computed, as Linux spells them."""

DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""Those that add 8-bit products straight into 32 bits: VNNI and AMX on x86, SDOT and SMMLA on ARM."""

HARDWARE_CLASSES = (
    ("amx_int8", "x86-amx"),
    ("avx512_vnni", "x86-avx512-vnni"),
    ("avx_vnni", "x86-avx-vnni"),
    ("avx512f", "x86-avx512"),
    ("avx2", "x86-avx2"),
    ("i8mm", "arm64-i8mm"),
    ("asimddp", "arm64-dotprod"),
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
        """Hosts of one class run an INT8 model alike: `x86-avx2`, `x86-avx512-vnni`, `arm64-dotprod`, ..."""
        for instruction_set, name in HARDWARE_CLASSES:
            if instruction_set in self.instruction_sets:
                return name
        return self.architecture

    @property
    def has_int8_dot_product(self) -> bool:
        """Whether four 8-bit products are added straight into 32 bits, without a 16-bit step between."""
        return not DOT_PRODUCTS.isdisjoint(self.instruction_sets)


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


@dataclass(frozen=True, kw_only=True)
class Probe:
    """This host, and what its 8-bit products gave.

    Args:
        hardware: The processor.
        saturation: Of 8-bit weights.
    """

    hardware: Hardware
    saturation: Saturation

    @property
    def weight_bits(self) -> WeightBits:
        """7 where the probe saturated, else 8, whatever the instruction sets promise; with the reason."""
        name, error = self.hardware.hardware_class, self.saturation.relative_error
        if self.saturation.saturates:
            lost = f"8-bit products saturate on {name}: the worst case is {error:.0%} off"
            return WeightBits(bits=7, reason=f"{lost}; 7-bit weights fit")
        return WeightBits(bits=8, reason=f"8-bit products do not saturate on {name}: the worst case was measured")

    def decide(self, timing: "LayerTiming") -> WeightBits:
        """Return how to run one layer here: 32 bits if integers are slower beyond noise, else `weight_bits`."""
        times = f"{timing.int8_seconds * 1e6:.0f} us in INT8, {timing.fp32_seconds * 1e6:.0f} us in fp32"
        if timing.int8_is_slower:
            return WeightBits(bits=32, reason=f"slower in INT8 here: {times}")
        bits, reason = self.weight_bits
        speed = "faster in INT8 here" if timing.int8_is_faster else "as fast in INT8 here, within noise, and smaller"
        return WeightBits(bits=bits, reason=f"{speed}: {times}; {reason}")


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


def gather_probe() -> Probe:
    """Return this host with the saturation of 8-bit weights; takes milliseconds.

    Where products saturate although the system promises instructions that cannot, the process runs on another
    processor than the system tells of (an emulator), and those instruction sets are left out.

    Raises:
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    hardware, saturation = detect_hardware(), probe_saturation(weight_bits=8)
    if saturation.saturates and hardware.has_int8_dot_product:
        kept = tuple(name for name in hardware.instruction_sets if name not in DOT_PRODUCTS)
        hardware = replace(hardware, instruction_sets=kept)
    return Probe(hardware=hardware, saturation=saturation)


def probe_saturation(*, weight_bits: int = 8) -> Saturation:
    """Multiply the worst case, 255 x the largest weight, through onnxruntime's own kernel on this host.

    A QDQ MatMul as deployed, (16, 64) x (64, 64); takes milliseconds.

    Args:
        weight_bits: 7 (weights to 64) or 8 (weights to 127).

    Raises:
        InvalidParameterError: If weight_bits is neither.
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    if weight_bits not in (7, 8):
        raise InvalidParameterError("weight_bits", rule="7 or 8", value=weight_bits)
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
