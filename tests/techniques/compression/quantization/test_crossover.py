import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.crossover import (
    FEWEST_ROUNDS,
    MOST_ROUNDS,
    LayerTiming,
    TimingPoint,
    interleaved_seconds,
    layer_timings,
    ratio_interval,
    time_models,
)
from halve.techniques.compression.quantization.graph import Graph


class Recorded:
    """A timer that runs every action once and then tells seconds from a list: INT8 takes `ratio` times as long."""

    def __init__(self, ratio=0.5):
        self.ratio = ratio
        self.asked = []

    def __call__(self, actions):
        self.asked.append(list(actions))
        for action in actions.values():
            action()
        jitter = np.linspace(0.99, 1.01, FEWEST_ROUNDS)
        return {name: 1e-4 * jitter * (self.ratio if name.endswith("int8") else 1) for name in actions}


def point(low, high, rows=1):
    return TimingPoint(rows=rows, fp32_seconds=1.0, int8_seconds=(low + high) / 2, ratio_low=low, ratio_high=high)


@pytest.mark.parametrize(
    ("intervals", "slower", "faster"),
    [
        ([(0.5, 0.6)], False, True),
        ([(0.9, 1.1)], False, False),
        ([(1.01, 1.02)], False, False),  # beyond noise, and negligible
        ([(0.98, 0.99)], False, False),
        ([(1.1, 1.2)], True, False),
        ([(1.1, 1.2), (0.3, 0.4)], True, False),  # slower for a single request: it must never cost time
        ([(0.9, 1.1), (0.3, 0.4)], False, False),
        ([(0.5, 0.6), (0.3, 0.4)], False, True),
    ],
)
def test_a_decision_needs_a_difference_beyond_noise(intervals, slower, faster):
    timing = LayerTiming(points=tuple(point(low, high, rows=n + 1) for n, (low, high) in enumerate(intervals)))
    assert (timing.int8_is_slower, timing.int8_is_faster) == (slower, faster)
    assert timing.int8_seconds == pytest.approx(sum(intervals[-1]) / 2)


def test_every_layer_is_timed_at_one_row_and_at_the_batch_it_was_given(exported, images):
    graph, timer = Graph.load(exported / "residual.onnx"), Recorded()
    timings = layer_timings(graph, images, weight_bits=8, timer=timer)
    assert set(timings) == {layer.name for layer in graph.layers}
    for timing in timings.values():
        assert [point.rows for point in timing.points] == [1, 8]
        assert timing.fp32_seconds == pytest.approx(1e-4)
        assert timing.int8_seconds == pytest.approx(0.5e-4)
        assert timing.int8_is_faster


@pytest.mark.parametrize("bits", [2, 4, 7, 8])
@pytest.mark.parametrize("name", ["residual", "encoder"])
def test_what_is_timed_runs_at_any_number_of_bits(exported, images, tokens, name, bits):
    graph = Graph.load(exported / f"{name}.onnx")
    batches = {"residual": images, "encoder": tokens}[name]
    timings = layer_timings(graph, batches, weight_bits=bits, batch_sizes=(3,), timer=Recorded())
    assert len(timings) == len(graph.layers)


def test_layers_of_one_shape_are_measured_once(dense, rng):
    square = [rng.standard_normal((16, 16)) for _ in range(5)]
    graph, timer = Graph.load(dense(*square)), Recorded()
    timings = layer_timings(graph, [{"input": np.ones((4, 16), np.float32)}], weight_bits=8, timer=timer)
    # The first reads fp32 and the last writes it; the three between are alike. Two batch sizes.
    assert len(timer.asked) == 3 * 2
    middle = [timings[layer.name] for layer in graph.layers[1:-1]]
    assert middle[0] == middle[1] == middle[2]


def test_recorded_timings_make_a_run_repeatable(exported, images):
    graph = Graph.load(exported / "residual.onnx")
    first, second = (layer_timings(graph, images, weight_bits=8, timer=Recorded(0.7)) for _ in range(2))
    assert first == second


