import hashlib
import itertools
import math
import random
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.cache import SemanticCache, SemanticCounts
from halve.techniques.inference.caching.semantic.eviction import Limits
from halve.techniques.inference.caching.semantic.neighbour import Decision
from halve.techniques.inference.caching.semantic.partition import from_chat_request, partition_key
from halve.techniques.inference.caching.semantic.sqlite import SQLiteStore

P = hashlib.sha256(b"p").digest()
Q = hashlib.sha256(b"q").digest()


def encode(texts):
    """The text "17 words" lies at 17 degrees."""
    angles = np.radians([float(text.split()[0]) for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def within(degrees):
    def decide(text, neighbours):
        first = neighbours[0]
        hit = first.cosine >= math.cos(math.radians(degrees))
        entry = first.entry if hit else None
        return Decision(hit=hit, entry=entry, probability=0.9 if hit else 0.1, reason="angle")

    return decide


within_ten = within(10)


@pytest.fixture
def make_cache(tmp_path):
    stores = []

    def make(*, limits=None, decide=within_ten, **options):
        stores.append(SQLiteStore(tmp_path / "cache.sqlite", encoder="angle", dimension=2, limits=limits))
        return SemanticCache(store=stores[-1], encode=options.pop("encode", encode), decide=decide, **options)

    yield make
    for store in stores:
        store.close()


def test_a_miss_then_its_answer_then_its_neighbours(make_cache):
    cache = make_cache()
    first = cache.lookup(P, "20 a", now_seconds=0.0)
    assert (first.found, first.hit, first.answer, first.neighbours) == ("miss", False, None, [])
    assert first.decision == Decision(hit=False, entry=None, probability=0.0, reason="nothing stored")
    stored = cache.put(P, "20 a", '"twenty"', now_seconds=1.0, vector=first.vector)
    same = cache.lookup(P, "20 a", now_seconds=2.0)
    assert (same.found, same.answer, same.vector) == ("exact", '"twenty"', None)
    assert same.decision == Decision(hit=True, entry=stored.entry, probability=1.0, reason="identical text")
    near = cache.lookup(P, "25 b", now_seconds=3.0)
    assert (near.found, near.answer) == ("semantic", '"twenty"')
    assert near.decision == Decision(hit=True, entry=stored.entry, probability=0.9, reason="angle")
    assert near.neighbours[0].text == "20 a"
    assert near.neighbours[0].cosine == pytest.approx(math.cos(math.radians(5)), abs=1e-3)
    far = cache.lookup(P, "50 c", now_seconds=4.0)
    assert (far.found, far.answer) == ("miss", None)
    assert far.decision == Decision(hit=False, entry=None, probability=0.1, reason="angle")
    assert far.vector == pytest.approx(encode(["50 c"])[0])
    assert cache.lookup(Q, "20 a", now_seconds=5.0).found == "miss"
    assert len(cache) == 1


def test_counts_and_the_time_of_encoding(make_cache):
    ticks = itertools.count()
    cache = make_cache(limits=Limits(entries=2), clock=lambda: next(ticks) * 0.5)
    for number, text in enumerate(["10 a", "40 b", "70 c"]):
        cache.put(P, text, "1", now_seconds=float(number), usd_saved_each=0.25, ttl_seconds=100.0)
    for text in ("70 c", "72 d", "10 a", "43 e"):
        cache.lookup(P, text, now_seconds=5.0)
    cache.lookup(Q, "10 a", now_seconds=5.0)
    cache.put(P, "80 f", "1", now_seconds=150.0)
    assert cache.counts == SemanticCounts(
        exact_hits=1,
        semantic_hits=2,
        misses=2,
        vetoed=1,
        puts=4,
        evictions=1,
        expiries=2,
        encoded_texts=8,
        encode_seconds=4.0,
        usd_saved=0.75,
    )


def test_a_vector_is_made_once(make_cache):
    asked = []

    def counting(texts):
        asked.extend(texts)
        return encode(texts)

    cache = make_cache(encode=counting)
    missed = cache.lookup(P, "10 a", now_seconds=0.0)
    cache.put(P, "10 a", "1", now_seconds=0.0, vector=missed.vector)
    cache.lookup(P, "10 a", now_seconds=0.0)
    cache.lookup(P, "12 b", now_seconds=0.0, vector=encode(["12 b"])[0])
    assert asked == ["10 a"]


def test_an_entry_lives_as_long_as_it_was_given(make_cache):
    cache = make_cache(ttl_seconds=10.0)
    cache.put(P, "10 a", '"cache"', now_seconds=0.0)
    cache.put(P, "50 b", '"own"', now_seconds=0.0, ttl_seconds=20.0)
    assert cache.lookup(P, "10 a", now_seconds=9.99).found == "exact"
    assert cache.lookup(P, "11 c", now_seconds=9.99).found == "semantic"
    assert [cache.lookup(P, text, now_seconds=10.0).found for text in ("10 a", "11 c", "51 d")] == [
        "miss",
        "miss",
        "semantic",
    ]
    assert cache.lookup(P, "50 b", now_seconds=20.0).found == "miss"


def test_a_tag_takes_its_answers_out(make_cache):
    cache = make_cache()
    cache.put(P, "10 a", "1", now_seconds=0.0, tags=["docs", "docs"])
    cache.put(Q, "10 a", "1", now_seconds=0.0, tags=["prices"])
    assert (cache.invalidate("docs"), len(cache)) == (1, 1)
    assert cache.lookup(P, "10 a", now_seconds=0.0).found == "miss"
    assert cache.lookup(Q, "10 a", now_seconds=0.0).found == "exact"


def test_equal_digests_are_told_to_the_decision(make_cache):
    seen = []

    def decide(text, neighbours):
        seen.append([neighbour.answer for neighbour in neighbours])
        return Decision(hit=False, entry=None, probability=0.0, reason="no")

    cache = make_cache(decide=decide)
    cache.put(P, "10 a", '{"id": 1}', now_seconds=0.0, answer_digest="same")
    cache.put(P, "12 b", '{"id": 2}', now_seconds=0.0, answer_digest="same")
    cache.put(P, "15 c", '{"id": 2}', now_seconds=0.0)
    cache.lookup(P, "9 d", now_seconds=0.0)
    assert seen == [["same", "same", hashlib.sha256(b'{"id": 2}').hexdigest()]]


def test_a_decision_may_look_at_vectors(make_cache):
    class Second:
        most_held = 3

        def vectors_needed(self, neighbours, *, held):
            assert held == 3, "of the partition's four, as many as make a difference"
            return len(neighbours) - 1

        def decide(self, text, neighbours, *, vector, vectors, held):
            assert held == 3
            assert vectors @ vector == pytest.approx([neighbour.cosine for neighbour in neighbours[:-1]], abs=1e-3)
            return Decision(hit=True, entry=neighbours[1].entry, probability=0.5, reason="the second")

    cache = make_cache(decide=None, on_vectors=Second(), neighbours=3)
    for degrees in (10, 20, 30, 40):
        cache.put(P, f"{degrees} a", f"{degrees}", now_seconds=0.0)
    found = cache.lookup(P, "12 b", now_seconds=0.0)
    assert (found.answer, len(found.neighbours)) == ("20", 3)


def test_an_entry_that_leaves_while_it_is_decided_about_is_a_miss(make_cache):
    def decide(text, neighbours):
        cache.invalidate("t")
        return Decision(hit=True, entry=neighbours[0].entry, probability=1.0, reason="near")

    cache = make_cache(decide=decide)
    cache.put(P, "10 a", "1", now_seconds=0.0, tags=["t"])
    found = cache.lookup(P, "11 b", now_seconds=0.0)
    assert (found.found, found.answer, found.decision.hit) == ("miss", None, False)


def test_a_decision_cannot_serve_what_it_was_not_asked_about(make_cache):
    cache = make_cache(decide=lambda text, near: Decision(hit=True, entry=other, probability=1.0, reason="?"))
    other = cache.put(Q, "10 a", '"of another tenant"', now_seconds=0.0).entry
    cache.put(P, "10 b", "1", now_seconds=0.0)
    with pytest.raises(InvalidParameterError, match=rf"entry of a decision must be one of the neighbours. Got {other}"):
        cache.lookup(P, "11 c", now_seconds=0.0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"neighbours": 0}, "neighbours must be at least 1. Got 0"),
        ({"ttl_seconds": 0}, "ttl_seconds must be above 0, or None for ever. Got 0"),
        ({"decide": None}, "decide and on_vectors must be one of the two. Got 'neither'"),
        ({"on_vectors": print}, "decide and on_vectors must be one of the two. Got 'both'"),
    ],
)
def test_bad_choices_are_named(make_cache, options, match):
    with pytest.raises(InvalidParameterError, match=match):
        make_cache(**options)


