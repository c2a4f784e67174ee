"""The failure that halve exists to catch, on the processor that has it: AVX2 without VNNI, emulated.

The models are written natively and only run emulated. Skipped where QEMU's user mode is not installed.
"""

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from halve.techniques.compression.quantization import disagreement, quantize_static
from halve.techniques.compression.quantization.agreement import Agreement, relative_rmse
from halve.techniques.compression.quantization.hardware import Hardware, Probe, Saturation
from halve.techniques.compression.quantization.manifest import LayerRecord, Manifest, file_sha256

EMULATION = Path(__file__).resolve().parents[4] / "benchmarks" / "emulation.py"

PROBE = """
import json
from halve.techniques.compression.quantization.hardware import gather_probe, probe_saturation
errors = {bits: probe_saturation(weight_bits=bits).relative_error for bits in (7, 8)}
probe = gather_probe()
print(json.dumps({"errors": errors, "weight_bits": probe.weight_bits.bits, "reason": probe.weight_bits.reason,
                  "class": probe.hardware.hardware_class}))
"""

ANSWER = """
import sys
import numpy as np
from halve.techniques.compression.quantization.runtime import run_logits
from pathlib import Path
folder = Path(sys.argv[1])
inputs = [{"input": np.load(folder / "inputs.npy")}]
np.savez(folder / "logits.npz", **{path.stem: run_logits(path, inputs) for path in sorted(folder.glob("*.onnx"))})
"""

CHECK = """
import sys
from itertools import pairwise
from pathlib import Path
from halve.errors import ModelError
from halve.techniques.compression.quantization.manifest import check_folder
try:
    print(check_folder(Path(sys.argv[1])))
except ModelError as error:
    print(f"refused: {error}")
"""


@pytest.fixture(scope="module")
def run_emulated():
    spec = importlib.util.spec_from_file_location("benchmarks_emulation", EMULATION)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    reason = module.why_unavailable()
    if reason is not None:
        pytest.skip(reason)
    yield module.run_emulated
    del sys.modules[spec.name]


@pytest.fixture
def network(dense, rng):
    """A network of uniform weights, which fill all their bits, and its inputs: the worst case of real networks."""
    sizes = (256, 1024, 1024, 256)
    weights = [rng.uniform(-1, 1, pair) / np.sqrt(pair[0]) for pair in pairwise(sizes)]
    return dense(*weights), rng.standard_normal((256, sizes[0])).astype(np.float32)


def quantize_by_onnxruntime(source: Path, target: Path, inputs: np.ndarray) -> None:
    """Write static INT8 by onnxruntime's own quantizer with every default."""
    from onnxruntime.quantization import CalibrationDataReader, quant_pre_process
    from onnxruntime.quantization import quantize_static as default_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter([{"input": inputs}])

        def get_next(self):
            return next(self.rest, None)

    prepared = target.with_suffix(".prepared")
    quant_pre_process(str(source), str(prepared))
    default_static(str(prepared), str(target), Reader())
    prepared.unlink()


def test_the_probe_finds_the_saturation_whatever_cpuinfo_says(run_emulated):
    found = json.loads(run_emulated(PROBE))
    # Each pair of products, 2 * 255 * 127, stops at 32,767; 7-bit weights stay below it.
    assert found["errors"]["8"] == pytest.approx(1 - 32_767 / (2 * 255 * 127))
    assert found["errors"]["7"] == 0
    assert found["weight_bits"] == 7
    assert "saturate" in found["reason"]
    assert found["class"] in ("x86-avx2", "x86-avx512"), "no class of hosts that add into 32 bits"


@pytest.mark.slow
def test_the_default_is_wrong_there_and_seven_bits_are_not(run_emulated, network, tmp_path):
    fp32, inputs = network
    batches = [{"input": inputs}]
    quantize_by_onnxruntime(fp32, tmp_path / "default.onnx", inputs)
    for bits in (7, 8):
        quantize_static(fp32, tmp_path / f"ours{bits}.onnx", calibration=batches, weight_bits=bits)
    np.save(tmp_path / "inputs.npy", inputs)
    run_emulated(ANSWER, str(tmp_path))
    with np.load(tmp_path / "logits.npz") as logits:
        errors = {name: relative_rmse(logits["dense"], logits[name]) for name in ("default", "ours7", "ours8")}
    assert errors["ours7"] < 0.03
    assert errors["ours8"] > 3 * errors["ours7"], "8 bits saturate"
    assert errors["default"] > 3 * errors["ours7"], "and so does the default"
    here = disagreement(fp32, tmp_path / "ours7.onnx", batches).relative_rmse
    assert errors["ours7"] == pytest.approx(here, rel=0.05), "7 bits answer alike on every host"


@pytest.mark.parametrize(("bits", "said"), [(8, "refused: 1 of 1 layers"), (7, "()")])
def test_an_artifact_made_with_vnni_is_checked_again_there(run_emulated, tmp_path, bits, said):
    """The processor's class is that of the emulated process, or its claim; what decides is the probe."""
    (tmp_path / "model.onnx").write_bytes(b"never loaded")
    layer = LayerRecord(
        name="dense", operator="MatMul", bits=bits, activation_bits=8, scheme="symmetric", error=None,
        fp32_seconds=None, int8_seconds=None, decision="int8", reason="",
    )  # fmt: skip
    # A host that is the emulated one but for the saturation, so that no warning of another class comes in.
    there = json.loads(run_emulated(PROBE))["class"].removeprefix("x86-")
    sets = {"avx2": ("avx2",), "avx512": ("avx2", "avx512f")}[there]
    made_on = Probe(
        hardware=Hardware(architecture="x86", instruction_sets=sets),
        saturation=Saturation(saturates=False, relative_error=0.0),
    )
    Manifest(
        model_sha256=file_sha256(tmp_path / "model.onnx"), source_sha256="", calibration_sha256=None, seed=0,
        method="auto", recipe="", weight_bits=bits, activation_bits=8,
        agreement=Agreement(argmax_disagreement_share=0, relative_rmse=0, n=1), seconds=None, fp32_seconds=None,
        size_bytes=12, fp32_size_bytes=12, layers=(layer,), probe=made_on, versions={},
    ).write(tmp_path)  # fmt: skip
    assert run_emulated(CHECK, str(tmp_path)).startswith(said)
