"""SparseGPT: weights go one column at a time, and the columns behind make up for them (optimal brain surgeon).

With H = X X^T + lambda I over the layer's inputs and H^-1 = U^T U (U upper triangular, Cholesky), column j of a row is
either kept or set to zero, and what that changes in the output is undone as far as later columns can:

    score_ij = W_ij^2 / U_jj^2              the error that dropping W_ij leaves
    e = (W_ij - kept) / U_jj                W_i,k -= e U_jk   for k > j

Masks are chosen for a block of columns at once, by the scores when the block is reached: the lowest share of the block
over all rows, or the n best of m columns in each row. A feature that is always 0 has H_jj = 0; its weights
go first and change nothing.

It beats magnitude where inputs are correlated. Where they are not, H is diagonal and it is Wanda.

Source: Frantar and Alistarh 2023, arXiv:2301.00774, algorithm 1; LeCun et al. 1990 and Hassibi et al. 1993 (OBS).
"""

from typing import TYPE_CHECKING

from halve.errors import InvalidParameterError
from halve.techniques.compression.pruning.calibration import Inputs, linear_inputs, linear_layers
from halve.techniques.compression.pruning.masks import kept_of_m, lowest_dropped
from halve.techniques.compression.pruning.wanda import check_target

if TYPE_CHECKING:
    import torch
    from torch import nn

BLOCK = 128
"""Columns whose mask is chosen at once."""

DAMPING = 0.01
"""lambda, as a share of the mean of H's diagonal."""


def sparse_gpt(
    weight: "torch.Tensor",
    products: "torch.Tensor",
    *,
    sparsity: float | None = None,
    n_of_m: tuple[int, int] | None = None,
    block: int = BLOCK,
    damping: float = DAMPING,
) -> "torch.Tensor":
    """Return the pruned and corrected weight of one linear layer, (out, in), its type the given one's.

    Args:
        weight: (out, in), finite.
        products: X X^T, summed over the calibration vectors, (in, in).
        sparsity: Share of the weights that go, 0 to 1, to within one weight.
        n_of_m: Instead: (n, m), n of every m inputs stay; m divides the inputs.
        block: Columns whose mask is chosen at once, >= 1; m with `n_of_m`.
        damping: Added to the diagonal, as a share of its mean, > 0.

    Raises:
        InvalidParameterError: If a number is outside its range, or a shape does not fit.
    """
    import torch

    columns = weight.shape[1] if weight.ndim == 2 else 0
    if columns == 0 or products.shape != (columns, columns):
        got = (tuple(weight.shape), tuple(products.shape))
        raise InvalidParameterError("weight and products", rule="of shapes (out, in) and (in, in)", value=got)
    check_target(sparsity, n_of_m)
    if block < 1 or not damping > 0:
        raise InvalidParameterError("block and damping", rule="at least 1 and above 0", value=(block, damping))
    if n_of_m is not None:
        block = n_of_m[1]  # Each m columns are chosen by what the corrections made of them.
    rows, dead, upper = weight.detach().double().clone(), products.diagonal() == 0, _upper(products, damping)
    rows[:, dead] = 0
    gone = 0
    for start in range(0, columns, block):
        end = min(columns, start + block)
        scores = (rows[:, start:end] / upper.diagonal()[start:end]).square()
        if n_of_m is not None:
            mask = kept_of_m(scores, n=n_of_m[0], m=n_of_m[1])
        else:
            assert sparsity is not None
            # Counted from the start, so that rounding does not add up over blocks.
            wanted = round(sparsity * len(rows) * end) - gone
            mask = lowest_dropped(scores, wanted / scores.numel())
            gone += wanted
        errors = torch.zeros_like(scores)
        for column in range(start, end):
            local = column - start
            kept = torch.where(mask[:, local], rows[:, column], 0.0)
            errors[:, local] = (rows[:, column] - kept) / upper[column, column]
            rows[:, column:end] -= torch.outer(errors[:, local], upper[column, column:end])
            rows[:, column] = kept
        rows[:, end:] -= errors @ upper[start:end, end:]
    return rows.to(weight.dtype)


def sparse_gpt_prune(
    module: "nn.Module",
    inputs: Inputs,
    *,
    sparsity: float | None = None,
    n_of_m: tuple[int, int] | None = None,
    skip: tuple[str, ...] = (),
) -> "dict[str, torch.Tensor]":
    """Prune every linear layer that the inputs reach, in place, and return the masks by parameter name.

    Layers are pruned in order, each by what it is given once the layers before it are pruned.

    Args:
        module: Changed in place.
        inputs: Real inputs, at least one row.
        sparsity, n_of_m: See `sparse_gpt`.
        skip: Names of layers to leave alone.

    Raises:
        InvalidParameterError: As `sparse_gpt`, or if there is no input row.
        ModelError: If the module fails.
        MissingExtraError: If torch is not installed.
    """
    import torch

    check_target(sparsity, n_of_m)
    layers, masks = linear_layers(module), {}
    for name in linear_inputs(module, inputs):
        if name in skip:
            continue
        products = linear_inputs(module, inputs)[name]
        layer = layers[name]
        with torch.no_grad():
            layer.weight.copy_(sparse_gpt(layer.weight, products, sparsity=sparsity, n_of_m=n_of_m))
        masks[f"{name}.weight".lstrip(".")] = layer.weight.detach() != 0
    return masks


def _upper(products: "torch.Tensor", damping: float) -> "torch.Tensor":
    """Return U of H^-1 = U^T U."""
    import torch

    hessian = products.detach().double().clone()
    diagonal = hessian.diagonal()
    diagonal[diagonal == 0] = 1
    diagonal += damping * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return upper
