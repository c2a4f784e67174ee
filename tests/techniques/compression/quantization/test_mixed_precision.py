import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import (
    ACTIVATIONS,
    WEIGHTS,
    Scheme,
    grid_of_range,
    quantize_tensor,
)
from halve.techniques.compression.quantization.calibration import observe
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.mixed_precision import Option, choose_layers, sensitivity
from halve.techniques.compression.quantization.observers import MinMax

# Few distinct values, so that ties are common.
ERRORS = st.one_of(st.sampled_from([0.0, 0.1, 0.2]), st.floats(0, 1))
SECONDS = st.one_of(st.sampled_from([1.0, 2.0]), st.floats(1e-6, 3))


@st.composite
def tables(draw):
    """Up to five layers of up to four options, fp32 without error among them."""
    table = {}
    for layer in range(draw(st.integers(1, 5))):
        drawn = draw(st.lists(st.tuples(ERRORS, SECONDS), min_size=0, max_size=3))
        rows = [(0.0, draw(SECONDS)), *drawn]
        table[f"layer{layer}"] = [Option(name=str(n), error=e, seconds=s) for n, (e, s) in enumerate(rows)]
    return table


def totals(options, names):
    picked = [next(o for o in given if o.name == names[layer]) for layer, given in options.items()]
    return math.sqrt(sum(o.error**2 for o in picked)), sum(o.seconds for o in picked)


@given(tables(), st.floats(0, 1.5))
@settings(deadline=None)
def test_no_selection_within_the_budget_is_faster(options, budget):
    error, seconds = totals(options, choose_layers(options, error_budget=budget))
    assert error <= budget * (1 + 1e-8)
    for picked in itertools.product(*options.values()):
        if math.sqrt(sum(o.error**2 for o in picked)) <= budget:
            assert seconds <= sum(o.seconds for o in picked) * (1 + 1e-8)


@given(tables(), st.floats(0, 1.5), st.floats(0, 1.5))
@settings(deadline=None)
def test_a_larger_budget_never_costs_time(options, first, second):
    seconds = [totals(options, choose_layers(options, error_budget=b))[1] for b in sorted((first, second))]
    assert seconds[1] <= seconds[0] * (1 + 1e-8)


@given(tables())
def test_without_a_budget_only_what_is_exact_is_chosen(options):
    assert totals(options, choose_layers(options, error_budget=0))[0] == 0


def test_golden():
    options = {
        layer: [
            Option(name="fp32", error=0, seconds=10),
            Option(name="int8", error=error, seconds=4),
            Option(name="int4", error=3 * error, seconds=3),
        ]
        for layer, error in (("first", 0.3), ("second", 0.4), ("third", 1.0))
    }
    # 0.3^2 + 0.4^2 = 0.5^2: both in INT8, the third would break it.
    assert choose_layers(options, error_budget=0.5) == {"first": "int8", "second": "int8", "third": "fp32"}
    assert choose_layers(options, error_budget=0.49) == {"first": "int8", "second": "fp32", "third": "fp32"}
    assert set(choose_layers(options, error_budget=10).values()) == {"int4"}


def test_ties_go_to_less_error_then_to_the_first():
    tied = [Option(name=name, error=error, seconds=1) for name, error in (("a", 0.2), ("b", 0.1), ("c", 0.1))]
    assert choose_layers({"x": tied, "y": tied}, error_budget=1) == {"x": "b", "y": "b"}


def test_a_hundred_layers_are_solved_exactly_and_alike():
    """The bound: no selection can beat the linear relaxation, and the best integer one is within one layer of it."""
    rng = np.random.default_rng(3)
    options = {}
    for layer in range(100):
        seconds = rng.uniform(0.5, 1.5)
        error = rng.lognormal(-3, 1)
        options[f"layer{layer}"] = [
            Option(name="fp32", error=0, seconds=3 * seconds),
            Option(name="w8", error=error, seconds=seconds * 1.1),
            Option(name="w7", error=2 * error, seconds=seconds),
            Option(name="w4", error=16 * error, seconds=seconds * 0.9),
        ]
    chosen = choose_layers(options, error_budget=0.5)
    assert chosen == choose_layers(options, error_budget=0.5)
    error, seconds = totals(options, chosen)
    assert error <= 0.5
    assert error > 0.499, "a hundred layers fill the budget"
    for multiplier in np.logspace(-2, 3, 200):  # Lagrange: a lower bound for every multiplier
        relaxed = sum(min(o.seconds + multiplier * o.error**2 for o in given) for given in options.values())
        assert seconds >= relaxed - multiplier * 0.25 - 1e-9
    best_bound = max(
        sum(min(o.seconds + m * o.error**2 for o in given) for given in options.values()) - m * 0.25
        for m in np.logspace(-2, 3, 2000)
    )
    assert seconds - best_bound < 0.5


@pytest.mark.parametrize(
    ("options", "budget", "problem"),
    [
        ({}, -1, r"error_budget must be finite and at least 0. Got -1"),
        ({}, math.nan, r"error_budget must be finite and at least 0. Got nan"),
        ({"a": []}, 1, r"options\['a'\] must be at least one option. Got 0"),
        ({"a": [Option(name="x", error=-1, seconds=1)]}, 1, r"error of 'x' in options\['a'\] must be finite"),
        ({"a": [Option(name="x", error=0, seconds=math.inf)]}, 1, r"seconds of 'x' in options\['a'\] must be finite"),
        (
            {"a": [Option(name="x", error=0.6, seconds=1)]},
            0.5,
            r"error_budget must be at least 0.6, the least possible",
        ),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(options, budget, problem):
    with pytest.raises(InvalidParameterError, match=problem):
        choose_layers(options, error_budget=budget)


def test_nothing_to_choose_is_nothing():
    assert choose_layers({}, error_budget=0) == {}


def test_fewer_bits_and_wilder_weights_are_more_sensitive(dense, rng):
    """Measured through onnxruntime, and the squares add up to about the error of all layers together."""
    from halve.techniques.compression.quantization.agreement import relative_rmse
    from halve.techniques.compression.quantization.qdq import write_qdq
    from halve.techniques.compression.quantization.runtime import run_logits

    graph = Graph.load(
        dense(rng.standard_normal((32, 48)), rng.standard_normal((48, 48)), rng.standard_normal((48, 8)))
    )
    batches = [{"input": rng.standard_normal((256, 32)).astype(np.float32)}]
    ranges = observe(graph, batches, [layer.input for layer in graph.layers], MinMax)
    activations = {name: grid_of_range(low, high, ACTIVATIONS) for name, (low, high) in ranges.items()}

    def weights(scheme):
        return {layer.name: quantize_tensor(graph.constant(layer.weight), scheme) for layer in graph.layers}

    errors = {
        bits: sensitivity(graph, weights=weights(Scheme(bits=bits)), activations=activations, batches=batches)
        for bits in (7, 4)
    }
    assert all(errors[4][name] > 3 * errors[7][name] > 0 for name in errors[7])
    alone = sensitivity(graph, weights=weights(WEIGHTS), activations={}, batches=batches)
    assert all(0 < alone[name] < errors[7][name] for name in alone)
    together = relative_rmse(
        run_logits(graph.to_bytes(), batches),
        run_logits(write_qdq(graph, weights=weights(Scheme(bits=4)), activations=activations), batches),
    )
    assert math.sqrt(sum(error**2 for error in errors[4].values())) == pytest.approx(together, rel=0.3)
