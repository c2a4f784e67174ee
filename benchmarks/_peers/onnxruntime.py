"""ONNX Runtime's own quantizers, as its documentation calls them, after its own `quant_pre_process`."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    GPTQWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks._peers.worker import Batch, Built, Model, serve

GROUP = 64


class Reader(CalibrationDataReader):
    def __init__(self, model: Model) -> None:
        self.rest: Iterator[Batch] = iter(model.calibration())

    def get_next(self) -> Batch | None:
        return next(self.rest, None)


def session(file: Path) -> Built:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = file.read_bytes()
    opened = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Built(answer=lambda batch: opened.run(None, batch)[0], size_bytes=len(content), content=content)


def prepared(model: Model, folder: Path) -> Path:
    file = folder / "prepared.onnx"
    quant_pre_process(model.onnx, file, skip_symbolic_shape=True)
    return file


def static(**options: Any) -> Any:
    def build(model: Model) -> Built:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "int8.onnx")
            quantize_static(prepared(model, Path(folder)), file, Reader(model), **options)
            return session(file)

    return build


def dynamic(model: Model) -> Built:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "int8.onnx")
        quantize_dynamic(prepared(model, Path(folder)), file, weight_type=QuantType.QInt8)
        return session(file)


def four_bits(algorithm: str) -> Any:
    def build(model: Model) -> Built:
        config = {
            "default": lambda: DefaultWeightOnlyQuantConfig(block_size=GROUP, is_symmetric=False, accuracy_level=4),
            "hqq": lambda: HQQWeightOnlyQuantConfig(block_size=GROUP),
            "gptq": lambda: GPTQWeightOnlyQuantConfig(calibration_data_reader=Reader(model), block_size=GROUP),
        }[algorithm]()
        with tempfile.TemporaryDirectory() as folder:
            quantizer = MatMulNBitsQuantizer(onnx.load(prepared(model, Path(folder))), algo_config=config)
            quantizer.process()
            file = Path(folder, "int4.onnx")
            quantizer.model.save_model_to_file(str(file), use_external_data_format=False)
            return session(file)

    return build


METHODS = {
    "default": static(),
    "per channel": static(per_channel=True),
    "per channel, reduce range": static(per_channel=True, reduce_range=True),
    "dynamic": dynamic,
    "int4": four_bits("default"),
    "int4 HQQ": four_bits("hqq"),
    "int4 GPTQ": four_bits("gptq"),
}

if __name__ == "__main__":
    serve(METHODS)