def test_bad_calls_are_named(make_cache):
    cache = make_cache(encode=lambda texts: np.ones((1, 3), dtype=np.float32))
    with pytest.raises(InvalidParameterError, match=r"vectors of the encoder must be of shape \(1, 2\).* Got \(1, 3\)"):
        cache.lookup(P, "a", now_seconds=0.0)
    with pytest.raises(InvalidParameterError, match=r"ttl_seconds must be above 0, or None for the cache's. Got -1"):
        cache.put(P, "a", "1", now_seconds=0.0, ttl_seconds=-1)


def test_threads_count_everything(make_cache):
    cache = make_cache(decide=within(1))

    def work(thread):
        for number in range(20):
            text = f"{thread * 20 + number} x"
            cache.lookup(P, text, now_seconds=0.0)
            cache.put(P, text, f"{thread}", now_seconds=0.0)
            assert cache.lookup(P, text, now_seconds=0.0).answer == f"{thread}"

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = cache.counts
    assert (counts.puts, counts.exact_hits, len(cache)) == (80, 80, 80)
    assert counts.exact_hits + counts.semantic_hits + counts.misses == 160


ANGLES = [2.5 * mark for mark in (0, 1, 4, 9, 15, 22, 32, 34)]
"""A Golomb ruler: no two pairs of questions are equally far apart, so the nearest is always one."""

