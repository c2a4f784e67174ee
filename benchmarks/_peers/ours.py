"""halve itself, and the fp32 model in the same runtime, in a process like a peer's."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks._peers.worker import Built, Model, serve
from halve.techniques.compression.quantization.runtime import open_session

GROUP = 64


def session(content: bytes, *, note: str = "") -> Built:
    opened = open_session(content)
    return Built(answer=lambda batch: opened.run(None, batch)[0], size_bytes=len(content), note=note, content=content)


def fp32(model: Model) -> Built:
    return session(model.onnx.read_bytes())


def automatic(bits: int | None = None) -> Any:
    """What `halve.quantize(model, bits=8, method="auto")` chooses, or for a host that wants so many bits."""

    def build(model: Model) -> Built:
        from halve.techniques.compression.quantization.hardware import detect_hardware, weight_bits_for
        from halve.techniques.compression.quantization.quantize import quantize_model
        from halve.techniques.compression.quantization.recipes import StaticRecipe

        base = StaticRecipe(weight_bits=bits or weight_bits_for(detect_hardware()).bits)
        made = quantize_model(model.onnx, calibration=model.calibration(), base=base)
        return session(made.content, note=made.chosen.name)

    return build


def static(bits: int | None = None) -> Any:
    def build(model: Model) -> Built:
        from halve.techniques.compression.quantization.hardware import detect_hardware, weight_bits_for
        from halve.techniques.compression.quantization.post_training import quantize_static

        weight_bits = bits or weight_bits_for(detect_hardware()).bits
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.onnx")
            quantize_static(model.onnx, file, calibration=model.calibration(), weight_bits=weight_bits)
            return session(file.read_bytes(), note=f"{weight_bits}-bit weights")

    return build


def dynamic(model: Model) -> Built:
    from halve.techniques.compression.quantization.hardware import detect_hardware, weight_bits_for
    from halve.techniques.compression.quantization.post_training import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        quantize_dynamic(model.onnx, file, weight_bits=weight_bits_for(detect_hardware()).bits)
        return session(file.read_bytes())


def four_bits(method: str) -> Any:
    def build(model: Model) -> Built:
        from halve.techniques.compression.quantization.graph import Graph
        from halve.techniques.compression.quantization.weight_only import quantize_weight_only

        graph = Graph.load(model.onnx)
        batches = () if method == "nearest" else model.calibration()
        made = quantize_weight_only(graph, bits=4, group_size=GROUP, method=method, batches=batches)
        return session(made.content)

    return build


METHODS = {
    "fp32": fp32,
    "auto": automatic(),
    "auto, 7-bit weights": automatic(7),
    "static": static(),
    "static, 7-bit weights": static(7),
    "dynamic": dynamic,
    "int4": four_bits("gptq"),
    "int4 nearest": four_bits("nearest"),
}

if __name__ == "__main__":
    serve(METHODS)
