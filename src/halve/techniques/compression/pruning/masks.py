"""Unstructured and N:M pruning: masks of weights that become zero, and what keeps them zero.

Zeros save nothing on a CPU: dense kernels multiply by them like by any other number (`sparsity_speed` measures it).
They shrink compressed files, and they are the yardstick for Wanda and SparseGPT.

A mask is bool, true where a weight stays. Only weights with two dimensions or more are pruned: biases and norms are
few, and every one matters.

Sources: Han et al. 2015, arXiv:1506.02626 (magnitude); Zhou et al. 2021, arXiv:2102.04010 (N:M).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from halve.errors import InvalidParameterError, MissingExtraError

if TYPE_CHECKING:
    import torch
    from torch import nn

Masks = Mapping[str, "torch.Tensor"]
"""By parameter name; bool, the parameter's shape, true where it stays."""

Scope = Literal["global", "layer"]


def magnitude_masks(module: "nn.Module", *, sparsity: float, scope: Scope = "global") -> "dict[str, torch.Tensor]":
    """Return masks that drop the weights of least magnitude; zeros that are there already count and stay.

    Args:
        module: Its parameters of two or more dimensions are pruned; embeddings are not.
        sparsity: Share of weights that go, 0 to 1; reached to within half a weight (per layer, in scope `layer`).
        scope: `global` compares all weights with each other, `layer` those of one layer.

    Raises:
        InvalidParameterError: If the sparsity or scope is outside its range, or nothing can be pruned.
        MissingExtraError: If torch is not installed.
    """
    _require_torch()
    import torch

    if scope not in ("global", "layer"):
        raise InvalidParameterError("scope", rule="global or layer", value=scope)
    check_sparsity(sparsity)
    weights = prunable_weights(module)
    if scope == "layer":
        return {name: lowest_dropped(weight.detach().abs(), sparsity) for name, weight in weights.items()}
    sizes = [weight.numel() for weight in weights.values()]
    flat = lowest_dropped(torch.cat([weight.detach().abs().flatten() for weight in weights.values()]), sparsity)
    parts = torch.split(flat, sizes)
    return {name: part.reshape(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def n_of_m_mask(weight: "torch.Tensor", *, n: int, m: int) -> "torch.Tensor":
    """Return the mask that keeps the n largest of every m weights along the input dimension; of equal ones the first.

    Args:
        weight: Float, outputs first. Inputs are everything behind, flattened: a linear layer's columns, a filter's
            channels and places. Their number must be divisible by m.
        n, m: 1 <= n <= m; 2 of 4 is what GPUs have kernels for.

    Raises:
        InvalidParameterError: If a number is outside its range, or m does not divide the inputs.
    """
    return kept_of_m(weight.detach().abs(), n=n, m=m)


def kept_of_m(scores: "torch.Tensor", *, n: int, m: int) -> "torch.Tensor":
    """Return the mask of the n highest scores of every m along the inputs, shaped as the scores."""
    import torch

    if not 1 <= n <= m:
        raise InvalidParameterError("n and m", rule="1 <= n <= m", value=(n, m))
    inputs = scores[0].numel() if scores.ndim > 1 and len(scores) else 0
    if inputs == 0 or inputs % m:
        raise InvalidParameterError("weight", rule=f"(out, in) with in divisible by {m}", value=tuple(scores.shape))
    blocks = scores.reshape(-1, m)
    order = blocks.argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(blocks, dtype=torch.bool)
    return mask.scatter_(1, order[:, :n], True).reshape(scores.shape)


def apply_masks(module: "nn.Module", masks: Masks) -> None:
    """Set the weights that the masks leave out to zero, in place.

    Raises:
        InvalidParameterError: If a name is no parameter, or a shape does not fit.
    """
    import torch

    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise InvalidParameterError("masks", rule="named as the module's parameters", value=name)
        if parameters[name].shape != mask.shape:
            rule = f"of shape {tuple(parameters[name].shape)}"
            raise InvalidParameterError(f"masks[{name!r}]", rule=rule, value=tuple(mask.shape))
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].masked_fill_(~mask, 0)


class MaskKeeper:
    """Keeps pruned weights at zero while training goes on: they are set back after every step of the optimizer.

    Momentum and weight decay move weights without a gradient, so masking gradients is not enough. Masks only ever
    grow emptier: `tighten` refuses to bring a weight back.

        with MaskKeeper(module, masks).following(optimizer):
            train(...)

    Args:
        module: Its weights are set to zero at once.
        masks: See `apply_masks`.
    """

    def __init__(self, module: "nn.Module", masks: Masks) -> None:
        self.module, self.masks = module, {name: mask.clone() for name, mask in masks.items()}
        self._handles: list[Any] = []
        self.enforce()

    def enforce(self) -> None:
        """Set what is pruned to zero."""
        apply_masks(self.module, self.masks)

    def following(self, optimizer: "torch.optim.Optimizer") -> "MaskKeeper":
        """Enforce after every step of this optimizer, until `release` or the end of the `with` block."""
        self._handles.append(optimizer.register_step_post_hook(lambda *_: self.enforce()))
        return self

    def tighten(self, masks: Masks) -> None:
        """Prune more: what is pruned already stays so, whatever the new masks say.

        Raises:
            InvalidParameterError: If a name is no parameter, or a shape does not fit.
        """
        apply_masks(self.module, masks)
        for name, mask in masks.items():
            self.masks[name] = self.masks[name] & mask if name in self.masks else mask.clone()
        self.enforce()

    def release(self) -> None:
        """Stop following."""
        while self._handles:
            self._handles.pop().remove()

    def __enter__(self) -> "MaskKeeper":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def measure_sparsity(module: "nn.Module") -> float:
    """Return the share of weights that are exactly zero, over all that can be pruned, 0 to 1.

    Raises:
        InvalidParameterError: If nothing can be pruned.
    """
    weights = prunable_weights(module).values()
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


def prunable_weights(module: "nn.Module") -> "dict[str, nn.Parameter]":
    """Return the parameters of two or more dimensions that multiply, by name: all but embeddings.

    Raises:
        InvalidParameterError: If there is none.
        MissingExtraError: If torch is not installed.
    """
    _require_torch()
    from torch import nn

    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    found = {name: p for name, p in module.named_parameters() if p.ndim > 1 and p.numel() and id(p) not in tables}
    if not found:
        raise InvalidParameterError("module", rule="one with weights to prune", value=type(module).__name__)
    return found


def lowest_dropped(scores: "torch.Tensor", sparsity: float) -> "torch.Tensor":
    """Return the mask without the lowest scores, round(sparsity x count) of them; of equal ones the last go."""
    import torch

    dropped = round(sparsity * scores.numel())
    order = scores.flatten().argsort(descending=True, stable=True)
    mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[scores.numel() - dropped :]] = False
    return mask.reshape(scores.shape)


def check_sparsity(sparsity: float) -> None:
    """Check that it is a share.

    Raises:
        InvalidParameterError: If not.
    """
    if not 0 <= sparsity <= 1:
        raise InvalidParameterError("sparsity", rule="0 to 1", value=sparsity)


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("pruning", package="torch", extra="torch") from None