NEAR_DEGREES = 21.25
texts = st.sampled_from([f"{angle} degrees" for angle in ANGLES])
partitions = st.sampled_from([P, Q])


class CacheAgainstModel(RuleBasedStateMachine):
    """The cache beside a plain list, least recently used first by time and then by number."""

    @initialize(
        capacity=st.integers(1, 6), ttl=st.none() | st.integers(1, 6), exact_entries=st.sampled_from([1, 2_000])
    )
    def start(self, capacity, ttl, exact_entries):
        if exact_entries == 1 and not _has_usearch():
            exact_entries = 2_000
        self.folder = tempfile.TemporaryDirectory()
        self.store = SQLiteStore(
            Path(self.folder.name) / "cache.sqlite",
            encoder="angle",
            dimension=2,
            limits=Limits(entries=capacity),
            exact_entries=exact_entries,
        )
        self.cache = SemanticCache(store=self.store, encode=encode, decide=within(NEAR_DEGREES), ttl_seconds=ttl)
        self.capacity, self.ttl, self.now, self.entries, self.numbers = capacity, ttl, 0, [], itertools.count()

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    def living(self, partition):
        return [each for each in self.entries if each["partition"] == partition and each["end"] > self.now]

    @rule(seconds=st.integers(0, 3))
    def wait(self, seconds):
        self.now += seconds

    @rule(partition=partitions, text=texts)
    def lookup(self, partition, text):
        here = float(text.split()[0])
        living = self.living(partition)
        chosen, expected = next((each for each in living if each["text"] == text), None), "exact"
        if chosen is None:
            near = sorted(living, key=lambda each: abs(each["at"] - here))
            chosen = near[0] if near and abs(near[0]["at"] - here) <= NEAR_DEGREES else None
            expected = "semantic" if chosen else "miss"
        found = self.cache.lookup(partition, text, now_seconds=self.now)
        assert (found.found, found.answer) == (expected, chosen and chosen["answer"])
        if chosen:
            chosen["used"] = max(chosen["used"], self.now)

    @rule(partition=partitions, text=texts, answer=st.integers(0, 9), tag=st.sampled_from(["x", "y"]))
    def put(self, partition, text, answer, tag):
        self.entries = [each for each in self.entries if each["end"] > self.now]
        self.entries = [each for each in self.entries if (each["partition"], each["text"]) != (partition, text)]
        end = math.inf if self.ttl is None else self.now + self.ttl
        new = {"partition": partition, "text": text, "at": float(text.split()[0]), "answer": f"{answer}"}
        new |= {"end": end, "used": self.now, "number": next(self.numbers), "tag": tag}
        if len(self.entries) == self.capacity:
            self.entries.remove(min(self.entries, key=lambda each: (each["used"], each["number"])))
        self.entries.append(new)
        self.cache.put(partition, text, f"{answer}", now_seconds=self.now, tags=[tag])

    @rule(tag=st.sampled_from(["x", "y"]))
    def invalidate(self, tag):
        gone = [each for each in self.entries if each["tag"] == tag]
        self.entries = [each for each in self.entries if each["tag"] != tag]
        assert self.cache.invalidate(tag) == len(gone)

    @rule()
    def expire(self):
        over = [each for each in self.entries if each["end"] <= self.now]
        self.entries = [each for each in self.entries if each["end"] > self.now]
        assert self.store.expire(now_seconds=self.now) == len(over)

    @invariant()
    def agrees(self):
        if hasattr(self, "store"):
            assert len(self.cache) == len(self.entries) <= self.capacity


