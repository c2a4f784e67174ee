"""Which layer gets how many bits: the least time within an error budget.

Each layer is first quantized alone, and the error of the logits measured. Errors of several layers are taken as
independent, so their squares add:

    error(all)^2 ~ sum over layers of error(layer alone)^2

That is the second-order model of the loss with the terms between layers left out (Nagel et al. 2021,
arXiv:2106.08295, section 4.3; Dong et al. 2019, arXiv:1911.03852). It is an approximation: the artifact that comes out
of it is measured as a whole before anybody trusts it.

Choosing is then a multiple-choice knapsack, solved exactly: layer by layer, keep every selection so far that no other
one beats in both error and seconds (Nemhauser and Ullmann 1969). The front is small in practice, because what
can no longer keep the budget, or no longer win, is dropped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import Grid, QuantizedTensor
from halve.techniques.compression.quantization.agreement import relative_rmse
from halve.techniques.compression.quantization.calibration import Batches
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.qdq import write_qdq
from halve.techniques.compression.quantization.runtime import run_logits

ROUNDING = 1 + 1e-9
"""A sum this little above a bound keeps it: both are sums of floats."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to run a layer.

    Args:
        name: `fp32`, `int8`, ...
        error: Relative RMSE of the logits when only this layer runs so, >= 0.
        seconds: Of the layer, >= 0.
    """

    name: str
    error: float
    seconds: float


def sensitivity(
    graph: Graph, *, weights: Mapping[str, QuantizedTensor], activations: Mapping[str, Grid], batches: Batches
) -> dict[str, float]:
    """Return the relative RMSE of the logits when only one layer, and what it reads, is quantized; by layer name.

    Measured through onnxruntime, one model per layer. A tensor that two layers read counts for both.

    Args:
        graph: The fp32 model.
        weights: By layer name: the layers to measure.
        activations: By tensor name. A layer whose input is not among them is measured with its weight alone.
        batches: Real inputs.

    Raises:
        InvalidParameterError: If a name is not in the model, or there is no batch.
        ModelError: If a model cannot be run.
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    expected = run_logits(graph.to_bytes(), batches)
    inputs = {layer.name: layer.input for layer in graph.layers}
    errors = {}
    for name, weight in weights.items():
        read = inputs.get(name, "")
        grids = {read: activations[read]} if read in activations else {}
        content = write_qdq(graph, weights={name: weight}, activations=grids, only_products=True)
        errors[name] = relative_rmse(expected, run_logits(content, batches))
    return errors


def choose_layers(options: Mapping[str, Sequence[Option]], *, error_budget: float) -> dict[str, str]:
    """Return the name of each layer's option: the fewest seconds together, within the error budget.

    Exact. Among selections of equal seconds the one of least error is taken, among those the first, in the order
    of the options.

    Args:
        options: By layer name, at least one each.
        error_budget: Largest root of the sum of squared errors, >= 0.

    Raises:
        InvalidParameterError: If a number is negative or not finite, a layer has no option, or nothing keeps the
            budget.
    """
    _check(options, error_budget)
    squares = [np.array([option.error**2 for option in given]) for given in options.values()]
    seconds = [np.array([option.seconds for option in given]) for given in options.values()]
    least = math.sqrt(sum(float(square.min()) for square in squares))
    if least > error_budget * ROUNDING:
        raise InvalidParameterError(
            "error_budget", rule=f"at least {least:.3g}, the least possible", value=error_budget
        )
    picked = _fastest(squares, seconds, error_budget**2 * ROUNDING)
    return {name: given[index].name for (name, given), index in zip(options.items(), picked, strict=True)}


def _check(options: Mapping[str, Sequence[Option]], error_budget: float) -> None:
    if not (math.isfinite(error_budget) and error_budget >= 0):
        raise InvalidParameterError("error_budget", rule="finite and at least 0", value=error_budget)
    for layer, given in options.items():
        if not given:
            raise InvalidParameterError(f"options[{layer!r}]", rule="at least one option", value=0)
        for option in given:
            for field in ("error", "seconds"):
                value = getattr(option, field)
                if not (math.isfinite(value) and value >= 0):
                    owner = f"{field} of {option.name!r} in options[{layer!r}]"
                    raise InvalidParameterError(owner, rule="finite and at least 0", value=value)


def _fastest(
    squares: Sequence[NDArray[np.float64]], seconds: Sequence[NDArray[np.float64]], budget: float
) -> list[int]:
    """Return the index of each layer's option.

    A state is a selection for the layers so far: (error, time), and the state and option it came from.
    """
    least_error = _sums_behind([float(square.min()) for square in squares])
    least_time = _sums_behind([float(time.min()) for time in seconds])
    enough = _greedy(squares, seconds, budget) * ROUNDING
    error, time = np.zeros(1), np.zeros(1)
    steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for layer, (square, second) in enumerate(zip(squares, seconds, strict=True)):
        errors, times = np.add.outer(error, square).ravel(), np.add.outer(time, second).ravel()
        can_win = (errors + least_error[layer + 1] <= budget) & (times + least_time[layer + 1] <= enough)
        index = np.flatnonzero(can_win)
        index = index[np.lexsort((errors[index], times[index]))]  # stable: equal ones stay in the order of options
        best_before = np.minimum.accumulate(np.concatenate([[np.inf], errors[index][:-1]]))
        index = index[errors[index] < best_before]
        steps.append((index // len(square), index % len(square)))
        error, time = errors[index], times[index]
    state, picked = 0, []  # the front is sorted by time: its first state is the fastest
    for before, option in reversed(steps):
        picked.append(int(option[state]))
        state = int(before[state])
    return picked[::-1]


def _sums_behind(values: Sequence[float]) -> list[float]:
    """Return for each position the sum from there to the end; one more than there are values."""
    sums = [0.0]
    for value in reversed(values):
        sums.append(sums[-1] + value)
    return sums[::-1]


def _greedy(squares: Sequence[NDArray[np.float64]], seconds: Sequence[NDArray[np.float64]], budget: float) -> float:
    """Return the seconds of one selection within the budget: no better one is slower.

    From the least errors on, the change that saves most seconds per error is made, as long as the budget holds it.
    """
    picked = [int(np.lexsort((second, square))[0]) for square, second in zip(squares, seconds, strict=True)]
    error = sum(float(square[index]) for square, index in zip(squares, picked, strict=True))
    changes = sorted(
        (-(second[start] - second[new]) / max(square[new] - square[start], 1e-300), layer, new)
        for layer, (square, second, start) in enumerate(zip(squares, seconds, picked, strict=True))
        for new in range(len(square))
        if second[new] < second[start]
    )
    for _, layer, new in changes:
        grown = error + float(squares[layer][new] - squares[layer][picked[layer]])
        if seconds[layer][new] < seconds[layer][picked[layer]] and grown <= budget:
            error, picked[layer] = grown, new
    return sum(float(second[index]) for second, index in zip(seconds, picked, strict=True))
