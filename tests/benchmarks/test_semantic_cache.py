"""What the benchmark of semantic caches computes around its contestants: streams, rules of peers, figures."""

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks._common import Estimate
from benchmarks._semantic_cache import data, figures, ours, peers, per_entry, streams
from benchmarks._semantic_cache.lookups import Speeds

from benchmarks import semantic_cache as bench
from halve.techniques.inference.caching.semantic.assessment import Assessor


def unit(rng, rows, columns=8):
    vectors = rng.normal(size=(rows, columns)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HALVE_CACHE", str(tmp_path))


def made_up_pairs(count=400):
    """Pairs (0, 1), (2, 3), ...; every third is a duplicate; (0, 1), (1, 2) and so (0, 2) are duplicates too."""
    rng = np.random.default_rng(0)
    pairs = np.vstack([np.arange(count).reshape(-1, 2), [[1, 2]]])
    duplicate = np.append(np.arange(count // 2) % 3 == 0, True)
    texts = tuple(f"question {number}" for number in range(count))
    return data.QuestionPairs(
        questions=data.Questions(texts=texts, vectors=unit(rng, count)),
        pairs=pairs,
        duplicate=duplicate,
        meaning=data.connected(count, pairs[duplicate]),
        component=data.connected(count, pairs),
    )


def test_duplicates_of_duplicates_mean_the_same():
    assert data.connected(5, np.array([[1, 2], [2, 4]])).tolist() == [0, 1, 1, 3, 1]
    assert data.connected(2, np.empty((0, 2), dtype=np.int64)).tolist() == [0, 1]


def test_nearest_agrees_with_sorting(monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 3)
    rng = np.random.default_rng(1)
    asked, stored = unit(rng, 7), unit(rng, 30)
    places, cosines = streams.nearest(asked, stored, k=4)
    products = asked @ stored.T
    np.testing.assert_array_equal(places, np.argsort(-products, axis=1)[:, :4])
    np.testing.assert_allclose(cosines, -np.sort(-products, axis=1)[:, :4], rtol=1e-6)


def test_fewer_stored_than_neighbours():
    rng = np.random.default_rng(2)
    places, cosines = streams.nearest(unit(rng, 2), unit(rng, 3), k=5)
    assert (places[:, 3:] == -1).all()
    assert (cosines[:, 3:] == -1).all()
    assert (np.sort(places[:, :3], axis=1) == [0, 1, 2]).all()


def test_a_sliding_cache_holds_the_last_entries_only(monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 4)
    vectors = unit(np.random.default_rng(3), 13)
    places, cosines = streams.sliding_nearest(vectors, capacity=3, k=2)
    for row in range(13):
        before = np.arange(max(0, row - 3), row)
        expected = before[np.argsort(-(vectors[before] @ vectors[row]))][:2]
        assert places[row, : len(expected)].tolist() == expected.tolist()
        assert (places[row, len(expected) :] == -1).all()
        assert (cosines[row, len(expected) :] == -1).all()


def test_pair_splits_share_no_question():
    pairs = made_up_pairs()
    splits = streams.pair_splits(pairs, seed=0)
    parts = [*splits.train, splits.calibration, splits.test]
    seen = [set(part.asked.tolist()) | set(part.neighbours[part.neighbours >= 0].tolist()) for part in parts]
    assert sum(len(one) for one in seen) == len(set().union(*seen))
    components = [set(pairs.component[list(one)].tolist()) for one in seen]
    assert sum(len(one) for one in components) == len(set().union(*components))


def test_the_first_of_each_pair_is_stored_and_the_second_asked():
    pairs = np.array([[0, 1], [1, 2], [3, 4]])
    asked, stored = streams.asked_and_stored(pairs, np.ones(5, dtype=bool), np.random.default_rng(0))
    assert not set(asked) & set(stored)
    assert set(asked) | set(stored) == set(range(5))
    assert (1 in asked) == (0 in stored) == (2 in stored)
    assert (3 in asked) == (4 in stored)


def test_only_labelled_neighbours_are_right():
    pairs = made_up_pairs()
    stream = streams.pair_splits(pairs, seed=1).test
    for row, entry, right in zip(stream.asked, stream.neighbours[:, 0], stream.right[:, 0], strict=True):
        assert right == (pairs.meaning[row] == pairs.meaning[entry])
    assert (stream.answers == stream.neighbours).all()


def test_the_same_seed_gives_the_same_streams_and_another_one_others():
    pairs = made_up_pairs()
    first, again, other = (streams.pair_splits(pairs, seed=seed).test for seed in (0, 0, 1))
    assert first.asked.tolist() == again.asked.tolist() != other.asked.tolist()


def made_up_intents():
    rng = np.random.default_rng(4)
    questions = data.Questions(texts=tuple(f"query {number}" for number in range(300)), vectors=unit(rng, 300))
    return data.Intents(questions=questions, intent=rng.integers(-1, 5, size=300))


def test_out_of_scope_is_never_right():
    intents = made_up_intents()
    stream = streams.intent_splits(intents, seed=0, capacity_share=0.2).test
    outside = intents.intent[stream.asked] == data.OUT_OF_SCOPE
    assert outside.any()
    assert not stream.right[outside].any()
    assert not stream.right[0].any()  # nothing is stored yet
    stored_outside = (stream.neighbours >= 0) & (intents.intent[stream.neighbours] == data.OUT_OF_SCOPE)
    assert not stream.right[stored_outside].any()
    assert len(np.unique(stream.answers[stored_outside])) == len(np.unique(stream.neighbours[stored_outside]))


def test_capacity_is_a_share_of_the_scored_queries():
    intents = made_up_intents()
    splits = streams.intent_splits(intents, seed=0, capacity_share=0.1)
    places = {question: place for place, question in enumerate(splits.test.asked.tolist())}
    ages = [
        places[question] - places[entry]
        for question, row in zip(splits.test.asked.tolist(), splits.test.neighbours.tolist(), strict=True)
        for entry in row
        if entry >= 0
    ]
    assert len(splits.test) == 90
    assert max(ages) == 9
    assert min(ages) == 1


def test_the_best_threshold_by_hand():
    scored = figures.Scored(
        scores=np.array([0.9, 0.8, 0.8, 0.7, 0.6]), right=np.array([True, True, False, True, False])
    )
    assert scored.best_threshold(most=0.25) == 0.7  # 1 wrong of 4
    assert scored.best_threshold(most=0.24) == 0.9  # the two of 0.8 come together: 1 of 3
    assert scored.best_threshold(most=0.4) == 0.6
    assert scored.served(0.8) == figures.Served(lookups=5, hits=3, wrong=1)
    never = figures.Scored(scores=np.array([0.5]), right=np.array([False])).best_threshold(most=0.1)
    assert never == figures.NEVER
    assert scored.served(never).hit_rate == 0


def test_entries_that_may_not_be_served_are_never_hits():
    scored = figures.Scored(scores=np.array([-np.inf, 0.5]), right=np.array([True, True]))
    assert scored.best_threshold(most=1.0) == 0.5


def test_money_counts_right_hits_and_the_processor():
    served = figures.Served(lookups=1000, hits=300, wrong=100)
    gross = 200 * figures.ANSWER_USD
    assert served.net_usd_per_1k(seconds_per_lookup=0) == pytest.approx(gross)
    assert served.net_usd_per_1k(seconds_per_lookup=0.01) == pytest.approx(gross - 10 * 0.11592 / 7200)
    assert served.false_hit_share == pytest.approx(1 / 3)


def test_intervals_over_seeds():
    found = figures.mean_interval([1.0, 2.0, 3.0])
    assert (found.median, found.high) == pytest.approx((2.0, 2.0 + 4.302653 / np.sqrt(3)), rel=1e-6)
    exact = figures.ratio_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (exact.low, exact.median, exact.high) == pytest.approx((2.0, 2.0, 2.0))
    assert figures.ratio_interval([3.0], [2.0]).low == 1.5


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        ("How do I turn on dark mode?", "How do I turn off dark mode?", True),
        ("Why is the sky blue?", "Why isn't the sky green?", True),
        ("How can I not be shy?", "How do I never be shy?", False),
        ("turn it on and off", "turn it off and on", False),
        ("How do I gain weight?", "How to gain some weight", False),
    ],
)
def test_the_guard_sees_polarity(one, other, differs):
    assert peers.opposed(one, other) is peers.opposed(other, one) is differs


def test_the_guard_goes_on_to_the_next_neighbour():
    stream = streams.Stream(
        asked=np.array([0, 3]),
        neighbours=np.array([[1, 2], [1, -1]]),
        cosines=np.array([[0.95, 0.9], [0.8, -1]], dtype=np.float32),
        right=np.array([[False, True], [True, False]]),
        answers=np.array([[1, 2], [1, -1]]),
    )
    texts = ["turn on the light", "turn off the light", "put the light on", "never turn off the light"]
    found = peers.guarded(stream, texts)
    assert found.scores.tolist() == [pytest.approx(0.9), -np.inf]
    assert found.right.tolist() == [True, False]
    assert peers.plain(stream, texts).right.tolist() == [False, True]


def test_gptcache_default_is_a_cosine_of_six_tenths():
    # 4 - |a - b|^2 >= 0.8 * 4, with |a - b|^2 = 2 - 2 cos.
    assert 4 - (2 - 2 * peers.PLAIN_DEFAULTS["gptcache"]) == pytest.approx(0.8 * 4)


def test_a_new_entry_explores_and_a_proven_one_answers():
    entry = per_entry.Entry()
    assert entry.exploring(0.99, 0.05) == 1.0
    for similarity in np.linspace(0.7, 0.99, 30):
        entry.observe(float(similarity), True)
    for similarity in np.linspace(0.3, 0.69, 30):
        entry.observe(float(similarity), False)
    assert entry.exploring(0.98, 0.05) < 0.05
    assert entry.exploring(0.4, 0.05) > 0.9


def test_the_curve_of_overlapping_similarities_is_the_likeliest():
    rng = np.random.default_rng(5)
    similarities = rng.random(20_000)
    right = rng.random(20_000) < 1 / (1 + np.exp(-12 * (similarities - 0.6)))
    threshold, deviation, slope = per_entry.fit(similarities, right)
    assert threshold == pytest.approx(0.6, abs=4 * deviation)
    assert deviation < 0.01
    assert slope == pytest.approx(12, rel=0.1)


def test_the_per_entry_rule_keeps_its_promise_where_it_was_made_for_it():
    rng = np.random.default_rng(6)
    n = 6000
    cosines = rng.random((n, 1)).astype(np.float32)
    entries = rng.integers(0, 5, size=(n, 1))
    right = rng.random((n, 1)) < 1 / (1 + np.exp(-15 * (cosines - 0.5)))
    stream = streams.Stream(asked=np.arange(n) + 10, neighbours=entries, cosines=cosines, right=right, answers=entries)
    served = per_entry.replay(stream, delta=0.05, seed=0)
    assert served.hit_rate > 0.2
    assert served.wrong / served.lookups <= 0.05


def test_own_contents_hold_one_entry_per_meaning():
    rng = np.random.default_rng(7)
    centres = unit(rng, 4, 16)
    meaning = rng.integers(0, 4, size=500)
    vectors = centres[meaning] + rng.normal(scale=0.02, size=(500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    served = per_entry.replay_own_contents(
        vectors.astype(np.float32),
        lambda one, other: bool(meaning[one] == meaning[other]),
        np.arange(500),
        warm_up=100,
        capacity=8,
        delta=0.05,
        seed=0,
    )
    assert served.lookups == 400
    assert served.hit_rate > 0.5
    assert served.wrong == 0


def test_five_seeds_share_what_scorers_train_on_and_nothing_else():
    pairs = made_up_pairs()
    zero, four, five = (streams.pair_splits(pairs, seed=seed) for seed in (0, 4, 5))
    assert zero.train[1].asked.tolist() == four.train[1].asked.tolist() != five.train[1].asked.tolist()
    assert set(zero.calibration.asked) != set(four.calibration.asked)
    intents = made_up_intents()
    zero, four = (streams.intent_splits(intents, seed=seed, capacity_share=0.1) for seed in (0, 4))
    assert zero.train[0].asked.tolist() == four.train[0].asked.tolist()
    assert set(zero.test.asked) != set(four.test.asked)


def a_stream():
    return streams.Stream(
        asked=np.array([0, 3]),
        neighbours=np.array([[1, 2, 4], [1, -1, -1]]),
        cosines=np.array([[0.9, 0.8, 0.7], [0.6, -1, -1]], dtype=np.float32),
        right=np.array([[False, True, True], [False, False, False]]),
        answers=np.array([[1, 2, 4], [1, -1, -1]]),
    )


def test_an_example_may_have_several_right_answers():
    questions = data.Questions(texts=tuple("abcde"), vectors=unit(np.random.default_rng(8), 5))
    first, second = ours.labelled(a_stream(), questions)
    assert [near.text for near in first.lookup.neighbours] == ["b", "c", "e"]
    assert [first.is_right(place) for place in (0, 1, 2, None)] == [False, True, True, False]
    assert first.lookup.vectors.shape == (3, 8)
    assert [near.text for near in second.lookup.neighbours] == ["b"]
    assert not second.is_right(0)


def test_without_a_scorer_ours_is_the_cosine():
    questions = data.Questions(texts=("one", "two", "ten", "six", "odd"), vectors=unit(np.random.default_rng(8), 5))
    found = ours.scored(Assessor(vetoes=()), a_stream(), questions)
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.right.tolist() == [False, False]


def test_our_threshold_is_proved_and_never_where_nothing_is():
    rng = np.random.default_rng(9)
    probabilities = rng.random(20_000)
    calibration = figures.Scored(scores=probabilities, right=rng.random(20_000) < probabilities)
    found = ours.thresholds(calibration, [0.2, 0.0001])
    assert 0.6 < found[0.2] < 0.7  # sure of p and above is right with (1 + p) / 2: the bound asks for a little more
    assert found[0.0001] > 1


def counts_of(halve, plain, *, targets):
    counts = {bench.name("plainest", "default"): [1000, 10, 1]}
    for target in targets:
        for contestant, hits in (("halve", halve), ("plain", plain), ("vcache rule", 0)):
            counts[bench.name(contestant, "calibrated", target)] = [1000, hits, 1]
            counts[bench.name(contestant, "on_test", target)] = [1000, hits, 1]
        counts[bench.name("plain", "bounded", target)] = [1000, plain // 2, 1]
        counts[bench.name("halve", "bounded", target)] = [1000, halve, int(halve * target)]
    return counts


def test_the_figures_of_the_issue():
    seeds = {
        one: [counts_of(300 + seed, 200, targets=targets) for seed in (0, 10)] for one, targets in bench.TARGETS.items()
    }
    seeds["clinc_10"] = [counts_of(220, 200, targets=bench.TARGETS["clinc_10"])] * 2
    seeds["qqp"][1][bench.name("halve", "bounded", 0.15)] = [1000, 310, 60]
    speeds = Speeds(
        ours=Estimate(median=500, low=400, high=600),
        gptcache=Estimate(median=20, low=19, high=21),
        ratio=Estimate(median=25, low=20, high=30),
        processor_ratio=Estimate(median=24, low=20, high=30),
        recall=0.99,
        agreement=1.0,
    )
    result = bench.summary(seeds, speeds, seconds_per_lookup=0.001)
    assert result.figures["qqp_hit_rate_ratio_vs_best_peer"].median == pytest.approx(305 / 200)
    assert result.figures["clinc_hit_rate_ratio_vs_best_peer"].median == pytest.approx(1.1)  # the worst capacity
    assert result.figures["bound_broken_share"] == pytest.approx(1 / 30)
    assert result.figures["qqp_15_ratio_at_equal_guarantee"].median == pytest.approx(305 / 100)
    assert result.figures["lookups_ratio_vs_gptcache"].median == 25
    assert result.peers["plain, calibrated"]["qqp_15_hit_rate"].median == pytest.approx(0.2)
    assert result.peers["plainest"]["qqp_default_hit_rate"].median == pytest.approx(0.01)
    assert result.peers["gptcache"]["decides_as_its_rule_here"] == 1.0
    assert "clinc_20_5: halve" in bench.rows(result, seeds)


def test_cosines_as_probabilities_keep_their_order():
    rng = np.random.default_rng(10)
    cosines = rng.random(3000)
    train = figures.Scored(scores=cosines, right=rng.random(3000) < cosines)
    one = figures.Scored(scores=np.array([0.9, -np.inf, 0.2]), right=np.array([True, False, False]))
    found = ours.as_probabilities(one, train=[train]).scores
    assert found[0] == pytest.approx(0.9, abs=0.06)
    assert found[1] == -np.inf
    assert found[0] > found[2] > 0


def test_judged_neighbours_are_those_that_people_saw():
    pairs = made_up_pairs()
    stream = streams.pair_splits(pairs, seed=0).test
    judged = streams.judged(pairs, stream)
    labelled = {
        tuple(sorted(pair)): bool(label) for pair, label in zip(pairs.pairs.tolist(), pairs.duplicate, strict=True)
    }
    for row, question in enumerate(judged.asked.tolist()):
        entries = [entry for entry in judged.neighbours[row].tolist() if entry >= 0]
        assert entries
        for column, entry in enumerate(entries):
            known = labelled.get((min(question, entry), max(question, entry)))
            assert judged.right[row, column] == (pairs.meaning[question] == pairs.meaning[entry])
            assert known is not None or judged.right[row, column]


def test_no_ratio_where_nobody_serves():
    counts = [counts_of(0, 0, targets=(0.1,))]
    assert bench.headline(counts, 0.1).median == 0.0
