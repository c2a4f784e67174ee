import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from halve.techniques.inference.cascading.sweeps import Cuts
from halve.techniques.inference.cascading.thresholds import NEVER

sures = arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1))


def test_cuts_by_hand():
    cuts = Cuts.of(np.array([0.2, 0.8, 0.2, 0.6]))
    assert cuts.counts.tolist() == [0, 1, 2, 4]  # equal sureness is accepted together
    assert np.allclose(cuts.thresholds, [NEVER, 0.7, 0.4, 0.0])
    assert cuts.sums(np.array([1.0, 10.0, 100.0, 1000.0])).tolist() == [0.0, 10.0, 1010.0, 1111.0]


@given(sures, st.integers(0, 100))
def test_sums_are_those_of_the_accepted(sure, seed):
    values, cuts = np.random.default_rng(seed).normal(size=len(sure)), Cuts.of(sure)
    for threshold, count, total in zip(cuts.thresholds, cuts.counts, cuts.sums(values), strict=True):
        stands = sure >= threshold
        assert stands.sum() == count
        assert np.isclose(values[stands].sum(), total)


@given(sures, st.integers(3, 12))
def test_thinned_cuts_keep_both_ends(sure, most):
    thin = Cuts.of(sure).thinned(most)
    assert len(thin.counts) <= most
    assert (thin.counts[0], thin.counts[-1]) == (0, len(sure))
    assert set(thin.thresholds) <= set(Cuts.of(sure).thresholds)
