"""Quantization: fp32 to integers, as this processor computes them. It measures error; the gate judges it."""

from halve.techniques.compression.quantization.agreement import Agreement, agreement
from halve.techniques.compression.quantization.artifact import write_artifact
from halve.techniques.compression.quantization.crossover import Timer, interleaved_seconds, time_models
from halve.techniques.compression.quantization.export import export_onnx
from halve.techniques.compression.quantization.hardware import (
    Hardware,
    Probe,
    Saturation,
    WeightBits,
    detect_hardware,
    gather_probe,
    probe_saturation,
    weight_bits_for,
)
from halve.techniques.compression.quantization.manifest import (
    FILE_NAME as MANIFEST_NAME,
)
from halve.techniques.compression.quantization.manifest import (
    LayerRecord,
    Manifest,
    check_folder,
    read_manifest,
)
from halve.techniques.compression.quantization.order import METHODS, Data, Method, Order
from halve.techniques.compression.quantization.post_training import (
    StaticQuantization,
    disagreement,
    quantize_dynamic,
    quantize_static,
)

__all__ = [
    "MANIFEST_NAME",
    "METHODS",
    "Agreement",
    "Data",
    "Hardware",
    "LayerRecord",
    "Manifest",
    "Method",
    "Order",
    "Probe",
    "Saturation",
    "StaticQuantization",
    "Timer",
    "WeightBits",
    "agreement",
    "check_folder",
    "detect_hardware",
    "disagreement",
    "export_onnx",
    "gather_probe",
    "interleaved_seconds",
    "probe_saturation",
    "quantize_dynamic",
    "quantize_static",
    "read_manifest",
    "time_models",
    "weight_bits_for",
    "write_artifact",
]
