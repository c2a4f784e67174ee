"""Layers made smaller: kept rows, kept columns, and every number that a layer remembers about its own shape.

layer            axis "out" (what it gives)              axis "in" (what it takes)
Linear           rows of W, entries of b                 columns of W
Conv1d to 3d     filters, entries of b                   channels of every filter
depthwise conv   filters and groups                      the same
batch norm       gamma, beta, running mean, variance     the same
layer norm       gamma, beta                             the same
group norm       gamma, beta, whole groups               the same
PReLU            slopes                                  the same
Embedding        columns of the table                    -
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from halve.errors import InvalidParameterError, ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

Positions = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is kept of one layer.

    Args:
        outputs: Positions kept along its outputs, ascending, at least one; None keeps all.
        inputs: Positions kept along its inputs, ascending, at least one; None keeps all.
    """

    outputs: Positions | None = None
    inputs: Positions | None = None

    def __post_init__(self) -> None:
        for name in ("outputs", "inputs"):
            kept = getattr(self, name)
            if kept is None:
                continue
            if not kept or kept[0] < 0 or any(a >= b for a, b in pairwise(kept)):
                raise InvalidParameterError(name, rule="ascending positions >= 0, at least one", value=list(kept))

    def after(self, earlier: "Cut") -> "Cut":
        """Return the one cut that does what `earlier` and then this one do."""
        return Cut(outputs=_composed(earlier.outputs, self.outputs), inputs=_composed(earlier.inputs, self.inputs))


def composed(earlier: Mapping[str, Cut], later: Mapping[str, Cut]) -> dict[str, Cut]:
    """Return the cuts of all layers that do what the earlier ones and then the later ones do."""
    whole = Cut()
    names = [*earlier, *(name for name in later if name not in earlier)]
    return {name: later.get(name, whole).after(earlier.get(name, whole)) for name in names}


def size(layer: "nn.Module", axis: str) -> int | None:
    """Return how many positions a layer has along `out` or `in`, None if it is of no kind that can be cut."""
    from torch import nn

    if isinstance(layer, _convolutions()) and not _is_dense_or_depthwise(layer):
        return None
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) != 1:
        return None
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return None
    for kinds, names in _attributes():
        if isinstance(layer, kinds):
            found: Any = getattr(layer, names[axis], None)
            return int(found[0]) if isinstance(found, tuple) else None if found is None else int(found)
    return None


def unit_of(layer: "nn.Module") -> int:
    """Return how many neighbouring positions can only go together: a group of a group norm, else 1."""
    from torch import nn

    return layer.num_channels // layer.num_groups if isinstance(layer, nn.GroupNorm) else 1


def cut_layers(module: "nn.Module", cuts: Mapping[str, Cut]) -> None:
    """Make the named layers smaller, in place; attention layers are told how many heads they have left.

    Raises:
        InvalidParameterError: If a position is beyond the layer's size.
        ModelError: If there is no such layer, or it is of a kind that cannot be cut.
    """
    import torch

    modules = dict(module.named_modules())
    with torch.no_grad():
        for name, cut in cuts.items():
            if name not in modules:
                raise ModelError(f"the module has no layer {name!r} to cut.")
            _cut_layer(modules[name], cut, name=name)
    for owner in modules.values():
        _count_heads(owner)


def _cut_layer(layer: "nn.Module", cut: Cut, *, name: str) -> None:
    from torch import nn

    for axis, kept in (("out", cut.outputs), ("in", cut.inputs)):
        if kept is None:
            continue
        most = size(layer, axis)
        if most is None:
            raise ModelError(f"{name} is a {type(layer).__name__}, which cannot be cut along {axis!r}.")
        if kept[-1] >= most:
            raise InvalidParameterError(f"{name}.{axis}", rule=f"positions below {most}", value=kept[-1])
    if isinstance(layer, nn.Linear):
        _cut_product(layer, cut, ("out_features", "in_features"))
    elif isinstance(layer, _convolutions()):
        _cut_product(layer, cut, ("out_channels", "in_channels"))
    elif isinstance(layer, nn.Embedding):
        assert cut.outputs is not None
        layer.weight = _kept(layer.weight, cut.outputs, 1)
        layer.embedding_dim = len(cut.outputs)
    else:
        _cut_norm(layer, cut.outputs or cut.inputs or ())


def _cut_product(layer: Any, cut: Cut, attributes: tuple[str, str]) -> None:
    """Cut a linear layer or a convolution; a depthwise one has one axis, whichever is named."""
    out_name, in_name = attributes
    outputs, inputs = cut.outputs, cut.inputs
    if getattr(layer, "groups", 1) > 1:
        outputs, inputs = outputs or inputs, None
        layer.groups = len(outputs or ())
        layer.in_channels = layer.groups
    if outputs is not None:
        layer.weight = _kept(layer.weight, outputs, 0)
        if layer.bias is not None:
            layer.bias = _kept(layer.bias, outputs, 0)
        setattr(layer, out_name, len(outputs))
    if inputs is not None:
        layer.weight = _kept(layer.weight, inputs, 1)
        setattr(layer, in_name, len(inputs))


def _cut_norm(layer: Any, kept: Positions) -> None:
    """Cut whatever has one number per channel."""
    from torch import nn

    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, _kept(parameter, kept, 0))
    for name, buffer in list(layer.named_buffers(recurse=False)):
        if buffer.ndim:
            setattr(layer, name, buffer[list(kept)].clone())
    if isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (len(kept),)
    elif isinstance(layer, nn.GroupNorm):
        unit = unit_of(layer)
        layer.num_channels, layer.num_groups = len(kept), len(kept) // unit
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(kept)
    else:
        layer.num_features = len(kept)


def _count_heads(owner: Any) -> None:
    """Set the number of heads of an attention layer by the width of its query."""
    query, head = getattr(owner, "query", None), getattr(owner, "attention_head_size", None)
    if query is None or not isinstance(head, int) or not hasattr(query, "out_features"):
        return
    owner.num_attention_heads = query.out_features // head
    if hasattr(owner, "all_head_size"):
        owner.all_head_size = query.out_features


def _kept(parameter: "torch.Tensor", kept: Sequence[int], axis: int) -> "nn.Parameter":
    import torch
    from torch import nn

    index = torch.tensor(list(kept), device=parameter.device)
    part = parameter.detach().index_select(axis, index).contiguous()
    return nn.Parameter(part, requires_grad=parameter.requires_grad)


def _attributes() -> tuple[tuple[Any, dict[str, str]], ...]:
    """Return where a layer of each kind remembers its widths."""
    from torch import nn

    return (
        (nn.Linear, {"out": "out_features", "in": "in_features"}),
        (_convolutions(), {"out": "out_channels", "in": "in_channels"}),
        (nn.Embedding, {"out": "embedding_dim", "in": ""}),
        (nn.LayerNorm, dict.fromkeys(("out", "in"), "normalized_shape")),
        (nn.PReLU, dict.fromkeys(("out", "in"), "num_parameters")),
        (nn.GroupNorm, dict.fromkeys(("out", "in"), "num_channels")),
        (_batch_norms(), dict.fromkeys(("out", "in"), "num_features")),
    )


def _is_dense_or_depthwise(layer: Any) -> bool:
    return bool(layer.groups == 1 or layer.groups == layer.in_channels == layer.out_channels)


def _convolutions() -> Any:
    from torch import nn

    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _batch_norms() -> Any:
    from torch import nn

    return (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _composed(first: Positions | None, second: Positions | None) -> Positions | None:
    if first is None or second is None:
        return second if first is None else first
    return tuple(first[position] for position in second)
