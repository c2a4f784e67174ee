import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.among import lookups_in_time
from halve.techniques.inference.caching.semantic.log_replay import replay_log

NAMES = (
    "bill",
    "hotel",
    "flight",
    "doctor",
    "lunch",
    "train",
    "price",
    "sleep",
    "recipe",
    "music",
    "weather",
    "garden",
)
TOPICS, WORDS = len(NAMES), ("please", "now", "today", "thanks", "quickly", "again", "soon", "kindly")


def letters(number):
    """A word of its own for each number: a digit would be vetoed."""
    return "".join("bcdfghjklm"[int(digit)] + "a" for digit in str(number))


def log(count, *, noise, seed):
    """A log of topics: vectors of a topic lie together, and `noise` says how far apart."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(TOPICS, 16))
    topics = random.integers(TOPICS, size=count)
    vectors = (centres[topics] + noise * random.normal(size=(count, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    extra = random.integers(len(WORDS), size=(count, 4))
    texts = [
        f"{NAMES[topic]} {' '.join(WORDS[word] for word in row)} {letters(number)}"
        for number, (topic, row) in enumerate(zip(topics, extra, strict=True))
    ]
    return texts, [str(topic) for topic in topics], vectors


def replayed(texts, answers, vectors, *, precision=0.95, partitions=None):
    return replay_log(
        texts,
        answers,
        vectors=vectors,
        partitions=partitions or [""] * len(texts),
        precision_at_least=precision,
    )


def test_a_log_of_topics_that_lie_apart_is_worth_a_cache():
    found = replayed(*log(1200, noise=0.2, seed=0))
    assert (found.requests, found.new_questions, found.exact_repeats, found.judged) == (1200, 1200, 0, 300)
    assert found.hit_rate > 0.9
    assert found.wrong_hits / found.hits < 0.05
    assert found.choice.point is not None


def test_a_log_without_structure_is_not():
    texts, _, vectors = log(800, noise=0.2, seed=1)
    answers = [str(number) for number in range(len(texts))]  # nothing has the same answer as anything else
    found = replayed(texts, answers, vectors)
    assert (found.hits, found.choice.point, found.learned) == (0, None, False)
    assert found.wrong_share_upper_bound == 1.0


def test_repeats_are_an_exact_caches_business():
    texts, answers, vectors = log(600, noise=0.2, seed=2)
    twice = replayed(texts * 2, answers * 2, np.concatenate([vectors, vectors]))
    once = replayed(texts, answers, vectors)
    assert (twice.exact_repeats, twice.new_questions) == (600, 600)
    assert (twice.hits, twice.wrong_hits) == (once.hits, once.wrong_hits)


def test_partitions_share_nothing():
    texts, answers, vectors = log(600, noise=0.2, seed=3)
    found = replayed(texts, answers, vectors, partitions=[str(number) for number in range(600)])
    assert found.hits == 0
    assert all(point.hits == 0 for point in found.curve)


def test_mistakes_are_wrong_and_surest_first():
    found = replayed(*log(1500, noise=0.9, seed=4), precision=0.8)
    sure = [one.probability for one in found.mistakes]
    assert sure == sorted(sure, reverse=True)
    for one in found.mistakes:
        assert one.text.split()[0] != one.stored.split()[0]


def test_the_promise_is_kept_on_what_was_not_looked_at():
    # 8 logs, each with a threshold of its own; `test_thresholds` simulates hundreds without a scorer.
    broken = 0
    for seed in range(8):
        found = replayed(*log(600, noise=0.7, seed=10 + seed), precision=0.9)
        broken += found.hits > 0 and found.wrong_hits / found.hits > 0.1 + 2 * np.sqrt(0.09 / found.hits)
    assert broken <= 1


@pytest.mark.parametrize("stored", [64, 150, 255])
def test_the_promise_is_kept_while_the_cache_fills(stored):
    # Of topics that overlap: with few entries stored, the nearest is often of another topic.
    careful, careless = [], []
    for seed in (30, 31, 32):
        texts, answers, vectors = log(1600, noise=1.2, seed=seed)
        texts = [text.split(maxsplit=1)[1] for text in texts]  # the words say nothing of the topic
        policy = replayed(texts, answers, vectors, precision=0.85).policy
        assert (policy.threshold_at(1), policy.threshold_at(999)) == (1.0, policy.threshold)
        places = np.arange(1200, 1600)
        young = lookups_in_time(texts, vectors, answers, [""] * 1600, places=places, stored=stored)
        for place, lookup in zip(places.tolist(), young, strict=True):
            for held, hits in ((stored, careful), (None, careless)):
                decision = policy.decide(
                    lookup.text, lookup.neighbours, vector=lookup.vector, vectors=lookup.vectors, held=held
                )
                if decision.hit:
                    hits.append(answers[decision.entry] == answers[place])
    assert len(careful) > 100
    assert np.mean(careful) > 0.85
    if stored == 64:
        assert np.mean(careless) < 0.85, "the threshold of a full cache breaks the promise here"


def test_a_few_small_partitions_do_not_make_a_large_one_careless():
    texts, answers, vectors = log(1600, noise=1.2, seed=30)
    texts = [text.split(maxsplit=1)[1] for text in texts]
    partitions = ["large" if number % 16 else f"small {number}" for number in range(1600)]
    found = replayed(texts, answers, vectors, precision=0.85, partitions=partitions)
    assert found.policy.threshold_at(10) > found.policy.threshold


def test_partitions_that_stay_small_are_proved_as_small_as_they_are():
    texts, answers, vectors = log(1200, noise=0.2, seed=6)
    found = replayed(texts, answers, vectors, partitions=[str(number % 100) for number in range(1200)])
    assert found.choice.point is not None
    assert [level.below for level in found.policy.filling] == [7]


def test_what_is_judged_is_the_policy_that_is_written():
    # The last quarter comes from partitions that are new: nothing is stored there, or next to nothing.
    texts, answers, vectors = log(1600, noise=1.2, seed=31)
    texts = [text.split(maxsplit=1)[1] for text in texts]
    partitions = ["old" if number < 1200 else f"new {number % 100}" for number in range(1600)]
    found = replayed(texts, answers, vectors, precision=0.85, partitions=partitions)
    assert found.choice.point is not None
    assert found.policy.threshold_at(3) == 1.0
    assert found.hits == 0


def test_too_short_a_log_says_nothing():
    texts, answers, vectors = log(99, noise=0.2, seed=5)
    with pytest.raises(InvalidParameterError, match=r"at least 100 different ones\. Got 99"):
        replayed(texts, answers, vectors)
