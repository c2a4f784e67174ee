"""Whether integers pay on this host: every layer alone, at its real shape, in INT8 and in fp32.

INT8 saves multiplications and adds conversions; which weighs more depends on the shape and the processor, so it is
measured, never assumed. `single_layer` cuts each layer out of the network as it would stand there.

Both kinds run in turn, round by round, and the ratio is taken within a round: what disturbs the machine disturbs
both. A difference counts if it is larger than `NEGLIGIBLE` with `CONFIDENCE`; the interval is that of order statistics,
[x_(k), x_(n+1-k)] with P(Binomial(n, 1/2) < k) <= (1 - confidence) / 2, exact for any distribution.
Source: David and Nagaraja 2003, Order Statistics, section 7.1.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.calibration import Batches, record
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.runtime import open_session
from halve.techniques.compression.quantization.single_layer import SingleLayer, cut_out, touched

Timer = Callable[[Mapping[str, Callable[[], object]]], Mapping[str, Sequence[float]]]
"""Takes actions by name and returns the seconds of each, one per round. A recorded one makes a run repeatable."""

BUDGET_SECONDS = 4.0
"""For all layers of a model together."""

CONFIDENCE = 0.99
"""Of a ratio's interval. Dozens of layers are judged, so one in twenty would be wrong too often."""

NEGLIGIBLE = 0.03
"""A ratio this close to 1 decides nothing."""

FEWEST_ROUNDS, MOST_ROUNDS = 9, 51
"""9 rounds are the fewest whose extremes are an interval of 99 %."""

SAMPLE_SECONDS = 2e-4
"""An action is repeated until a round of it takes so long: far above the clock's step."""


@dataclass(frozen=True, kw_only=True)
class TimingPoint:
    """One layer at one batch size.

    Args:
        rows: The batch size.
        fp32_seconds, int8_seconds: Medians of one call.
        ratio_low, ratio_high: Interval of the median of INT8 seconds over fp32 seconds, round by round.
    """

    rows: int
    fp32_seconds: float
    int8_seconds: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True, kw_only=True)
class LayerTiming:
    """One layer alone in fp32 and in INT8, on this host.

    Args:
        points: By batch size, ascending; at least one.
    """

    points: tuple[TimingPoint, ...]

    @property
    def fp32_seconds(self) -> float:
        """Median at the largest batch size."""
        return self.points[-1].fp32_seconds

    @property
    def int8_seconds(self) -> float:
        """Median at the largest batch size."""
        return self.points[-1].int8_seconds

    @property
    def int8_is_slower(self) -> bool:
        """Whether INT8 is slower beyond noise at any batch size: integers must never cost time."""
        return any(point.ratio_low > 1 + NEGLIGIBLE for point in self.points)

    @property
    def int8_is_faster(self) -> bool:
        """Whether INT8 is faster beyond noise at every batch size."""
        return all(point.ratio_high < 1 - NEGLIGIBLE for point in self.points)


