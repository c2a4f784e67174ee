"""A better start for recovery: what is left of each layer makes up for what it no longer reads.

A layer that lost inputs can often guess them from those it kept. With x the layer's inputs in the parent (patches, for
a convolution), C their covariance, mu their mean and K the kept ones, the least squares answer is

    W' = W C_K^T (C_KK + lambda I)^-1    b' = b + W mu - W' mu_K

lambda is a small share of the mean of C_KK's diagonal. Batch norms then take new statistics from the same inputs, which
is where the shift goes if a layer has no bias. Nothing is trained and no labels are needed.

It helps most where recovery is short. Weights differ from the parent's afterwards, so they have to be stored.

Source: He et al. 2017, arXiv:1707.06168 (reconstruction of channels); Luo et al. 2017, arXiv:1707.06342.
"""

from typing import TYPE_CHECKING, Any

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning.structured.cut import Cut
from halve.techniques.compression.pruning.structured.depth import remove_blocks
from halve.techniques.compression.pruning.structured.groups import Inputs, opened, tensors
from halve.techniques.compression.pruning.structured.rebuild import RebuildSpecification

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST_PATCHES = 4096
"""Patches or vectors taken of each batch, at random: they are far from independent anyway."""


def reconstruct(
    module: "nn.Module",
    parent: "nn.Module",
    specification: RebuildSpecification,
    inputs: Inputs,
    *,
    batch_rows: int = 16,
    ridge: float = 1e-2,
    seed: int = 0,
) -> None:
    """Correct the pruned module's linear layers and 2-D convolutions for the inputs they lost, in place.

    Args:
        module: `rebuild(parent, specification)`; left in evaluation mode.
        parent: The whole module, which stays as it is.
        specification: What was cut.
        inputs: Real inputs, at least one row; a few hundred.
        batch_rows: Rows per run, >= 1.
        ridge: lambda, as a share of the mean variance, > 0.
        seed: Of the patches that are taken.

    Raises:
        InvalidParameterError: If a number is outside its range, or there is no row.
        ModelError: If the parent fails, or the specification is not of it.
    """
    if batch_rows < 1 or not ridge > 0:
        raise InvalidParameterError("batch_rows and ridge", rule="at least 1 and above 0", value=(batch_rows, ridge))
    if not inputs or min(len(array) for array in inputs.values()) == 0:
        raise InvalidParameterError("inputs", rule="at least one row", value={k: v.shape for k, v in inputs.items()})
    whole = opened(remove_blocks(parent, specification.removed_blocks)).eval()
    layers, smaller = dict(whole.named_modules()), dict(module.named_modules())
    missing = [name for name in specification.layers if name not in layers or name not in smaller]
    if missing:
        raise ModelError(f"the parent has no layer {missing[0]!r} of the specification.")
    wanted = {
        name: cut for name, cut in specification.layers.items() if cut.inputs is not None and _is_product(layers[name])
    }
    moments = _moments(whole, {name: layers[name] for name in wanted}, inputs, batch_rows=batch_rows, seed=seed)
    for name, (covariance, mean) in moments.items():
        _correct(smaller[name], layers[name], wanted[name], covariance, mean, ridge=ridge)
    _new_statistics(module, inputs, batch_rows=batch_rows)


def _is_product(layer: Any) -> bool:
    from torch import nn

    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _moments(
    whole: "nn.Module", layers: "dict[str, Any]", inputs: Inputs, *, batch_rows: int, seed: int
) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
    """Return the covariance, float64 (d, d), and mean, (d,), of what each layer multiplies."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def watch(layer: Any, given: Any, _: Any) -> None:
            vectors = _vectors(layer, given[0])
            if len(vectors) > MOST_PATCHES:
                vectors = vectors[torch.randint(len(vectors), (MOST_PATCHES,), generator=generator)]
            count, total, products = sums.get(name, (0, 0.0, 0.0))
            sums[name] = (
                count + len(vectors),
                total + vectors.double().sum(0),
                products + (vectors.T @ vectors).double(),
            )

        return watch

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    _run(whole, inputs, batch_rows=batch_rows)
    for handle in handles:
        handle.remove()
    found = {}
    for name, (count, total, products) in sums.items():
        mean = total / count
        found[name] = (products / count - torch.outer(mean, mean), mean)
    return found


def _vectors(layer: Any, tensor: "torch.Tensor") -> "torch.Tensor":
    """Return what the layer's flattened weight is multiplied with, (n, d)."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        return tensor.flatten(0, -2)
    padding = 0 if isinstance(layer.padding, str) else layer.padding
    if layer.padding == "same":
        padding = tuple((k - 1) * d // 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    patches = nn.functional.unfold(
        tensor, layer.kernel_size, dilation=layer.dilation, padding=padding, stride=layer.stride
    )
    return patches.transpose(1, 2).flatten(0, 1)


def _correct(
    smaller: Any, whole: Any, cut: Cut, covariance: "torch.Tensor", mean: "torch.Tensor", *, ridge: float
) -> None:
    import torch

    area = whole.weight[0, 0].numel()
    places = torch.arange(area)
    kept = (torch.tensor(cut.inputs)[:, None] * area + places).flatten()
    outputs = torch.arange(len(whole.weight)) if cut.outputs is None else torch.tensor(cut.outputs)
    weight = whole.weight.detach()[outputs].flatten(1).double()
    system = covariance[kept][:, kept]
    system = system + max(float(ridge * system.diagonal().mean()), 1e-12) * torch.eye(len(kept), dtype=system.dtype)
    found = torch.linalg.solve(system, (weight @ covariance[:, kept]).T).T
    # What the ridge takes from the kept inputs' own weights is given back: without lost inputs nothing changes.
    own = torch.linalg.solve(system, (weight[:, kept] @ covariance[kept][:, kept]).T).T
    found = found + weight[:, kept] - own
    with torch.no_grad():
        smaller.weight.copy_(found.reshape(smaller.weight.shape))
        if smaller.bias is not None:
            smaller.bias.copy_(whole.bias.detach()[outputs].double() + weight @ mean - found @ mean[kept])


def _new_statistics(module: "nn.Module", inputs: Inputs, *, batch_rows: int) -> None:
    """Give every batch norm the mean and variance of the inputs, averaged over batches."""
    from torch import nn

    module.eval()
    norms: list[Any] = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and layer.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    if norms:
        _run(module, inputs, batch_rows=batch_rows)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()


def _run(module: "nn.Module", inputs: Inputs, *, batch_rows: int) -> None:
    import torch

    arguments, count = tensors(inputs), min(len(array) for array in inputs.values())
    try:
        with torch.no_grad():
            for start in range(0, count, batch_rows):
                module(*(argument[start : start + batch_rows] for argument in arguments))
    except Exception as error:  # It is the user's own code.
        raise ModelError(f"{type(module).__name__} failed: {error}") from error
