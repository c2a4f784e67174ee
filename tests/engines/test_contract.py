"""The shipped contract suite, on every engine that we ship."""

from importlib.util import find_spec

import numpy as np
import pytest

from halve.engines import engine
from halve.testing.engine_contract import ENGINE_CHECKS, EngineCase

CASES = (
    "onnxruntime-tensor",
    "onnxruntime-text",
    "openvino-tensor",
    "openvino-text",
    "torch-tensor",
    "torch-text",
    "recorded",
)


@pytest.fixture(params=CASES)
def case(request, folder, images, texts, make_model):
    name, _, kind = request.param.partition("-")
    if name == "openvino" and find_spec("openvino") is None:
        pytest.skip("openvino is not installed: pip install 'halve[openvino]'")
    text = kind == "text"
    network = "encoder" if text else "convolution"
    names = {
        "onnxruntime": (f"{network}.onnx",),
        "openvino": (f"{network}.onnx",),
        "torch": (f"{network}.safetensors",),
        "recorded": ("recorded.parquet",),
    }[name]
    entry = f"halve_tiny_models:{network}" if name == "torch" else None
    return EngineCase(
        engine=engine(name),
        model=make_model(name, *names, *(("tokenizer.json",) if text else ()), entry=entry, text=text),
        folder=folder,
        payloads=texts if text else images,
        bad_payload=np.zeros((1, 5, 3), np.float32),
    )


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
def test_engine_keeps_its_contract(check, case):
    check(case)
