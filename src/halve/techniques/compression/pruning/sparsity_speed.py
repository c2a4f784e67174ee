"""The honest rung: how fast a product with zeros in its weight is on this host, through the runtime that serves it.

ONNX Runtime's CPU kernels are dense. They load and multiply zeros like any other weight, so 50 %, 90 % and 2:4 of
zeros give no speed, whatever the accuracy was paid for them. This measures it instead of saying it: one product, its
weight dense and with zeros, timed in turn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from halve.errors import InvalidParameterError, MissingExtraError
from halve.techniques.compression.pruning.structured.runtime import Timer, interleaved_seconds, open_session

KINDS = ("dense", "half", "nine_tenths", "two_of_four")


@dataclass(frozen=True, kw_only=True)
class SparsitySpeed:
    """Median seconds of one product by the zeros in its weight.

    Args:
        rows, inputs, outputs: Shape of the product.
        dense_seconds: No zeros.
        half_seconds: 50 % zeros, anywhere.
        nine_tenths_seconds: 90 % zeros, anywhere.
        two_of_four_seconds: 2 of every 4 along the inputs are zero.
    """

    rows: int
    inputs: int
    outputs: int
    dense_seconds: float
    half_seconds: float
    nine_tenths_seconds: float
    two_of_four_seconds: float

    @property
    def speedups(self) -> dict[str, float]:
        """Dense seconds over seconds with zeros, by kind: 1 is no gain."""
        return {kind: self.dense_seconds / getattr(self, f"{kind}_seconds") for kind in KINDS[1:]}


def measure_sparsity_speed(
    *, rows: int = 32, inputs: int = 1024, outputs: int = 1024, timer: Timer | None = None, seed: int = 0
) -> SparsitySpeed:
    """Measure one fp32 product, one thread, dense and with zeros.

    Args:
        rows: Vectors per call, >= 1.
        inputs: Of the weight, >= 4 and divisible by 4.
        outputs: Of the weight, >= 1.
        timer: Measures seconds; wall time by default.
        seed: Of the weight and its zeros.

    Raises:
        InvalidParameterError: If a number is outside its range.
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    for name, value in (("rows", rows), ("inputs", inputs), ("outputs", outputs)):
        if value < 1:
            raise InvalidParameterError(name, rule="at least 1", value=value)
    if inputs % 4:
        raise InvalidParameterError("inputs", rule="divisible by 4", value=inputs)
    rng = np.random.default_rng(seed)
    feed = {"x": rng.standard_normal((rows, inputs)).astype(np.float32)}
    weights = sparse_weights(inputs, outputs, rng)
    actions: dict[str, Callable[[], object]] = {
        kind: partial(open_session(_product(weight, rows)).run, None, feed) for kind, weight in weights.items()
    }
    found: Mapping[str, Sequence[float]] = (timer or interleaved_seconds)(actions)
    seconds = {f"{kind}_seconds": float(np.median(found[kind])) for kind in KINDS}
    return SparsitySpeed(rows=rows, inputs=inputs, outputs=outputs, **seconds)


def sparse_weights(inputs: int, outputs: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return one weight four times, float32 (inputs, outputs): dense, 50 %, 90 % and 2:4 along the inputs zero."""
    dense = rng.standard_normal((inputs, outputs)).astype(np.float32)
    order = np.abs(dense).argsort(axis=None, kind="stable").argsort(kind="stable").reshape(dense.shape)
    blocks = np.abs(dense).reshape(inputs // 4, 4, outputs)
    ranks = blocks.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return {
        "dense": dense,
        "half": np.where(order >= dense.size // 2, dense, 0),
        "nine_tenths": np.where(order >= dense.size * 9 // 10, dense, 0),
        "two_of_four": np.where(ranks >= 2, blocks, 0).reshape(dense.shape),
    }


def _product(weight: Any, rows: int) -> bytes:
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise MissingExtraError("measuring sparse products", package="onnx", extra="onnx") from None
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (rows, weight.shape[0]))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (rows, weight.shape[1]))],
        [numpy_helper.from_array(np.ascontiguousarray(weight), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content