def test_the_real_timer_measures_both_kinds(exported, images):
    graph = Graph.load(exported / "residual.onnx")
    timings = layer_timings(graph, images, weight_bits=8, batch_sizes=(1,), budget_seconds=0.01)
    for timing in timings.values():
        (measured,) = timing.points
        assert measured.fp32_seconds > 0
        assert measured.int8_seconds > 0
        assert 0 < measured.ratio_low <= measured.ratio_high


def test_whole_models_are_timed_by_name(dense, rng):
    model = dense(rng.standard_normal((8, 3))).read_bytes()
    seconds = time_models({"fp32": model, "x int8": model}, {"input": np.ones((2, 8), np.float32)}, timer=Recorded())
    assert seconds == pytest.approx({"fp32": 1e-4, "x int8": 0.5e-4})
    with pytest.raises(ModelError, match="onnxruntime cannot load the model"):
        time_models({"broken": b"no graph"}, {"input": np.ones((2, 8), np.float32)})


class Clock:
    """Time that passes only when something is done."""

    def __init__(self):
        self.now = 0.0
        self.done = []

    def __call__(self):
        return self.now

    def action(self, name, seconds):
        def act():
            self.now += seconds
            self.done.append(name)

        return act


def test_rounds_take_turns_in_changing_order():
    clock = Clock()
    actions = {"a": clock.action("a", 1.0), "b": clock.action("b", 3.0)}
    seconds = interleaved_seconds(actions, budget_seconds=0.0, clock=clock)
    assert seconds == {"a": [1.0] * FEWEST_ROUNDS, "b": [3.0] * FEWEST_ROUNDS}
    measured = "".join(clock.done[4:])  # two calls each warm up
    assert measured == ("abba" * FEWEST_ROUNDS)[: 2 * FEWEST_ROUNDS]


def test_quick_actions_are_repeated_and_the_budget_ends_the_rounds():
    clock = Clock()
    seconds = interleaved_seconds({"a": clock.action("a", 1e-5)}, budget_seconds=1e9, clock=clock)
    assert seconds["a"] == pytest.approx([1e-5] * MOST_ROUNDS)
    assert len(clock.done) == 2 + 20 * MOST_ROUNDS
    clock = Clock()
    seconds = interleaved_seconds({"a": clock.action("a", 1.0)}, budget_seconds=12.0, clock=clock)
    assert len(seconds["a"]) == 12


@given(st.integers(FEWEST_ROUNDS, MOST_ROUNDS), st.floats(0.1, 10))
def test_the_interval_of_a_ratio_without_noise_is_the_ratio(rounds, ratio):
    below = np.linspace(1, 2, rounds)
    assert ratio_interval(ratio * below, below) == pytest.approx((ratio, ratio))


def test_the_interval_holds_the_true_ratio_as_often_as_it_says(rng):
    held = 0
    for _ in range(2000):
        low, high = ratio_interval(rng.lognormal(0, 0.3, 15), np.ones(15))  # the median ratio is 1
        held += low <= 1 <= high
    assert held >= 0.985 * 2000


def test_golden_interval():
    # n = 9, 99 %: P(Binomial(9, 1/2) < 1) = 0.002 <= 0.005 < P(... < 2) = 0.0195: the extremes. n = 21: the fifth.
    assert ratio_interval(list(range(1, 10)), [1] * 9) == (1, 9)
    assert ratio_interval(list(range(1, 22)), [1] * 21) == (5, 17)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"batches": []}, r"batches must be at least one batch\. Got 0"),
        ({"batch_sizes": (0,)}, r"batch_sizes must be at least 1\. Got \[0\]"),
        ({"budget_seconds": 0}, r"budget_seconds must be positive\. Got 0"),
    ],
)
def test_what_cannot_be_timed_is_refused(exported, images, given, problem):
    graph = Graph.load(exported / "residual.onnx")
    with pytest.raises(InvalidParameterError, match=problem):
        layer_timings(graph, given.pop("batches", images), weight_bits=8, **given)
