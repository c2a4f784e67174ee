"""optimum-quanto: INT8 weights and activations after calibration, and 4-bit weights."""

import io
from typing import Any

import torch
from optimum.quanto import Calibration, freeze, qint4, qint8, quantize

from benchmarks._peers.worker import Built, Model, serve, torch_answer


def stored_bytes(module: torch.nn.Module) -> int:
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    return buffer.tell()


def build(**kinds: Any) -> Any:
    def build_one(model: Model) -> Built:
        module = model.module()
        quantize(module, **kinds)
        if "activations" in kinds:
            with torch.no_grad(), Calibration():
                for batch in model.torch_calibration():
                    module(*batch)
        freeze(module)
        return Built(answer=torch_answer(module, inference_mode=False), size_bytes=stored_bytes(module))

    return build_one


METHODS = {
    "int8": build(weights=qint8, activations=qint8),
    "int8 weights": build(weights=qint8),
    "int4 weights": build(weights=qint4),
}

if __name__ == "__main__":
    serve(METHODS)