def layer_timings(
    graph: Graph,
    batches: Batches,
    *,
    weight_bits: int,
    batch_sizes: Sequence[int] = (),
    budget_seconds: float = BUDGET_SECONDS,
    timer: Timer | None = None,
) -> dict[str, LayerTiming]:
    """Return every layer's seconds in fp32 and INT8, by layer name. Layers of one shape are measured once.

    Args:
        graph: The fp32 model.
        batches: Real inputs; the first batch gives shapes and values, its rows repeated as often as needed.
        weight_bits: Of INT8 weights, 2 to 8.
        batch_sizes: >= 1; 1 and the first batch's own by default. A model of fixed batch size has no other.
        budget_seconds: For all layers together, > 0; every layer gets `FEWEST_ROUNDS` rounds, whatever they take.
        timer: Measures seconds; single-threaded wall time by default.

    Raises:
        InvalidParameterError: If there is no batch, or a number is outside its range.
        ModelError: If the model cannot be run.
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    if not batches:
        raise InvalidParameterError("batches", rule="at least one batch", value=0)
    if not budget_seconds > 0:
        raise InvalidParameterError("budget_seconds", rule="positive", value=budget_seconds)
    sizes = _batch_sizes(graph, batches[0], batch_sizes)
    pieces: dict[tuple[str, int], SingleLayer] = {}
    for rows in sizes:
        batch = {name: np.resize(array, (rows, *array.shape[1:])) for name, array in batches[0].items()}
        values = next(record(graph, [batch], sorted(touched(graph))))
        pieces |= {(layer.name, rows): cut_out(graph, layer, values) for layer in graph.layers}
    kinds = {piece.kind for piece in pieces.values()}
    measure = timer or partial(interleaved_seconds, budget_seconds=budget_seconds / max(1, len(kinds)))
    points: dict[tuple[object, ...], TimingPoint] = {}
    for (_, rows), piece in pieces.items():
        if piece.kind not in points:
            points[piece.kind] = _timed(piece, measure, rows=rows, weight_bits=weight_bits)
    return {
        layer.name: LayerTiming(points=tuple(points[pieces[layer.name, rows].kind] for rows in sizes))
        for layer in graph.layers
    }


def time_models(
    models: Mapping[str, bytes], batch: Mapping[str, NDArray[Any]], *, timer: Timer | None = None
) -> dict[str, float]:
    """Return the median seconds of one whole call of each model, run in turn on one batch.

    Raises:
        ModelError: If a model cannot be loaded.
        MissingExtraError: If onnxruntime is not installed.
    """
    actions = {name: _call(content, batch) for name, content in models.items()}
    seconds = (timer or interleaved_seconds)(actions)
    return {name: float(np.median(seconds[name])) for name in models}


def interleaved_seconds(
    actions: Mapping[str, Callable[[], object]],
    *,
    budget_seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of one call of each action, one per round; each round starts with another action.

    Args:
        actions: By name, at least one.
        budget_seconds: Rounds are run until it is used up, but between `FEWEST_ROUNDS` and `MOST_ROUNDS`.
        clock: Seconds, never going back.
    """
    names, repeats = list(actions), {name: _repeats(actions[name], clock) for name in actions}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    end = clock() + budget_seconds
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and clock() >= end:
            break
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            for _ in range(repeats[name]):
                actions[name]()
            seconds[name].append((clock() - start) / repeats[name])
    return seconds


def ratio_interval(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the median of above / below, taken round by round."""
    ratios = np.sort(np.asarray(above, float) / np.asarray(below, float))
    k = max(1, int(binom.ppf((1 - CONFIDENCE) / 2, len(ratios), 0.5)))
    return float(ratios[k - 1]), float(ratios[-k])


def _repeats(action: Callable[[], object], clock: Callable[[], float]) -> int:
    """Warm an action up; return how many calls make up a sample."""
    action()
    start = clock()
    action()
    return int(np.clip(np.ceil(SAMPLE_SECONDS / max(clock() - start, 1e-9)), 1, 100))


def _batch_sizes(graph: Graph, batch: Mapping[str, NDArray[Any]], wanted: Sequence[int]) -> list[int]:
    given = len(next(iter(batch.values())))
    if any(size < 1 for size in wanted):
        raise InvalidParameterError("batch_sizes", rule="at least 1", value=list(wanted))
    dims = graph.proto.graph.input[0].type.tensor_type.shape.dim
    if dims and dims[0].dim_value > 0:
        return [int(dims[0].dim_value)]
    return sorted(set(wanted) or {1, given})


def _timed(piece: SingleLayer, timer: Timer, *, rows: int, weight_bits: int) -> TimingPoint:
    integers, feed = piece.in_integers(weight_bits)
    fp32_name, int8_name = (f"{piece.name}, batch {rows}, {kind}" for kind in ("fp32", "int8"))
    found = timer({fp32_name: _call(piece.graph.to_bytes(), piece.feed), int8_name: _call(integers, feed)})
    fp32, int8 = found[fp32_name], found[int8_name]
    low, high = ratio_interval(int8, fp32)
    return TimingPoint(
        rows=rows,
        fp32_seconds=float(np.median(fp32)),
        int8_seconds=float(np.median(int8)),
        ratio_low=low,
        ratio_high=high,
    )


def _call(content: bytes, feed: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
    return partial(open_session(content).run, None, dict(feed))
