import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.compression.pruning import measure_sparsity_speed
from halve.techniques.compression.pruning.sparsity_speed import KINDS, sparse_weights


def test_the_zeros_are_what_they_are_called():
    weights = sparse_weights(16, 10, np.random.default_rng(0))
    shares = {kind: float((weight == 0).mean()) for kind, weight in weights.items()}
    assert shares == {"dense": 0.0, "half": 0.5, "nine_tenths": 0.9, "two_of_four": 0.5}
    assert ((weights["two_of_four"].reshape(4, 4, 10) != 0).sum(axis=1) == 2).all()


def test_the_four_are_timed_in_turn_and_compared_with_dense():
    ran = []

    def timer(actions):
        for action in actions.values():
            ran.append(action()[0].shape)
        return {kind: [number, number + 2.0, number + 1.0] for number, kind in enumerate(actions, 1)}

    found = measure_sparsity_speed(rows=2, inputs=8, outputs=3, timer=timer)
    assert ran == [(2, 3)] * 4
    assert [getattr(found, f"{kind}_seconds") for kind in KINDS] == [2.0, 3.0, 4.0, 5.0]
    assert found.speedups == {"half": 2 / 3, "nine_tenths": 0.5, "two_of_four": 0.4}


def test_it_measures_by_itself():
    found = measure_sparsity_speed(rows=1, inputs=16, outputs=16)
    assert all(getattr(found, f"{kind}_seconds") > 0 for kind in KINDS)


@pytest.mark.parametrize(
    ("wrong", "named"), [({"rows": 0}, "rows"), ({"inputs": 6}, "inputs"), ({"outputs": 0}, "outputs")]
)
def test_what_cannot_be_is_named(wrong, named):
    with pytest.raises(InvalidParameterError, match=named):
        measure_sparsity_speed(**wrong)
