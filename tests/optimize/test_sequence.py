from hypothesis import given
from hypothesis import strategies as st

from halve.core import Measurement
from halve.optimize import Trial, certification_sequence
from halve.testing.scripted import Script, ScriptedBench, scripted_stack


def trials(*pairs: tuple[int, float]) -> list[Trial]:
    bench = ScriptedBench(script={i + 1: Script(usd=usd, wrong=wrong) for i, (wrong, usd) in enumerate(pairs)})
    return [
        Trial(
            lever="l", description=str(i), stack=scripted_stack(i + 1), measurement=bench.measure(scripted_stack(i + 1))
        )
        for i in range(len(pairs))
    ]


def bound(measurement: Measurement) -> float:
    return 1 - measurement.quality


def names(sequence: tuple[Trial, ...]) -> list[str]:
    return [trial.description for trial in sequence]


def test_least_aggressive_first_and_each_cheaper() -> None:
    assert names(certification_sequence(trials((5, 2.0), (0, 6.0), (2, 4.0)), drop_upper_bound=bound)) == [
        "1",
        "2",
        "0",
    ]


def test_what_would_win_nothing_is_left_out() -> None:
    assert names(certification_sequence(trials((0, 4.0), (5, 4.0), (6, 5.0)), drop_upper_bound=bound)) == ["0"]


def test_of_equal_drops_the_cheapest_speaks() -> None:
    assert names(certification_sequence(trials((0, 6.0), (0, 4.0), (0, 5.0)), drop_upper_bound=bound)) == ["1"]


def test_no_trial_no_sequence() -> None:
    assert certification_sequence([], drop_upper_bound=bound) == ()


def test_long_sequences_are_thinned_and_keep_both_ends() -> None:
    many = trials(*[(i, 100.0 - i) for i in range(50)])
    found = names(certification_sequence(many, drop_upper_bound=bound, longest=8))
    assert len(found) == 8
    assert (found[0], found[-1]) == ("0", "49")


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.1, 10)), max_size=20))
def test_the_sequence_is_a_front(pairs: list[tuple[int, float]]) -> None:
    found = certification_sequence(trials(*pairs), drop_upper_bound=bound, longest=100)
    costs = [trial.measurement.usd_per_1k_requests for trial in found]
    drops = [bound(trial.measurement) for trial in found]
    assert costs == sorted(costs, reverse=True)
    assert drops == sorted(drops)
    assert len(set(costs)) == len(costs)
    if pairs:
        assert min(usd for _, usd in pairs) == costs[-1]