TestCacheAgainstModel = CacheAgainstModel.TestCase
TestCacheAgainstModel.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


def _has_usearch():
    import importlib.util

    return importlib.util.find_spec("usearch") is not None


def requests_of(rng):
    """Every combination of tenants, prompts, tools, formats and temperatures, as requests without their last text."""
    tenants = ["acme", "acme2", "globex"]
    prompts = [None, "You are A.", "You are B."]
    tools = [None, [{"type": "function", "function": {"name": "f"}}], [{"type": "function", "function": {"name": "g"}}]]
    formats = [None, {"type": "json_object"}, {"type": "text"}]
    temperatures = [None, 0.0, 0.7]
    for tenant, prompt, tool, form, temperature in itertools.product(tenants, prompts, tools, formats, temperatures):
        request = {"model": "m", "messages": [] if prompt is None else [{"role": "system", "content": prompt}]}
        optional = {"tools": tool, "response_format": form, "temperature": temperature}
        names = [name for name, value in optional.items() if value is not None]
        rng.shuffle(names)
        yield tenant, request | {name: optional[name] for name in names}


def probe(cache, *, probes):
    """Ask random questions of random scopes; every vector is nearly the same, and every neighbour is a hit.

    Returns:
        Hits, and answers that came from another scope.
    """
    rng = random.Random(3)
    scopes = list(requests_of(rng))
    questions = [f"question {number}" for number in range(50)]
    splits = {}
    for number, (tenant, request) in enumerate(scopes):
        for question in questions:
            body = {**request, "messages": [*request["messages"], {"role": "user", "content": question}]}
            scope, text = from_chat_request(body, tenant=tenant, encoder="constant")
            assert text == question
        splits[number] = partition_key(scope)
    assert len(set(splits.values())) == len(scopes) == 243
    for number in range(0, len(scopes), 2):  # every other scope stays empty: it must miss
        for question in rng.sample(questions, 3):
            cache.put(splits[number], question, f'"answer of {number}"', now_seconds=0.0)
    hits = crossed = 0
    for _ in range(probes):
        number = rng.randrange(len(scopes))
        found = cache.lookup(splits[number], rng.choice(questions), now_seconds=1.0)
        hits += found.hit
        crossed += found.hit != (number % 2 == 0) or (found.hit and found.answer != f'"answer of {number}"')
    return hits, crossed


def nearly_constant(texts):
    vectors = np.ones((len(texts), 8), dtype=np.float32)
    vectors[:, 0] += [1e-3 * (hash(text) % 7) for text in texts]
    return vectors


@pytest.mark.parametrize("probes", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_answer_crosses_a_partition(tmp_path, probes):
    with SQLiteStore(tmp_path / "cache.sqlite", encoder="constant", dimension=8) as store:
        cache = SemanticCache(store=store, encode=nearly_constant, decide=within(90), neighbours=2)
        hits, crossed = probe(cache, probes=probes)
    assert crossed == 0
    assert hits >= 0.4 * probes


def test_no_answer_crosses_a_partition_of_the_shared_store(postgres_url, postgres_schema):
    from halve.techniques.inference.caching.semantic.postgres import PostgresStore

    options = {"encoder": "constant", "dimension": 8, "schema": postgres_schema, "exact_entries": 1}
    with PostgresStore(postgres_url, **options) as store:
        cache = SemanticCache(store=store, encode=nearly_constant, decide=within(90), neighbours=2)
        hits, crossed = probe(cache, probes=2_000)
    assert crossed == 0
    assert hits >= 800
