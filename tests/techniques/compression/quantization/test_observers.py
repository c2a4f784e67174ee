import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import (
    ACTIVATIONS,
    WEIGHTS,
    Scheme,
    fake_quantize,
    grid_of_range,
)
from halve.techniques.compression.quantization.observers import (
    Entropy,
    MeanSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
)

FOUR_BITS = Scheme(bits=4, symmetric=False, signed=False, narrow=False)
SCHEMES = st.sampled_from([WEIGHTS, ACTIVATIONS, FOUR_BITS, Scheme(bits=2)])
OBSERVERS = {
    "min-max": MinMax,
    "moving average": MovingAverage,
    "percentile": Percentile,
    "mean squared error": lambda: MeanSquaredError(ACTIVATIONS),
    "mean squared error, symmetric": lambda: MeanSquaredError(WEIGHTS),
    "mean squared error, 4 bits": lambda: MeanSquaredError(FOUR_BITS),
    "entropy": lambda: Entropy(ACTIVATIONS),
    "entropy, symmetric": lambda: Entropy(WEIGHTS),
}
ORDER_COUNTS = ("moving average",)
NUMBERS = st.one_of(st.floats(-8, 8, width=32), st.floats(-(2.0**60), 2.0**60, width=32))
BATCHES = st.lists(npst.arrays(np.float32, st.integers(1, 12), elements=NUMBERS), min_size=1, max_size=4)


@pytest.fixture(params=OBSERVERS)
def name(request):
    return request.param


def range_of(observer, *batches) -> tuple[float, float]:
    for batch in batches:
        observer.update(np.asarray(batch, np.float32))
    return observer.range()


def heavy_tailed() -> np.ndarray:
    """Student's t with 3 degrees of freedom: a narrow body and a few numbers far out."""
    return np.random.default_rng(0).standard_t(3, 50_000).astype(np.float32)


def squared_error(tensor, bounds, scheme) -> float:
    return float(np.mean(np.square(fake_quantize(tensor, grid_of_range(*bounds, scheme)) - tensor)))


# What every observer owes.


@pytest.mark.parametrize("make", OBSERVERS.values(), ids=OBSERVERS)
@given(batches=BATCHES)
def test_the_range_is_inside_the_data_with_zero(make, batches):
    low, high = range_of(make(), *batches)
    numbers = np.concatenate(batches)
    assert min(numbers.min(), 0) <= low <= high <= max(numbers.max(), 0)


@pytest.mark.parametrize("make", [OBSERVERS[name] for name in OBSERVERS if name not in ORDER_COUNTS])
@given(batches=BATCHES)
def test_the_order_of_the_data_changes_nothing(make, batches):
    turned = np.concatenate(batches)[::-1]
    assert range_of(make(), *batches) == range_of(make(), turned)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused(name, bad):
    with pytest.raises(InvalidParameterError, match=rf"activation must be finite. Got {bad}"):
        OBSERVERS[name]().update(np.array([0.5, bad], np.float32))


def test_a_range_of_nothing_is_refused(name):
    observer = OBSERVERS[name]()
    observer.update(np.empty((0, 3), np.float32))
    with pytest.raises(InvalidParameterError, match=r"calibration must be at least one number\. Got 'none'"):
        observer.range()


@pytest.mark.parametrize("constant", [0.0, 3.0, -3.0])
def test_a_constant_is_covered(name, constant):
    low, high = range_of(OBSERVERS[name](), np.full((4, 5), constant))
    assert low <= constant <= high


def test_an_empty_batch_between_others_changes_nothing(name):
    batches = [[0.0, 1.0], [-1.0, 0.5]]
    assert range_of(OBSERVERS[name](), *batches) == range_of(OBSERVERS[name](), batches[0], [], batches[1])


# Each by itself.


def test_min_max_never_clips():
    assert range_of(MinMax(), [0.5, -0.25], [[2.0], [1.0]]) == (-0.25, 2.0)


def test_the_moving_average_steps_towards_each_batch():
    assert range_of(MovingAverage(decay=0.9), [-1.0, 1.0], [-2.0, 3.0]) == pytest.approx((-1.1, 1.2))
    assert range_of(MovingAverage(decay=0.9), [-1.0, 1.0], [-2.0, 3.0], [0.0, 0.0]) == pytest.approx((-0.99, 1.08))
    assert range_of(MovingAverage(decay=0), [-1.0, 1.0], [-2.0, 3.0]) == (-2.0, 3.0)


def test_percentile_leaves_out_as_many_at_each_end():
    numbers = np.arange(-500, 500) / 1000 + 0.0005
    width = 2.0**-14  # 8192 bins below 0.5
    low, high = range_of(Percentile(share=0.98), numbers)
    # Ten numbers are left out at each end.
    assert low == pytest.approx(-0.4895, abs=width)
    assert high == pytest.approx(0.4895, abs=width)
    assert low <= -0.4895
    assert high >= 0.4895


def test_percentile_counts_the_zeros_of_a_relu():
    numbers = np.concatenate([np.zeros(990), np.linspace(1, 10, 10)])
    assert range_of(Percentile(share=0.98), numbers)[1] < 0.01
    assert range_of(Percentile(share=0.999), numbers) == (0.0, 10.0)


