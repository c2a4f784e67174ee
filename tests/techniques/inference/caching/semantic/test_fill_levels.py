import numpy as np

from halve.techniques.inference.caching.semantic.fill_levels import MOST_PER_LEVEL, fill_levels


def levels(before, proved, *, full=0.5):
    """Levels of a log whose calibration is all of it, as (below, threshold), and what was proved on how many."""
    asked = {}

    def threshold(places, stored):
        asked[stored] = len(places)
        assert np.all(before[places] >= stored)
        return proved[stored]

    found = fill_levels(before, np.arange(len(before)), threshold, full=full)
    return [(level.below, level.threshold) for level in found], asked


def test_between_two_sizes_the_stricter_holds():
    found, asked = levels(np.full(100, 8), {1: 2.0, 2: 0.7, 4: 0.9})
    assert found == [(2, 1.0), (8, 0.9)]  # up to 2 nothing is proved; then 0.9, of 4, up to what is usual
    assert asked == {1: 100, 2: 100, 4: 100}


def test_the_last_level_is_at_least_as_strict_as_the_full_one():
    assert levels(np.full(100, 4), {1: 0.8, 2: 0.2}, full=0.6)[0] == [(2, 0.8)]  # from 2 on 0.6, as when it is full
    assert levels(np.full(100, 4), {1: 0.6, 2: 0.2}, full=0.6)[0] == []
    assert levels(np.full(100, 4), {1: 0.3, 2: 0.2}, full=0.6)[0] == [(2, 0.3)]  # proved at 1 and at 2


def test_few_small_partitions_change_nothing_and_few_large_ones_say_nothing():
    proved = dict.fromkeys((1, 2, 4, 8, 16, 32), 0.9)
    large = np.full(100, 64)
    mixed = np.concatenate([np.zeros(10, dtype=np.int64), large])
    assert levels(mixed, proved)[0] == levels(large, proved)[0] == [(64, 0.9)]
    assert levels(np.concatenate([np.full(100, 4), np.full(19, 4000)]), proved)[1] == {1: 119, 2: 119}


def test_the_latest_questions_prove():
    before = np.arange(3 * MOST_PER_LEVEL)
    seen = {}

    def threshold(places, stored):
        seen[stored] = places
        return 0.5

    fill_levels(before, np.arange(len(before)), threshold, full=0.5)
    assert all(len(places) == MOST_PER_LEVEL and places[-1] == before[-1] for places in seen.values())


def test_a_log_of_strangers_has_no_levels():
    assert levels(np.zeros(100, dtype=np.int64), {}) == ([], {})
