"""Which activations lie on a grid, and which grid: what a runtime can fuse, seen on calibration inputs.

In a convolutional network everything between two convolutions stays in bytes: the output of each convolution
(behind its ReLU, which then costs nothing: the grid starts at 0), sums of two such outputs, pooling. Elsewhere only
what a product reads is rounded, for that product alone: a transformer's residual stream, masks with -inf, and logits
stay fp32. Rounding logits to 8 bits would tie classes and win nothing.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import ACTIVATIONS, Grid, Scheme, grid_of_range
from halve.techniques.compression.quantization.calibration import Batches, observe
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.observers import (
    Entropy,
    MeanSquaredError,
    MinMax,
    MovingAverage,
    Observer,
    Percentile,
)
from halve.techniques.compression.quantization.qdq import CARRIERS

if TYPE_CHECKING:
    from onnx import NodeProto

ObserverName = Literal["minmax", "moving_average", "percentile", "mse", "entropy"]
OBSERVERS: dict[ObserverName, Callable[[Scheme], Observer]] = {
    "minmax": lambda _: MinMax(),
    "moving_average": lambda _: MovingAverage(),
    "percentile": lambda _: Percentile(),
    "mse": MeanSquaredError,
    "entropy": Entropy,
}

DENSE_OPERATORS = ("Gemm", "MatMul")
"""In INT8 where there are no convolutions. Not Add: in a transformer it adds -inf to masked scores."""

RECTIFIERS = ("Clip", "Relu")
"""What a kernel before it does too, as the grid clips."""

JOINTS = ("Add", "AveragePool", "Concat", "GlobalAveragePool")
"""Operators with an 8-bit kernel of their own in onnxruntime: bytes in, bytes on another grid out."""

CONVOLUTIONAL_OPERATORS = ("Conv", *DENSE_OPERATORS, *RECTIFIERS, *JOINTS, *sorted(CARRIERS))
"""In INT8 where there are convolutions: also what stands between two of them."""


def is_convolutional(graph: Graph) -> bool:
    """Return whether the model's tensors stay in bytes between products: it has convolutions."""
    return any(layer.operator == "Conv" for layer in graph.layers)


def default_operators(graph: Graph) -> tuple[str, ...]:
    """Return CONVOLUTIONAL_OPERATORS or DENSE_OPERATORS, as the model is."""
    return CONVOLUTIONAL_OPERATORS if is_convolutional(graph) else DENSE_OPERATORS


def activation_tensors(graph: Graph, operators: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the tensors that get a grid, in the order of the graph.

    Args:
        graph: The fp32 model.
        operators: What may run in integers; None is `default_operators`.
    """
    allowed = default_operators(graph) if operators is None else operators
    layers = {layer.name: layer for layer in graph.layers if layer.operator in allowed}
    wanted = {layer.input for layer in layers.values()}
    in_bytes: set[str] = set()
    for node in graph.proto.graph.node:
        if node.op_type not in allowed or not node.output:
            continue
        if node.name in layers:
            stays = node.op_type == "Conv"
        elif node.op_type in CARRIERS:
            stays = node.input[0] in in_bytes
        else:
            stays = node.op_type in JOINTS and in_bytes.issuperset(node.input)
        output = _behind_rectifier(graph, node, allowed)
        if stays and output not in graph.outputs:
            in_bytes.add(output)
    everything = [*graph.inputs, *(name for node in graph.proto.graph.node for name in node.output)]
    return tuple(name for name in everything if name in wanted | in_bytes)


def _behind_rectifier(graph: Graph, node: "NodeProto", allowed: Collection[str]) -> str:
    """Return the node's output; that of its ReLU, if nothing else reads it."""
    output: str = node.output[0]
    readers = graph.consumers(output)
    if len(readers) != 1 or output in graph.outputs or readers[0].op_type not in RECTIFIERS:
        return output
    return str(readers[0].output[0]) if readers[0].op_type in allowed else output


def static_grids(
    graph: Graph,
    batches: Batches,
    *,
    observer: ObserverName = "minmax",
    scheme: Scheme = ACTIVATIONS,
    bits: Mapping[str, int] | None = None,
    operators: Collection[str] | None = None,
) -> dict[str, Grid]:
    """Return the grid of every tensor that gets one, with its range as the observer saw it on the calibration inputs.

    A tensor that only carries another's numbers (a reshape, a maximum) has the grid of that one; of the bits asked
    for either, the fewest.

    Args:
        graph: The fp32 model.
        batches: Calibration inputs.
        observer: How a range is chosen.
        scheme: Of all grids.
        bits: Other numbers of bits, by tensor name.
        operators: What may run in integers; None is `default_operators`.

    Raises:
        InvalidParameterError: If the observer is not known or the batches cannot be used.
        ModelError: If a tensor is not finite on them.
    """
    if observer not in OBSERVERS:
        raise InvalidParameterError("observer", rule=f"one of {', '.join(OBSERVERS)}", value=observer)
    source: dict[str, str] = {}
    for name in activation_tensors(graph, operators):
        source[name] = _carried_from(graph, name, source)
    asked: dict[str, list[int]] = {origin: [] for origin in source.values()}
    for name, origin in source.items():
        asked[origin] += [bits[name]] if bits and name in bits else []
    schemes = {origin: replace(scheme, bits=min(counts, default=scheme.bits)) for origin, counts in asked.items()}
    ranges: dict[str, tuple[float, float]] = {}
    for shared in dict.fromkeys(schemes.values()):
        names = [name for name in schemes if schemes[name] == shared]
        ranges |= observe(graph, batches, names, lambda shared=shared: OBSERVERS[observer](shared))  # type: ignore[misc]
    grids = {name: grid_of_range(*ranges[name], own) for name, own in schemes.items()}
    return {name: grids[source[name]] for name in source}


def _carried_from(graph: Graph, tensor: str, known: Mapping[str, str]) -> str:
    """Return the tensor whose numbers this one carries, if that has a grid; else itself."""
    node = graph.producer(tensor)
    return known.get(node.input[0], tensor) if node is not None and node.op_type in CARRIERS else tensor
