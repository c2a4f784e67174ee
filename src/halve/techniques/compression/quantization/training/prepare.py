"""Put fake quantization into a trained network, where the integer runtime will round.

Rules of placement, which follow from how an integer runtime fuses kernels:

- The input of every product is on a grid. Products that read one tensor share its grid. In a network with
  convolutions everything else that reads it does too: the kernel that wrote it wrote integers. In one without,
  products write fp32 and residual sums read fp32.
- A convolution's kernel writes integers, so its output (behind its batch norm and ReLU) is on a grid too. Where that
  is not the input of another product (a residual sum reads it) the grid has 8 bits: it costs no multiplication.
- Reshaping and max pooling move numbers without changing them: the grid goes along.
- Logits, sums, softmax and normalization layers stay fp32.
- The first and the last product stay at `edge_bits`: one sees the raw input, the other decides, and together they
  hold a small share of the work. The usual practice since Zhou et al. 2016, arXiv:1606.06160.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, MissingExtraError, ModelError
from halve.techniques.compression.quantization.affine import Scheme, grid_of_range

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx, nn

    from halve.techniques.compression.quantization.affine import FloatArray

Inputs = Mapping[str, NDArray[Any]]
"""Named input tensors, batch axis first, in the order that `forward` takes them."""

CARRIER_BITS = 8
"""Bits of an activation that no product reads: the narrowest type of the runtime."""

_RELU = ("aten.relu.default", "aten.relu_.default")
_BATCH = 64


@dataclass
class _Site:
    """One grid: the nodes whose values lie on it, and its bits."""

    bits: int
    nodes: "list[fx.Node]" = field(default_factory=list)


def prepare(
    module: "nn.Module",
    inputs: Inputs,
    *,
    weight_bits: int = 8,
    activation_bits: int = 8,
    edge_bits: int | None = 8,
    keep: Collection[str] = (),
) -> "nn.Module":
    """Return a copy of a trained module with fake quantization on weights and activations, ready to train.

    Weights get one learned step per output channel, activations one per tensor (see `learned_step`). Batch norm that
    follows a product belongs to it (see `modules`); other norms stay as they are, in fp32. Activation grids start
    where the squared error on the inputs is least. Activations of fewer than 8 bits save no multiplication time on a
    processor without 4-bit arithmetic: they travel as bytes. Weights of at most 4 bits are packed on disk.

    Args:
        module: Trained, in evaluation mode, on the CPU; returns logits.
        inputs: Real inputs, a few hundred rows: they set the activation grids.
        weight_bits, activation_bits: 2 to 8.
        edge_bits: Bits of weight and input of the first and last product, where more than those; None for no
            exception.
        keep: Names of submodules whose products stay fp32.

    Returns:
        A graph module in evaluation mode: same inputs, same output.

    Raises:
        InvalidParameterError: If a number of bits is out of range, `keep` names no product, the module is in
            training mode, or there is no input.
        ModelError: If torch cannot trace the module, it holds no product to quantize, or an activation is not finite.
        MissingExtraError: If torch is not installed.
    """
    _require_torch()
    from halve.techniques.compression.quantization.training.capture import capture, weight_owner

    for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits), ("edge_bits", edge_bits)):
        if bits is not None and bits not in range(2, 9):
            raise InvalidParameterError(name, rule="2 to 8", value=bits)
    graph_module = capture(module, inputs)
    named = {node: weight_owner(node) for node in graph_module.graph.nodes}
    owners = {node: name for node, name in named.items() if name is not None}
    if unknown := sorted(set(keep) - set(owners.values())):
        raise InvalidParameterError("keep", rule=f"names out of {sorted(owners.values())}", value=unknown)
    nodes = [node for node, name in owners.items() if name not in keep]
    if not nodes:
        raise ModelError(f"{type(module).__name__} must hold a linear layer or a convolution to quantize. Got none.")
    edges = {nodes[0], nodes[-1]} if edge_bits is not None else set()
    least = {node: edge_bits or 0 if node in edges else 0 for node in nodes}
    replaced = [
        _replace_product(graph_module, node, bits=max(weight_bits, least[node]), name=owners[node]) for node in nodes
    ]
    wanted = {product: max(activation_bits, least[node]) for product, node in zip(replaced, nodes, strict=True)}
    _place(graph_module, _sites(graph_module, wanted))
    _calibrate(graph_module, inputs)
    return graph_module.eval()


def quantizers(prepared: "nn.Module") -> dict[str, Any]:
    """Return the activation quantizers of a prepared module, by submodule name, in the order of the graph."""
    from halve.techniques.compression.quantization.training.modules import FakeQuantize

    return {name: part for name, part in prepared.named_modules() if isinstance(part, FakeQuantize)}


def products(prepared: "nn.Module") -> dict[str, Any]:
    """Return the quantized products of a prepared module, by submodule name, in the order of the graph."""
    from halve.techniques.compression.quantization.training.modules import QuantizedProduct

    return {name: part for name, part in prepared.named_modules() if isinstance(part, QuantizedProduct)}


def is_dense(prepared: "nn.Module") -> bool:
    """Return whether all quantized products of a module are linear layers."""
    from torch import nn

    return all(isinstance(part.product, nn.Linear) for part in products(prepared).values())


def batches(inputs: Inputs, size: int = _BATCH) -> Iterator[list[Any]]:
    """Yield the inputs as lists of tensors, `size` rows at a time."""
    import torch

    rows = min(len(array) for array in inputs.values())
    for start in range(0, rows, size):
        yield [torch.from_numpy(array[start : min(rows, start + size)].copy()) for array in inputs.values()]


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("quantization-aware training", package="torch", extra="torch") from None


def _replace_product(graph_module: "fx.GraphModule", node: "fx.Node", *, bits: int, name: str) -> "fx.Node":
    """Replace a product and the batch norm behind it by one `QuantizedProduct`; return its node."""
    from halve.techniques.compression.quantization.training.capture import norm_layer, product_layer
    from halve.techniques.compression.quantization.training.modules import QuantizedProduct

    layer = product_layer(graph_module, node)
    if not layer.weight.isfinite().all():
        raise ModelError(f"weight of {name!r} must be finite. Got NaN or infinity.")
    norm = norm_layer(graph_module, node)
    scheme = Scheme(bits=bits, symmetric=True, signed=True, narrow=True, axis=0)
    target = f"product_{node.name}"
    graph_module.add_submodule(target, QuantizedProduct(layer, scheme, norm, name))
    with graph_module.graph.inserting_before(node):
        product = graph_module.graph.call_module(target, (node.args[0],))
    last = node if norm is None else next(iter(node.users))
    last.replace_all_uses_with(product)
    graph_module.graph.eliminate_dead_code()
    return product


def _sites(graph_module: "fx.GraphModule", bits: "Mapping[fx.Node, int]") -> list[_Site]:
    """Return the grids of the graph, given the bits that each product wants of its input."""
    from torch import nn

    outputs = set(next(node for node in graph_module.graph.nodes if node.op == "output").all_input_nodes)
    layers = products(graph_module)
    convolutions = [node for node in bits if not isinstance(layers[str(node.target)].product, nn.Linear)]
    homes = {_behind_relu(node) for node in convolutions} - outputs
    sites: dict[fx.Node, _Site] = {}
    for product, wanted in bits.items():
        path = _path(product.all_input_nodes[0])
        origin = next((node for node in path if node in homes), path[0])
        along = path[: path.index(origin) + 1]
        site = sites.setdefault(origin, _Site(wanted))
        site.bits = max(site.bits, wanted)
        site.nodes += [node for node in along if node not in site.nodes]
    for home in homes:
        sites.setdefault(home, _Site(CARRIER_BITS, [home]))
    order = {node: position for position, node in enumerate(graph_module.graph.nodes)}
    return sorted(sites.values(), key=lambda site: min(order[node] for node in site.nodes))


def _behind_relu(product: "fx.Node") -> "fx.Node":
    """Return where a product's kernel ends: at the ReLU that alone reads it, else at the product."""
    readers = list(product.users)
    return readers[0] if len(readers) == 1 and str(readers[0].target) in _RELU else product


