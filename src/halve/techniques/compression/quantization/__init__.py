"""Quantization: fp32 to INT8, as this processor computes it. It measures error; the gate judges it."""

from halve.techniques.compression.quantization.convert import convert
from halve.techniques.compression.quantization.export import export_onnx
from halve.techniques.compression.quantization.hardware import (
    Hardware,
    Saturation,
    WeightBits,
    detect_hardware,
    probe_saturation,
    weight_bits_for,
)
from halve.techniques.compression.quantization.post_training import (
    CONVOLUTIONAL_OPERATORS,
    DENSE_OPERATORS,
    Agreement,
    StaticQuantization,
    disagreement,
    quantize_dynamic,
    quantize_static,
)

__all__ = [
    "DENSE_OPERATORS",
    "CONVOLUTIONAL_OPERATORS",
    "Agreement",
    "Hardware",
    "Saturation",
    "StaticQuantization",
    "WeightBits",
    "disagreement",
    "export_onnx",
    "convert",
    "detect_hardware",
    "probe_saturation",
    "quantize_dynamic",
    "quantize_static",
    "weight_bits_for",
]
