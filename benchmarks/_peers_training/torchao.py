"""torchao: PT2E training for x86, as its tutorial does it, scored after `convert_pt2e`.

At 4 bits the default x86 configuration with `quant_min` and `quant_max` of 4 bits; first and last layer 8 bits.
Observers and batch-norm statistics are frozen late, as the tutorial advises. The converted program quantizes and
dequantizes with real integers between products, which is what Inductor then fuses; it is scored as it is.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torchao.quantization import pt2e
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

from benchmarks._peers_training.network import (
    BATCH_SIZE,
    CALIBRATION_ROWS,
    fit,
    load_images,
    load_weights,
    read_job,
    residual,
)


def configuration(*, weight_bits: int, activation_bits: int, is_qat: bool) -> Any:
    default = x86.get_default_x86_inductor_quantization_config(is_qat=is_qat)
    activation = replace(default.input_activation, quant_max=2**activation_bits - 1)
    weight = replace(default.weight, quant_min=-(2 ** (weight_bits - 1)), quant_max=2 ** (weight_bits - 1) - 1)
    return x86.QuantizationConfig(activation, activation, weight, None, is_qat)


def quantizer(network: nn.Module, job: dict[str, Any], *, is_qat: bool) -> Any:
    products = [name for name, part in network.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    bits = {"weight_bits": job["weight_bits"], "activation_bits": job["activation_bits"]}
    chosen = x86.X86InductorQuantizer().set_global(configuration(**bits, is_qat=is_qat))
    edge = configuration(weight_bits=8, activation_bits=8, is_qat=is_qat)
    for name in {products[0], products[-1]}:
        chosen.set_module_name_qconfig(name, edge)
    return chosen


def freeze(prepared: Any) -> None:
    """Stop observers and use the running statistics of batch norm; argument 5 of it says whether it trains."""
    prepared.apply(pt2e.disable_observer)
    for node in prepared.graph.nodes:
        if node.target in (torch.ops.aten.batch_norm.default, torch.ops.aten._native_batch_norm_legit.default):
            node.args = (*node.args[:5], False, *node.args[6:])
    prepared.recompile()


def logits(program: nn.Module, images: torch.Tensor) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return np.concatenate([program(part).numpy() for part in images.split(BATCH_SIZE)])


def main() -> None:
    folder, job = read_job()
    data = load_images(job["files"]["images"])
    teacher = load_weights(residual(), job["files"]["weights"])
    network = load_weights(residual(), job["files"]["weights"])
    is_qat = job["epochs"] > 0
    rules = quantizer(network, job, is_qat=is_qat)
    example = (data["train_images"][:BATCH_SIZE],)
    program = torch.export.export(network.train(is_qat), example).module()
    prepared = (prepare_qat_pt2e if is_qat else prepare_pt2e)(program, rules)
    if is_qat:
        pt2e.move_exported_model_to_train(prepared)
        rows = job["rows"]
        images, labels = data["train_images"][:rows], data["train_labels"][:rows]
        fit(prepared, teacher, images, labels, job, lambda: freeze(prepared))
        pt2e.move_exported_model_to_eval(prepared)
    else:
        with torch.no_grad():
            for start in range(0, CALIBRATION_ROWS - BATCH_SIZE + 1, BATCH_SIZE):
                prepared(data["train_images"][start : start + BATCH_SIZE])
    converted = convert_pt2e(prepared)
    np.savez(
        folder / "answer.npz",
        held_out=logits(converted, data["held_out_images"]),
        test=logits(converted, data["test_images"]),
    )


if __name__ == "__main__":
    main()
