"""NNCF's post-training quantization, run by OpenVINO on one thread."""

import tempfile
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino

from benchmarks._peers.worker import Built, Model, batches, serve

GROUP = 64
ONE_THREAD = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY"}
FP32 = {"INFERENCE_PRECISION_HINT": "f32"}
"""Else OpenVINO computes what is not quantized in bfloat16 where the processor can."""

CORE = openvino.Core()


def compiled(network: Any, *, precision: dict[str, str] = FP32) -> Built:
    request = CORE.compile_model(network, "CPU", {**ONE_THREAD, **precision}).create_infer_request()
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(network, Path(folder, "model.xml"), compress_to_fp16=False)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return Built(answer=lambda batch: np.array(request.infer(batch)[0]), size_bytes=size)


def fp32(model: Model) -> Built:
    return compiled(CORE.read_model(model.onnx))


def dataset(model: Model) -> nncf.Dataset:
    return nncf.Dataset(model.calibration())


def post_training(*, precision: dict[str, str] = FP32) -> Any:
    def build(model: Model) -> Built:
        network = CORE.read_model(model.onnx)
        transformer = "attention_mask" in {name for entry in network.inputs for name in entry.names}
        kind = nncf.ModelType.TRANSFORMER if transformer else None
        quantized = nncf.quantize(network, dataset(model), model_type=kind, subset_size=len(model.calibration()))
        return compiled(quantized, precision=precision)

    return build


def singles(model: Model) -> nncf.Dataset:
    """Return calibration rows one by one, cut to their length, as NNCF's examples of weight compression feed them."""
    return nncf.Dataset(list(batches(model.folder / "calibration.npz", 1)))


def four_bits(**options: Any) -> Any:
    def build(model: Model) -> Built:
        data = singles(model) if options else None
        network = nncf.compress_weights(
            CORE.read_model(model.onnx),
            mode=nncf.CompressWeightsMode.INT4_ASYM,
            ratio=1.0,
            group_size=GROUP,
            all_layers=True,
            ignored_scope=nncf.IgnoredScope(types=["Gather"], validate=False),
            backup_mode=nncf.BackupMode.NONE,
            dataset=data,
            **options,
        )
        return compiled(network)

    return build


METHODS = {
    "fp32": fp32,
    "NNCF": post_training(),
    "NNCF, rest in bfloat16": post_training(precision={}),
    "NNCF int4": four_bits(),
    "NNCF int4 scale estimation": four_bits(scale_estimation=True),
    "NNCF int4 GPTQ": four_bits(gptq=True),
}

if __name__ == "__main__":
    serve(METHODS)
