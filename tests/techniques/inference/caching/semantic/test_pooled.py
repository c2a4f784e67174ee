import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.pooled import LEVELS, PooledThresholds

observations = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.floats(0, 1), st.booleans()), max_size=60)


def filled(rows, **options):
    pooled = PooledThresholds(pool=0.8, **options)
    for cluster, entry, probability, right in rows:
        pooled.observe(cluster=cluster, entry=entry, probability=probability, right=right)
    return pooled


def table(pooled):
    return [[pooled.threshold(cluster=cluster, entry=entry) for entry in range(7)] for cluster in range(5)]


def test_without_evidence_everyone_has_the_pools_threshold():
    assert PooledThresholds(pool=0.8).threshold(cluster="a", entry=1) == 0.8
    assert PooledThresholds(pool=2.0).threshold(cluster="a", entry=1) == 2.0


@given(observations, st.randoms(use_true_random=False))
def test_the_order_of_look_ups_does_not_matter(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, other = filled(rows), filled(shuffled)
    assert table(one) == table(other)
    assert one.to_document() == other.to_document()
    assert one.observed == len(rows)


@given(observations)
def test_asking_changes_nothing_and_thresholds_are_probabilities(rows):
    pooled = filled(rows[: len(rows) // 2])
    table(pooled)
    for cluster, entry, probability, right in rows[len(rows) // 2 :]:
        pooled.observe(cluster=cluster, entry=entry, probability=probability, right=right)
    assert table(pooled) == table(filled(rows))
    assert all(0 < threshold < 1 for row in table(pooled) for threshold in row)


@given(observations)
def test_a_document_gives_the_same_thresholds(rows):
    pooled = filled(rows)
    again = PooledThresholds.from_document(json.loads(json.dumps(pooled.to_document())))
    assert table(again) == table(pooled)
    assert again.observed == pooled.observed
    again.observe(cluster=0, entry=0, probability=0.5, right=True)
    pooled.observe(cluster=0, entry=0, probability=0.5, right=True)
    assert table(again) == table(pooled)


def test_one_label_moves_an_entry_little_and_many_move_it_far():
    thresholds = []
    for count in (1, 10, 300):
        alike = [(1, entry, 0.85, number < 17) for entry in range(1, 6) for number in range(20)]
        pooled = filled([(0, 0, 0.85, False)] * count + alike)
        thresholds.append(pooled.threshold(cluster=0, entry=0))
    assert 0.8 < thresholds[0] < 0.87
    assert thresholds[0] < thresholds[1] < thresholds[2]
    assert thresholds[2] > 0.97


def test_right_answers_lower_the_threshold_only_once_it_is_sure():
    background = [(1, entry, 0.85, number < 17) for entry in (1, 2, 3) for number in range(20)]
    few = filled([*background, (0, 0, 0.45, True)])
    many = filled([*background, *[(0, 0, 0.45, True)] * 60])
    assert few.threshold(cluster=0, entry=0) >= 0.8
    assert many.threshold(cluster=0, entry=0) < 0.6
    assert many.threshold(cluster=1, entry=1) == pytest.approx(0.8, abs=0.05)


def test_an_entry_without_labels_learns_from_its_cluster():
    rng = np.random.default_rng(0)
    rows = [(cluster, 1_000 * cluster + entry, 0.75, bool(rng.random() < (0.95 if cluster % 2 else 0.5)))
            for cluster in range(20) for entry in range(10) for _ in range(3)]  # fmt: skip
    pooled = filled(rows)
    good, bad = (pooled.threshold(cluster=cluster, entry=999_999) for cluster in (1, 2))
    assert good < 0.8 < bad


def test_it_finds_the_best_of_both_worlds():
    """Where entries differ, 3 labels each must give better hits than as many from one threshold for all."""
    rng = np.random.default_rng(1)
    shifts = rng.normal(0, 1.0, 60).repeat(20) + rng.normal(0, 0.3, 1_200)
    pooled = PooledThresholds(pool=0.8)

    def drawn(entry):
        logit = rng.normal(0.5, 1.5)
        return 1 / (1 + np.exp(-logit)), bool(rng.random() < 1 / (1 + np.exp(-logit - shifts[entry])))

    for entry in np.arange(1_200).repeat(3):
        probability, right = drawn(entry)
        pooled.observe(cluster=int(entry) // 20, entry=int(entry), probability=probability, right=right)
    seen, moved = [], []
    for entry in rng.integers(0, 1_200, 10_000):
        probability, right = drawn(entry)
        seen.append((probability, right))
        if probability >= pooled.threshold(cluster=int(entry) // 20, entry=int(entry)):
            moved.append(right)
    surest = sorted(seen, reverse=True)[: len(moved)]
    assert len(moved) > 2_000
    assert np.mean(moved) > np.mean([right for _, right in surest]) + 0.02


def test_alike_entries_stay_together():
    """Where entries do not differ, chance must not drive their thresholds apart."""
    rng = np.random.default_rng(2)
    rows = [(entry // 20, entry, level, bool(rng.random() < level)) for entry in range(400) for level in LEVELS[4:11]]
    pooled = filled(rows)
    thresholds = [pooled.threshold(cluster=entry // 20, entry=entry) for entry in range(400)]
    assert np.std(thresholds) < 0.02
    assert np.mean(thresholds) == pytest.approx(0.8, abs=0.02)


def test_memory_is_bounded_and_strings_are_keys_too():
    pooled = PooledThresholds(pool=0.8, cluster_slots=4, entry_slots=8)
    for number in range(1_000):
        pooled.observe(cluster=f"answer {number}", entry=f"entry {number}", probability=0.9, right=number % 10 > 0)
    assert pooled.observed == 1_000
    assert len(json.dumps(pooled.to_document())) < 8_000
    assert 0 < pooled.threshold(cluster="answer 5", entry="entry 5") < 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"pool": 0.0}, "pool must be above 0. Got 0.0"),
        ({"caution": -1.0}, "caution must be at least 0"),
        ({"cluster_slots": 3}, "cluster_slots must be a power of 2"),
        ({"entry_slots": 0}, "entry_slots must be a power of 2"),
    ],
)
def test_bad_input(change, match):
    with pytest.raises(InvalidParameterError, match=match):
        PooledThresholds(**({"pool": 0.8} | change))


def test_a_probability_out_of_range_is_refused():
    with pytest.raises(InvalidParameterError, match=r"probability must be in \[0, 1\]. Got 1.5"):
        PooledThresholds(pool=0.8).observe(cluster=1, entry=1, probability=1.5, right=True)


@pytest.mark.parametrize(
    ("change", "match"),
    [({"schema": "x"}, "schema must be"), ({"clusters": None}, "whole document"), ({"pool": "x"}, "whole document")],
)
def test_other_and_damaged_documents_are_refused(change, match):
    with pytest.raises(InvalidParameterError, match=match):
        PooledThresholds.from_document(PooledThresholds(pool=0.8).to_document() | change)