def _path(node: "fx.Node") -> "list[fx.Node]":
    """Return the node and, going back, those whose numbers it only moves."""
    from halve.techniques.compression.quantization.training.capture import KEEPS_VALUES

    path = [node]
    while str(path[-1].target) in KEEPS_VALUES:
        path.append(path[-1].all_input_nodes[0])
    return path


def _place(graph_module: "fx.GraphModule", sites: list[_Site]) -> None:
    """Insert one quantizer module per site behind each of its nodes, and hand its step to the products around it."""
    from halve.techniques.compression.quantization.training.modules import FakeQuantize

    graph, dense, layers = graph_module.graph, is_dense(graph_module), products(graph_module)
    homes = {node: _behind_relu(node) for node in graph.nodes if node.target in layers}
    quantizer_of: dict[fx.Node, str] = {}
    for number, site in enumerate(sites):
        target = f"quantizer_{number}"
        scheme = Scheme(bits=site.bits, symmetric=False, signed=False, narrow=False)
        graph_module.add_submodule(target, FakeQuantize(scheme, site.nodes[-1].name))
        for node in site.nodes:
            with graph.inserting_after(node):
                rounded = graph.call_module(target, (node,))
            quantizer_of[node] = quantizer_of[rounded] = target
            for reader in [user for user in node.users if user is not rounded]:
                if not dense or reader.target in layers:
                    reader.replace_input_with(node, rounded)
    for node, home in homes.items():
        targets = [quantizer_of[node.args[0]], quantizer_of.get(home)]
        with graph.inserting_before(node):
            steps = tuple(graph.get_attr(f"{target}.step") for target in targets if target is not None)
        node.args = (node.args[0], *steps)
    graph.lint()
    graph_module.recompile()


def _calibrate(graph_module: "fx.GraphModule", inputs: Inputs) -> None:
    """Start every quantizer at the grid of least squared error on the inputs."""
    import torch

    from halve.techniques.compression.quantization.observers import MeanSquaredError

    found = quantizers(graph_module)
    observers = {name: MeanSquaredError(part.scheme) for name, part in found.items()}
    for name, part in found.items():
        part.watch = _finite(observers[name].update, part.name)
    with torch.no_grad():
        for batch in batches(inputs):
            graph_module(*batch)
    for name, part in found.items():
        low, high = observers[name].range()
        part.start(grid_of_range(low, high, part.scheme))


def _finite(update: "Callable[[FloatArray], None]", name: str) -> "Callable[[FloatArray], None]":
    def watch(tensor: "FloatArray") -> None:
        if not np.isfinite(tensor).all():
            raise ModelError(f"input of the quantizer at {name!r} must be finite. Got NaN or infinity.")
        update(tensor)

    return watch
