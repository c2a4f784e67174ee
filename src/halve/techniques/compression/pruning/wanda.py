"""Wanda: weights that are small, or that meet small inputs, go; compared within each output row, nothing is retrained.

    S_ij = |W_ij| ||X_j||_2

||X_j||_2 is the norm of input feature j over all calibration vectors. It helps where a few input features are much
larger than the rest, as in transformers; on features of equal size it is magnitude pruning per row.

Source: Sun et al. 2023, arXiv:2306.11695, equation 1.
"""

from typing import TYPE_CHECKING

from halve.errors import InvalidParameterError
from halve.techniques.compression.pruning.calibration import Inputs, linear_inputs, linear_layers
from halve.techniques.compression.pruning.masks import check_sparsity, kept_of_m

if TYPE_CHECKING:
    import torch
    from torch import nn


def wanda_mask(
    weight: "torch.Tensor",
    norms: "torch.Tensor",
    *,
    sparsity: float | None = None,
    n_of_m: tuple[int, int] | None = None,
) -> "torch.Tensor":
    """Return the mask of one linear layer, bool (out, in), true where a weight stays.

    Args:
        weight: (out, in).
        norms: ||X_j||_2 of every input feature, (in,), >= 0.
        sparsity: Share of every row that goes, 0 to 1, to within half a weight.
        n_of_m: Instead: (n, m), the n highest scores of every m inputs stay.

    Raises:
        InvalidParameterError: If not exactly one of the two is given, or a number or shape is wrong.
    """
    import torch

    if weight.ndim != 2 or norms.shape != weight.shape[1:]:
        got = (tuple(weight.shape), tuple(norms.shape))
        raise InvalidParameterError("weight and norms", rule="of shapes (out, in) and (in,)", value=got)
    check_target(sparsity, n_of_m)
    scores = weight.detach().abs().double() * norms.double()
    if n_of_m is not None:
        return kept_of_m(scores, n=n_of_m[0], m=n_of_m[1])
    assert sparsity is not None
    kept = weight.shape[1] - round(sparsity * weight.shape[1])
    order = scores.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :kept], True)


def wanda_masks(
    module: "nn.Module",
    inputs: Inputs,
    *,
    sparsity: float | None = None,
    n_of_m: tuple[int, int] | None = None,
) -> "dict[str, torch.Tensor]":
    """Return the masks of every linear layer that the inputs reach, by parameter name; see `wanda_mask`.

    Raises:
        InvalidParameterError: As `wanda_mask`, or if there is no input row.
        ModelError: If the module fails.
        MissingExtraError: If torch is not installed.
    """
    check_target(sparsity, n_of_m)
    layers = linear_layers(module)
    return {
        f"{name}.weight".lstrip("."): wanda_mask(
            layers[name].weight, products.diagonal().sqrt(), sparsity=sparsity, n_of_m=n_of_m
        )
        for name, products in linear_inputs(module, inputs).items()
    }


def check_target(sparsity: float | None, n_of_m: tuple[int, int] | None) -> None:
    """Check that exactly one of the two is given, and that a sparsity is a share.

    Raises:
        InvalidParameterError: If not.
    """
    if (sparsity is None) == (n_of_m is None):
        raise InvalidParameterError("sparsity, n_of_m", rule="given one, not both", value=(sparsity, n_of_m))
    if sparsity is not None:
        check_sparsity(sparsity)
