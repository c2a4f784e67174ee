import subprocess
import sys
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halve.techniques.inference.caching.semantic.terms import BITS, Terms, pair_terms

WORDS = ("how", "what", "red", "green", "blue", "not", "2", "paris", "a", "the")
texts = st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join)


def place(term):
    return zlib.crc32(term.encode()) % (1 << BITS)


def test_terms_by_hand():
    found = pair_terms(["how red paris"], ["how green paris"])
    terms = ["both how", "both paris", "one red", "one green", "pair green red", "asks how how"]
    assert sorted(found.places.tolist()) == sorted(place(term) for term in terms)
    assert found.starts.tolist() == [0, 6]


def test_words_are_paired_only_where_few_differ():
    some = pair_terms(["ab cd ef"], ["gh ij kl"])
    many = pair_terms(["ab cd ef mn"], ["gh ij kl"])
    assert len(some.places) == 6 + 9 + 1
    assert len(many.places) == 7 + 1


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_it_does_not_matter_which_text_comes_first(pairs):
    ones, others = [one for one, _ in pairs], [other for _, other in pairs]
    there, back = pair_terms(ones, others), pair_terms(others, ones)
    assert there.places.tolist() == back.places.tolist()
    assert len(there) == len(pairs)


@given(st.lists(st.lists(st.integers(0, 40), max_size=5), max_size=6), st.data())
def test_sums_rows_and_joins_agree_with_plain_lists(rows, data):
    weights = np.random.default_rng(0).normal(size=1 << BITS).astype(np.float32)

    def terms_of(rows):
        starts = np.cumsum([0, *(len(row) for row in rows)])
        return Terms(places=np.array([place for row in rows for place in row], dtype=np.int64), starts=starts)

    terms = terms_of(rows)
    expected = [float(np.sum(weights[row].astype(np.float64))) if row else 0.0 for row in rows]
    assert np.allclose(terms.sums(weights), expected)
    assert np.allclose(terms.matrix() @ weights, expected, atol=1e-5)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), dtype=bool)
    some = terms.kept(kept)
    wanted = terms_of([row for row, keep in zip(rows, kept, strict=True) if keep])
    assert (some.places.tolist(), some.starts.tolist()) == (wanted.places.tolist(), wanted.starts.tolist())
    twice = terms.followed_by(some)
    assert len(twice) == len(rows) + int(kept.sum())
    assert twice.sums(weights)[len(rows) :].tolist() == some.sums(weights).tolist()


def test_the_same_in_another_process():
    code = (
        "from halve.techniques.inference.caching.semantic.terms import pair_terms\n"
        "print(pair_terms(['how red blue'], ['green pink']).places.tolist())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert seen == {f"{pair_terms(['how red blue'], ['green pink']).places.tolist()}\n"}
