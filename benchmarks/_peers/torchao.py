"""torchao: dynamic INT8 and 4-bit weights of `nn.Linear`, and static INT8 by PT2E and Inductor's x86 backend."""

import io
from typing import Any

import torch
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    quantize_,
)
from torchao.quantization.granularity import PerGroup
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer

from benchmarks._peers.worker import Built, Model, serve, torch_answer

GROUP = 64


def stored_bytes(module: torch.nn.Module) -> int:
    """Return what `torch.save` of its state takes."""
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    return buffer.tell()


def eager(config: Any) -> Any:
    def build(model: Model) -> Built:
        module = model.module()
        n_linear = sum(isinstance(part, torch.nn.Linear) for part in module.modules())
        n_convolutions = sum(isinstance(part, torch.nn.Conv2d) for part in module.modules())
        quantize_(module, config)
        note = f"only its {n_linear} linear layers; {n_convolutions} convolutions stay fp32" if n_convolutions else ""
        return Built(answer=torch_answer(module), size_bytes=stored_bytes(module), note=note)

    return build


def fp32(model: Model) -> Built:
    module = model.module()
    return Built(answer=torch_answer(module), size_bytes=stored_bytes(module))


def exported_static(model: Model) -> Built:
    """Quantize the exported program, compile it, and let Inductor lower it when the first batch of a shape comes."""
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86

    module, calibration = model.module(), model.torch_calibration()
    first = calibration[0]
    rows = torch.export.Dim("rows", min=1, max=1024)
    tokens = torch.export.Dim("tokens", min=2, max=512)
    of_tokens = not first[0].is_floating_point()
    shape = {0: rows, 1: tokens} if of_tokens else {0: rows}
    with torch.no_grad():
        program = torch.export.export(module, first, dynamic_shapes=tuple(shape for _ in first)).module()
        quantizer = X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        prepared = prepare_pt2e(program, quantizer)
        for batch in calibration:
            prepared(*batch)
        converted = convert_pt2e(prepared)
        # Images: once per batch size, since Inductor mistakes strides of dynamic ones. Tokens: lengths are too many.
        compiled = torch.compile(converted, dynamic=of_tokens)
        compiled(*first)
    weights = sum(parameter.numel() for parameter in module.parameters())
    return Built(answer=torch_answer(compiled), size_bytes=weights, note="size: one byte a parameter")


METHODS = {
    "fp32": fp32,
    "int8 dynamic": eager(Int8DynamicActivationInt8WeightConfig()),
    "PT2E x86 static": exported_static,
    "int4 weights": eager(IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))),
    "int4 weights, int8 activations": eager(
        Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(GROUP))
    ),
}

if __name__ == "__main__":
    serve(METHODS)
