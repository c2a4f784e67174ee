import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.pruning import cubic_sparsity


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (10, 0.0),
        (35, 0.9 - 0.9 * 0.75**3),  # (35 - 10) / 100 = 1/4: 0.9 (1 - 27/64) = 0.5203125
        (60, 0.9 - 0.9 * 0.5**3),  # 0.9 * 7/8 = 0.7875
        (110, 0.9),
        (500, 0.9),
    ],
)
def test_the_schedule_by_hand(step, expected):
    assert cubic_sparsity(step, initial=0.0, final=0.9, start=10, steps=100) == pytest.approx(expected, abs=1e-12)


def test_it_starts_from_the_initial_sparsity():
    # 0.8 + (0.2 - 0.8) (1/2)^3 = 0.8 - 0.075
    assert cubic_sparsity(50, initial=0.2, final=0.8, start=0, steps=100) == pytest.approx(0.725)


@given(
    initial=st.floats(0, 1),
    final=st.floats(0, 1),
    start=st.integers(0, 50),
    steps=st.integers(1, 50),
    step=st.integers(0, 200),
)
def test_it_never_falls(initial, final, start, steps, step):
    low, high = sorted((initial, final))
    now, later = (cubic_sparsity(at, initial=low, final=high, start=start, steps=steps) for at in (step, step + 1))
    assert low - 1e-12 <= now <= later + 1e-12 <= high + 2e-12


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"step": -1}, "step"),
        ({"steps": 0}, "steps"),
        ({"initial": 0.9, "final": 0.5}, "initial"),
        ({"start": -1}, "start"),
    ],
)
def test_what_cannot_be_is_named(wrong, named):
    arguments = {"step": 0, "initial": 0.0, "final": 0.5, "start": 0, "steps": 1} | wrong
    with pytest.raises(InvalidParameterError, match=named):
        cubic_sparsity(arguments.pop("step"), **arguments)
