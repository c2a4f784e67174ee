"""The shipped contract suite, on every engine that we ship."""

from importlib.util import find_spec

import numpy as np
import pytest

from halve.core import Model
from halve.engines import engine
from halve.engines.endpoint import Endpoint, save_endpoint
from halve.testing.engine_contract import ENGINE_CHECKS, EngineCase

CASES = (
    "onnxruntime-tensor",
    "onnxruntime-text",
    "openvino-tensor",
    "openvino-text",
    "torch-tensor",
    "torch-text",
    "openai_http-text",
    "recorded",
)


@pytest.fixture(params=CASES)
def case(request, folder, images, texts, make_model, model_file, tmp_path):
    name, _, kind = request.param.partition("-")
    if name == "openvino" and find_spec("openvino") is None:
        pytest.skip("openvino is not installed: pip install 'halve[openvino]'")
    if name == "openai_http":
        server, replies = request.getfixturevalue("server"), request.getfixturevalue("replies")
        return http_case(server, replies, tmp_path, model_file, texts)
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


def http_case(server, replies, folder, model_file, texts):
    """A server whose answer depends on the text alone."""
    tokens_reply, _ = replies

    def script(body):
        share = (len(body["messages"][0]["content"]) % 7 + 1) / 10
        return 200, {}, tokens_reply({"A": share, " B": 0.9 - share})

    server.script = script
    endpoint = Endpoint(url=server.url, model="m", labels=("short", "long"), prompt="{labels}\n{payload}")
    save_endpoint(endpoint, folder / "endpoint.json")
    return EngineCase(
        engine=engine("openai_http"),
        model=Model(name="tiny", engine="openai_http", files=(model_file(folder / "endpoint.json"),)),
        folder=folder,
        payloads=texts,
        bad_payload=np.zeros((1, 5, 3), np.float32),
    )


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
def test_engine_keeps_its_contract(check, case):
    check(case)
