"""Where a module has dense feed-forwards, where it has mixtures, and how one takes the place of the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from halve.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from halve.techniques.compression.mixture_of_experts.config import Activation
    from halve.techniques.compression.mixture_of_experts.layer import MixtureOfExperts

NAMED = (
    ("linear1", "activation", "linear2"),  # torch.nn.TransformerEncoderLayer and TransformerDecoderLayer
    ("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense"),  # BERT, RoBERTa, ViT
    ("lin1", "activation", "lin2"),  # DistilBERT
    ("fc1", "act", "fc2"),  # timm
    ("fc1", "activation_fn", "fc2"),  # CLIP, OPT and BART
)
"""Attributes of a module that computes second(activation(first(x))), as libraries name them."""


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """A dense feed-forward: second(activation(first(x))).

    Args:
        name: Of the first linear layer, and of this feed-forward.
        between: Names of what stands between the two products: the activation, and dropout if it is a child there.
        second: Name of the second linear layer.
        activation: Which one.
        inputs, neurons, outputs: Features.
    """

    name: str
    between: tuple[str, ...]
    second: str
    activation: "Activation"
    inputs: int
    neurons: int
    outputs: int


def feed_forwards(module: "nn.Module") -> tuple[FeedForward, ...]:
    """Return the dense feed-forwards of a module, in the order of its submodules.

    Found are children that libraries call as in `NAMED`, and Linear, activation, [dropout,] Linear in an
    `nn.Sequential`. Activations: ReLU, GELU (exact or tanh), SiLU, told by what they compute. Residual sums and norms
    around it stay where they are.

    Raises:
        MissingExtraError: If torch is not installed.
    """
    require_torch()
    from torch import nn

    found: list[FeedForward] = []
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(part, nn.Sequential):
            found += _in_sequence(part, prefix)
            continue
        for first, activation, second in NAMED:
            candidate = _pair(part, prefix, first, (activation,), second)
            if candidate is not None:
                found.append(candidate)
    return tuple(found)


def mixtures(module: "nn.Module") -> "dict[str, MixtureOfExperts]":
    """Return the mixtures of a module, by submodule name.

    Raises:
        MissingExtraError: If torch is not installed.
    """
    require_torch()
    from halve.techniques.compression.mixture_of_experts.layer import MixtureOfExperts

    return {name: part for name, part in module.named_modules() if isinstance(part, MixtureOfExperts)}


def put(module: "nn.Module", place: FeedForward, mixture: "nn.Module") -> None:
    """Put a mixture where a dense feed-forward is: it takes the first layer's name, the rest becomes the identity."""
    from torch import nn

    _set(module, place.name, mixture)
    for name in (*place.between, place.second):
        _set(module, name, nn.Identity())
    parent = module.get_submodule(place.name.rpartition(".")[0])
    if hasattr(parent, "activation_relu_or_gelu"):
        # torch's fused encoder kernel would read the weights of the two layers that are gone.
        parent.activation_relu_or_gelu = 0  # type: ignore[assignment]
    for owner in module.modules():
        if isinstance(owner, nn.TransformerEncoder):
            owner.use_nested_tensor = False


def require_torch() -> None:
    """Check that torch is there.

    Raises:
        MissingExtraError: If it is not.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("mixture of experts", package="torch", extra="torch") from None


def _in_sequence(part: "nn.Sequential", prefix: str) -> Iterator[FeedForward]:
    from torch import nn

    names = list(part._modules)
    start = 0
    while start < len(names):
        end = start + 2
        while end < len(names) and isinstance(part[end], nn.Dropout):
            end += 1
        found = (
            _pair(part, prefix, names[start], tuple(names[start + 1 : end]), names[end]) if end < len(names) else None
        )
        if found is not None:
            yield found
        # The second layer of one pair is not the first of the next: its place is taken.
        start = end + 1 if found is not None else start + 1


def _pair(part: "nn.Module", prefix: str, first: str, between: tuple[str, ...], second: str) -> FeedForward | None:
    from torch import nn

    one, two, function = (_get(part, name) for name in (first, second, between[0]))
    if type(one) is not nn.Linear or type(two) is not nn.Linear or one.out_features != two.in_features:
        return None
    activation = activation_of(function) if callable(function) else None
    if activation is None:
        return None
    return FeedForward(
        name=prefix + first,
        between=tuple(prefix + name for name in between),
        second=prefix + second,
        activation=activation,
        inputs=one.in_features,
        neurons=one.out_features,
        outputs=two.out_features,
    )


def activation_of(function: "Callable[[Any], Any]") -> "Activation | None":
    """Return which activation a callable computes, None if it is none that a mixture has."""
    import torch
    from torch import nn

    from halve.techniques.compression.mixture_of_experts.layer import activate

    if isinstance(function, nn.Module) and any(True for _ in function.parameters()):
        return None
    points = torch.linspace(-10, 10, 201)
    try:
        with torch.no_grad():
            values = function(points.clone())
    except Exception:  # It is somebody's own function, and maybe no activation at all.
        return None
    names: tuple[Activation, ...] = ("relu", "gelu", "gelu_tanh", "silu")
    if not isinstance(values, torch.Tensor) or values.shape != points.shape:
        return None
    # The two kinds of GELU differ by up to 5e-4.
    equal = [name for name in names if torch.allclose(values, activate(points, name), atol=1e-5, rtol=0)]
    return equal[0] if equal else None


def _get(part: "nn.Module", name: str) -> Any:
    for step in name.split("."):
        part = getattr(part, step, None)  # type: ignore[assignment]
    return part


def _set(module: "nn.Module", name: str, value: "nn.Module") -> None:
    parent, _, last = name.rpartition(".")
    owner = module.get_submodule(parent)
    if last not in owner._modules:
        delattr(owner, last)  # a plain function, as in TransformerEncoderLayer
    setattr(owner, last, value)
