"""Brevitas: its layers in the network's place, as in its 4-bit examples, exported as QCDQ ONNX for onnxruntime.

Weights: one scale per channel (`Int8WeightPerChannelFloat`, the default of its ResNet example). Activations behind a
ReLU: `Uint8ActPerTensorFloat`, scale learned from a percentile. First and last layer 8 bits, as in that example.
"""

import io
from typing import Any

import numpy as np
import torch
from brevitas.export import export_onnx_qcdq
from brevitas.graph.calibrate import calibration_mode
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU
from brevitas.quant import Int8WeightPerChannelFloat, Uint8ActPerTensorFloat
from torch import nn

from benchmarks._peers_training.network import CALIBRATION_ROWS, fit, load_images, load_weights, read_job, residual

EDGE_BITS = 8


def quantized(network: nn.Module, *, weight_bits: int, activation_bits: int) -> nn.Module:
    """Return the same network of Brevitas layers; parameter names stay."""
    products = [name for name, part in network.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for name, part in list(network.named_modules()):
        bits = EDGE_BITS if name in (products[0], products[-1]) else weight_bits
        weights = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": bits}
        new: nn.Module | None = None
        if isinstance(part, nn.Conv2d):
            new = QuantConv2d(
                part.in_channels,
                part.out_channels,
                part.kernel_size,
                stride=part.stride,
                padding=part.padding,
                bias=part.bias is not None,
                **weights,
            )
        elif isinstance(part, nn.Linear):
            new = QuantLinear(part.in_features, part.out_features, bias=True, **weights)
        elif isinstance(part, nn.ReLU):
            new = QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=activation_bits)
        if new is not None:
            owner, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(owner), leaf, new)
    edge = {"act_quant": Uint8ActPerTensorFloat, "bit_width": EDGE_BITS}
    body = list(network.children())
    return nn.Sequential(QuantIdentity(**edge), *body[:-1], QuantIdentity(**edge), body[-1])


def exported_logits(student: nn.Module, images: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return the logits of the exported model in onnxruntime."""
    import onnxruntime

    file = io.BytesIO()
    export_onnx_qcdq(student.eval(), args=images[:125], export_path=file, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: part.numpy()})[0] for part in images.split(125)]
    return np.concatenate(parts)


def main() -> None:
    folder, job = read_job()
    data = load_images(job["files"]["images"])
    teacher = load_weights(residual(), job["files"]["weights"])
    source = load_weights(residual(), job["files"]["weights"])
    bits = {"weight_bits": job["weight_bits"], "activation_bits": job["activation_bits"]}
    weights = source.state_dict()
    student = quantized(source, **bits)
    inner = nn.Sequential(*[part for part in student if not isinstance(part, QuantIdentity)])
    missing = inner.load_state_dict(weights, strict=False).missing_keys
    if bad := [name for name in missing if "quant" not in name]:
        raise ValueError(f"not loaded: {bad}")
    student.eval()
    with torch.no_grad(), calibration_mode(student):
        for part in data["train_images"][:CALIBRATION_ROWS].split(64):
            student(part)
    if job["epochs"]:
        student.train()
        rows = job["rows"]
        fit(student, teacher, data["train_images"][:rows], data["train_labels"][:rows], job, lambda: None)
    np.savez(
        folder / "answer.npz",
        held_out=exported_logits(student, data["held_out_images"]),
        test=exported_logits(student, data["test_images"]),
    )


if __name__ == "__main__":
    main()
