"""A module as a graph of its tensor operations, in which products and norms can be found and replaced.

torch.export records what `forward` does in evaluation mode: dropout is gone, branches on `self.training` are taken as
when serving. That graph is what is trained, so that what is trained is what is exported.
"""

import copy
import operator
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.export import _at_least_two, _free_axes

if TYPE_CHECKING:
    from torch import fx, nn

PRODUCTS = ("aten.linear.default", "aten.conv1d.default", "aten.conv2d.default", "aten.conv1d.padding",
            "aten.conv2d.padding")  # fmt: skip
"""What is trained in low precision: products with a constant weight."""

KEEPS_VALUES = (
    "aten.contiguous.default", "aten.flatten.using_ints", "aten.max_pool2d.default", "aten.permute.default",
    "aten.reshape.default", "aten.squeeze.dim", "aten.transpose.int", "aten.unsqueeze.default", "aten.view.default",
)  # fmt: skip
"""Operations that only move or choose numbers: what was on a grid stays on it."""

_CHECKS = ("aten._assert_tensor_metadata.default", "aten._assert_scalar.default")


def capture(module: "nn.Module", inputs: Mapping[str, NDArray[Any]]) -> "fx.GraphModule":
    """Return a copy of the module as a graph of ATen operations, batch axis free.

    Raises:
        InvalidParameterError: If it is no torch module, is in training mode, or the inputs hold no row.
        ModelError: If torch cannot trace it.
    """
    import torch
    from torch import fx, nn

    if not isinstance(module, nn.Module):
        raise InvalidParameterError("module", rule="a torch.nn.Module", value=type(module).__name__)
    if module.training:
        raise InvalidParameterError("module", rule="in evaluation mode", value="training", hint="Call module.eval().")
    if not inputs or min(len(array) for array in inputs.values()) == 0:
        raise InvalidParameterError("inputs", rule="at least one row", value={k: v.shape for k, v in inputs.items()})
    examples = tuple(torch.from_numpy(_at_least_two(array[:2])) for array in inputs.values())
    free = tuple(dict.fromkeys(_free_axes(array), torch.export.Dim.AUTO) for array in inputs.values())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|copyreg)\b")
            traced = torch.export.export(module, examples, dynamic_shapes=free, strict=False).module()
    except Exception as error:  # torch.export raises many classes, some of them private.
        raise ModelError(f"torch cannot trace {type(module).__name__}: {str(error).strip().splitlines()[0]}") from error
    graph: fx.Graph = traced.graph
    graph.set_codegen(fx.graph.CodeGen())  # Arguments and result as they are, without the tracer's tree of them.
    output = next(node for node in graph.nodes if node.op == "output")
    output.args = (output.args[0][0],)
    for node in list(graph.nodes):
        if node.name.startswith("_guards") or str(node.target) in _CHECKS:
            graph.erase_node(node)
        elif str(node.target) == "aten.dropout.default":
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    # The tracer shares parameters with the module; training must not change the caller's.
    return copy.deepcopy(fx.GraphModule(traced, graph))


def weight_owner(node: "fx.Node") -> str | None:
    """Return the name of the submodule whose weight a product multiplies by, or None if it is no such product."""
    if str(node.target) not in PRODUCTS:
        return None
    weight: Any = node.args[1]
    return str(weight.target).removesuffix(".weight") if weight.op == "get_attr" else None


def constant(graph_module: "fx.GraphModule", node: Any) -> Any:
    """Return the parameter or buffer that a node of the graph stands for, or None for None."""
    return None if node is None else operator.attrgetter(node.target)(graph_module)


def product_layer(graph_module: "fx.GraphModule", node: "fx.Node") -> Any:
    """Return an ordinary layer that computes the node: `nn.Linear`, `nn.Conv1d` or `nn.Conv2d`."""
    from torch import nn

    arguments: tuple[Any, ...] = node.args
    weight, bias = (constant(graph_module, argument) for argument in (*arguments[1:3], None)[:2])
    kind = str(node.target).split(".")[1]
    if kind == "linear":
        layer: Any = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    else:
        defaults: tuple[Any, ...] = (1, 0, 1, 1)
        stride, padding, dilation, groups = (*arguments[3:], *defaults[len(arguments[3:]) :])
        make = nn.Conv1d if kind == "conv1d" else nn.Conv2d
        layer = make(
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride=tuple(stride) if isinstance(stride, list) else stride,
            padding=tuple(padding) if isinstance(padding, list) else padding,
            dilation=tuple(dilation) if isinstance(dilation, list) else dilation,
            groups=groups,
            bias=bias is not None,
        )
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def norm_layer(graph_module: "fx.GraphModule", node: "fx.Node") -> Any:
    """Return the batch norm that alone reads the node, as a layer over channels, or None."""
    from torch import nn

    readers = list(node.users)
    if len(readers) != 1 or str(readers[0].target) != "aten.batch_norm.default":
        return None
    weight, bias, mean, variance = (constant(graph_module, argument) for argument in readers[0].args[1:5])
    if mean is None:
        return None
    momentum, epsilon = readers[0].args[6:8]
    kind = nn.BatchNorm2d if str(node.target).startswith("aten.conv2d") else nn.BatchNorm1d
    norm = kind(len(mean), eps=epsilon, momentum=momentum, affine=weight is not None)  # type: ignore[arg-type]
    norm.running_mean, norm.running_var = mean.clone(), variance.clone()
    if weight is not None and bias is not None:
        norm.weight, norm.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return norm.eval()
