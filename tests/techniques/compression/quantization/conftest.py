from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, parser
from torch import nn


class Residual(nn.Module):
    """float32 (batch, 1, 8, 8) -> logits (batch, 5), through one residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        hidden = torch.relu(self.first(images))
        hidden = torch.relu(hidden + self.second(hidden))
        return self.head(hidden.mean((2, 3)))


class Encoder(nn.Module):
    """int64 (batch, tokens) twice -> logits (batch, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)
        weights = attention_mask.unsqueeze(-1).float()
        return self.head((hidden * weights).sum(1) / weights.sum(1))


def image_batch(rng, *, rows=8):
    return {"input": rng.standard_normal((rows, 1, 8, 8)).astype(np.float32)}


def token_batch(rng, *, rows=8, tokens=12):
    lengths = rng.integers(2, tokens + 1, (rows, 1))
    return {
        "input_ids": rng.integers(0, 50, (rows, tokens)),
        "attention_mask": (np.arange(tokens) < lengths).astype(np.int64),
    }


@pytest.fixture(scope="session")
def residual():
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture(scope="session")
def encoder():
    torch.manual_seed(0)
    return Encoder().eval()


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def write_dense(path: Path, weights: list[np.ndarray]) -> None:
    """Write x -> relu(x W1) W2 ... as ONNX, input `input`, output `logits`."""
    nodes, name = [], "input"
    for number in range(len(weights)):
        last = number == len(weights) - 1
        product = "logits" if last else f"product{number}"
        nodes.append(helper.make_node("MatMul", [name, f"w{number}"], [product], name=f"matmul{number}"))
        if not last:
            name = f"hidden{number}"
            nodes.append(helper.make_node("Relu", [product], [name], name=f"relu{number}"))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", weights[0].shape[0]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", weights[-1].shape[1]])],
        [numpy_helper.from_array(weight.astype(np.float32), f"w{n}") for n, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def dense(tmp_path):
    """Write a network of dense layers with these weights; return its path."""

    def dense(*weights):
        path = tmp_path / "dense.onnx"
        write_dense(path, list(weights))
        return path

    return dense


@pytest.fixture(scope="session")
def exported(residual, encoder, tmp_path_factory):
    """The ONNX files of both networks."""
    from halve.techniques.compression.quantization import export_onnx

    folder, rng = tmp_path_factory.mktemp("exported"), np.random.default_rng(1)
    export_onnx(residual, image_batch(rng), folder / "residual.onnx")
    export_onnx(encoder, token_batch(rng), folder / "encoder.onnx")
    return folder


@pytest.fixture
def images(rng):
    """Four batches for the residual network."""
    return [image_batch(rng) for _ in range(4)]


@pytest.fixture
def tokens(rng):
    """Four batches for the encoder, of several lengths."""
    return [token_batch(rng, tokens=length) for length in (6, 12, 3, 20)]


@pytest.fixture(scope="session")
def onnx_model():
    """Return the bytes of a graph in ONNX text, opset 18 if not given, with these arrays as its initializers."""

    def onnx_model(text, opset=18, **constants):
        model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
        return model.SerializeToString()

    return onnx_model


@pytest.fixture
def fused(tmp_path):
    """Count the operators that onnxruntime really runs for a model."""

    def fused(content):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "fused.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(content, sess_options=options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)

    return fused