@given(batches=BATCHES, shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted))
def test_a_greater_share_is_never_a_narrower_range(batches, shares):
    fewer, more = (range_of(Percentile(share=share), *batches) for share in shares)
    assert more[0] <= fewer[0]
    assert fewer[1] <= more[1]


@given(batches=BATCHES)
def test_the_whole_share_is_min_max(batches):
    assert range_of(Percentile(share=1), *batches) == range_of(MinMax(), *batches)


@given(batches=BATCHES, scheme=SCHEMES)
def test_mean_squared_error_is_never_more_than_that_of_min_max(batches, scheme):
    observer = MeanSquaredError(scheme)
    chosen = range_of(observer, *batches)
    assert observer.error(*chosen) <= observer.error(*range_of(MinMax(), *batches))


def test_the_error_is_that_of_the_numbers_themselves():
    data, observer = heavy_tailed(), MeanSquaredError(ACTIVATIONS)
    observer.update(data)
    for bounds in ((-5.0, 5.0), (-40.0, 40.0)):
        assert observer.error(*bounds) == pytest.approx(squared_error(data, bounds, ACTIVATIONS), rel=0.02)


@pytest.mark.parametrize(
    ("scheme", "reach", "error"),
    [(WEIGHTS, 0.9, 0.99), (ACTIVATIONS, 0.96, 0.99), (Scheme(bits=4), 0.3, 0.5), (FOUR_BITS, 0.3, 0.5)],
)
def test_on_heavy_tails_it_clips_and_the_numbers_themselves_gain(scheme, reach, error):
    data = heavy_tailed()
    whole, chosen = range_of(MinMax(), data), range_of(MeanSquaredError(scheme), data)
    assert whole[0] <= chosen[0] < 0 < chosen[1] < reach * whole[1]
    assert squared_error(data, chosen, scheme) < error * squared_error(data, whole, scheme)


def test_no_range_of_a_fine_search_is_much_better():
    data = heavy_tailed()
    chosen = squared_error(data, range_of(MeanSquaredError(FOUR_BITS), data), FOUR_BITS)
    finest = min(
        squared_error(data, (low, high), FOUR_BITS) for low in -np.arange(2, 12, 0.5) for high in np.arange(2, 12, 0.5)
    )
    assert chosen <= 1.03 * finest


def test_fewer_bits_clip_more():
    data = heavy_tailed()
    ends = [range_of(MeanSquaredError(Scheme(bits=bits)), data)[1] for bits in (2, 3, 4, 6, 8)]
    assert ends == sorted(ends)
    assert ends[0] < ends[-1]


def test_numbers_that_fill_their_range_evenly_are_not_clipped():
    data = np.random.default_rng(0).uniform(-0.8, 1.2, 50_000).astype(np.float32)
    for observer in (MeanSquaredError(ACTIVATIONS), Entropy(ACTIVATIONS)):
        low, high = range_of(observer, data)
        assert (low, high) == pytest.approx((-0.8, 1.2), abs=0.02)


def test_entropy_clips_heavy_tails_and_min_max_does_not():
    data = heavy_tailed()
    whole, chosen = range_of(MinMax(), data), range_of(Entropy(WEIGHTS), data)
    assert whole == (float(data.min()), float(data.max()))
    assert chosen[1] < whole[1] / 2
    # Most of the numbers stay inside, and the body gains steps.
    assert np.mean(np.abs(data) <= chosen[1]) > 0.999
    body = data[np.abs(data) < 3]
    assert squared_error(body, chosen, WEIGHTS) < 0.25 * squared_error(body, whole, WEIGHTS)


def test_entropy_does_not_mind_how_far_an_outlier_is():
    body = np.random.default_rng(1).standard_normal(50_000)
    ends = [range_of(Entropy(WEIGHTS), np.append(body, outlier))[1] for outlier in (12.0, 15.0)]
    assert max(ends) < 6
    assert ends[0] == pytest.approx(ends[1], rel=0.2)


def test_entropy_of_a_relu_looks_at_one_side():
    data = np.maximum(heavy_tailed(), 0)
    low, high = range_of(Entropy(ACTIVATIONS), data)
    assert low == 0
    assert np.quantile(data, 0.99) < high < data.max()


# Bad arguments.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MovingAverage(decay=1), r"decay must be in \[0, 1\). Got 1"),
        (lambda: MovingAverage(decay=-0.1), r"decay must be in \[0, 1\). Got -0.1"),
        (lambda: MovingAverage(decay=float("nan")), r"decay must be in \[0, 1\). Got nan"),
        (lambda: Percentile(share=0), r"share must be in \(0, 1\]. Got 0"),
        (lambda: Percentile(share=99.99), r"share must be in \(0, 1\]. Got 99.99"),
        (lambda: MeanSquaredError(Scheme(axis=0)), "scheme must be of one scale per tensor"),
        (lambda: Entropy(Scheme(group_size=32)), "scheme must be of one scale per tensor"),
    ],
)
def test_a_bad_argument_is_one_sentence(make, message):
    with pytest.raises(InvalidParameterError, match=message):
        make()
