import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.engines.endpoint import Endpoint
from halve.engines.replies import (
    LEAST_PROBABILITY,
    UnusableReplyError,
    class_of_text,
    class_of_token,
    probabilities_from_samples,
    probabilities_from_tokens,
)

TWO = Endpoint(url="http://h/v1", model="m", labels=("good", "bad"), prompt="{labels} {payload}")
THREE = replace(TWO, labels=("good", "bad", "so-so"))
SAMPLED = replace(THREE, mode="sampled")


@pytest.fixture
def tokens_reply(replies):
    return replies[0]


@pytest.fixture
def text_reply(replies):
    return replies[1]


def test_tokens_of_one_class_are_added_and_classes_share_what_they_have(tokens_reply):
    # A: 0.5 + 0.1 = 0.6; B: 0.2; "The" is nobody's. 0.6 / 0.8 and 0.2 / 0.8.
    got = probabilities_from_tokens(tokens_reply({"A": 0.5, "B": 0.2, " A": 0.1, "The": 0.1}), TWO)
    np.testing.assert_allclose(got, [0.75, 0.25], rtol=1e-6)
    assert got.dtype == np.float32


def test_a_label_that_is_not_listed_gets_what_is_left(tokens_reply):
    # Left: 1 - 0.6 - 0.2 - 0.1 = 0.1, for one missing label; the least probable token has 0.1 too. Sum 0.9.
    got = probabilities_from_tokens(tokens_reply({"A": 0.6, "B": 0.2, "X": 0.1}), THREE)
    np.testing.assert_allclose(got, [6 / 9, 2 / 9, 1 / 9], rtol=1e-6)


def test_missing_labels_share_what_is_left(tokens_reply):
    # Left: 1 - 0.9 = 0.1, for two: 0.05 each, below the least probable token's 0.1. Sum 0.8 + 0.05 + 0.05.
    got = probabilities_from_tokens(tokens_reply({"A": 0.8, "X": 0.1}), THREE)
    np.testing.assert_allclose(got, [8 / 9, 0.5 / 9, 0.5 / 9], rtol=1e-5)


def test_a_missing_label_is_never_more_probable_than_a_token_that_was_listed(tokens_reply):
    # Left: 0.49, for two: 0.245 each; but what is not listed has at most 0.01. Sum 0.5 + 2 * 0.01.
    got = probabilities_from_tokens(tokens_reply({"A": 0.5, "X": 0.01}), THREE)
    np.testing.assert_allclose(got, [50 / 52, 1 / 52, 1 / 52], rtol=1e-5)


def test_no_class_is_impossible(tokens_reply):
    got = probabilities_from_tokens(tokens_reply({"A": 1.0}), THREE)
    np.testing.assert_allclose(got[1:], LEAST_PROBABILITY, rtol=1e-5)
    assert np.isfinite(np.log(got)).all()


@given(st.dictionaries(st.sampled_from(["A", "B", "C", " A", "x", "The", "1"]), st.floats(1e-6, 0.14), min_size=1))
def test_probabilities_are_a_distribution_that_keeps_the_order_of_the_listed(shares):
    entries = [{"token": token, "logprob": math.log(share)} for token, share in shares.items()]
    reply = {"choices": [{"logprobs": {"content": [{"top_logprobs": entries}]}}]}
    got = probabilities_from_tokens(reply, replace(THREE, on_no_label="uniform"))
    assert got.sum() == pytest.approx(1, abs=1e-6)
    assert (got > 0).all()
    masses = [sum(share for token, share in shares.items() if token.strip() == code) for code in "ABC"]
    for k, j in ((0, 1), (1, 2), (0, 2)):
        if masses[k] > masses[j] > 0:
            assert got[k] >= got[j]


@pytest.mark.parametrize(
    ("token", "codes", "index"),
    [
        ("A", ("A", "B"), 0),
        (" B", ("A", "B"), 1),
        ("\u2581B", ("A", "B"), 1),
        ("\u0120B", ("A", "B"), 1),
        ("a", ("A", "B"), None),
        ("Answer", ("A", "B"), None),
        ("", ("A", "B"), None),
        (" \n", ("A", "B"), None),
        ("posi", ("positive", "negative"), 0),
        ("positive", ("positive", "negative"), 0),
        ("pro", ("product", "process"), None),  # it begins both
        ("3", ("01", "30"), None),  # a tokenizer that splits numbers
        ("30", ("01", "30"), 1),
    ],
)
def test_which_class_a_token_means(token, codes, index):
    assert class_of_token(token, codes) == index


def test_no_code_among_the_tokens_is_an_error_or_equal_probabilities(tokens_reply):
    reply = tokens_reply({"The": 0.5, "I": 0.2})
    with pytest.raises(
        UnusableReplyError, match=r"no code of a label is among the 2 most probable tokens .*'The', 'I'"
    ):
        probabilities_from_tokens(reply, TWO)
    np.testing.assert_allclose(probabilities_from_tokens(reply, replace(TWO, on_no_label="uniform")), [0.5, 0.5])


def test_a_server_without_log_probabilities_is_told_from_a_bad_reply():
    with pytest.raises(UnusableReplyError, match=r"must return choices\[0\]\.logprobs .* use mode sampled") as caught:
        probabilities_from_tokens({"choices": [{"message": {"content": "A"}, "logprobs": None}]}, TWO)
    assert caught.value.is_endpoints


def top(entries):
    return {"choices": [{"logprobs": {"content": [{"top_logprobs": entries}]}}]}


@pytest.mark.parametrize(
    ("reply", "rule"),
    [
        ([], "must be a chat completion"),
        ({"choices": []}, "must be a chat completion"),
        ({"choices": ["x"]}, "must be a chat completion"),
        ({"choices": [{"logprobs": {"content": []}}]}, "must hold content"),
        ({"choices": [{"logprobs": {"content": None}}]}, "must hold content"),
        (top([{"token": "A"}]), "must hold content"),
        (top([{"token": "A", "logprob": None}]), "must hold content"),
        (top([]), "texts with logarithms of at most 0"),
        (top([{"token": 3, "logprob": -1}]), "texts with logarithms of at most 0"),
        (top([{"token": "A", "logprob": 2.0}]), "texts with logarithms of at most 0"),
        (top([{"token": "A", "logprob": math.nan}]), "texts with logarithms of at most 0"),
    ],
)
def test_replies_of_another_form_are_refused(reply, rule):
    with pytest.raises(UnusableReplyError, match=rule) as caught:
        probabilities_from_tokens(reply, TWO)
    assert not caught.value.is_endpoints


def test_a_probability_of_zero_is_one(tokens_reply):
    reply = top([{"token": "A", "logprob": 0.0004}, {"token": "B", "logprob": -math.inf}])
    np.testing.assert_allclose(probabilities_from_tokens(reply, TWO), [1, LEAST_PROBABILITY], rtol=1e-5)


def test_samples_are_counted_with_laplaces_rule(text_reply):
    # 4 replies, one names no label: n = 3. (2 + 1) / (3 + 3), (1 + 1) / 6, (0 + 1) / 6.
    got = probabilities_from_samples([text_reply(text) for text in ("A", "B", "hm", " A.\n")], SAMPLED)
    np.testing.assert_allclose(got, [3 / 6, 2 / 6, 1 / 6], rtol=1e-6)
    assert got.dtype == np.float32


@given(st.lists(st.sampled_from("ABC"), min_size=1, max_size=30))
def test_sampled_probabilities_peak_at_the_most_frequent_label(codes):
    got = probabilities_from_samples([{"choices": [{"message": {"content": code}}]} for code in codes], SAMPLED)
    assert got.sum() == pytest.approx(1, abs=1e-6)
    assert codes.count("ABC"[int(got.argmax())]) == max(codes.count(code) for code in "ABC")


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("A", 0),
        ("'B'", 1),
        ("B.", 1),
        ("C: so-so", 2),
        ("C) so-so", 2),
        ("C - so-so", 2),
        ("B\nbecause", 1),
        ("Good", 0),
        ("so-so!", 2),
        ("A good film", None),
        ("a", None),
        ("D: other", None),
        ("", None),
        ("it is bad", None),
    ],
)
def test_which_class_a_reply_names(text, index):
    assert class_of_text(text, SAMPLED) == index


def test_replies_that_name_no_label_are_an_error_or_equal_probabilities(text_reply):
    replies = [text_reply("perhaps"), text_reply("")]
    with pytest.raises(UnusableReplyError, match=r"no reply of 2 names a label \(the first: 'perhaps'\)"):
        probabilities_from_samples(replies, SAMPLED)
    got = probabilities_from_samples(replies, replace(SAMPLED, on_no_label="uniform"))
    np.testing.assert_allclose(got, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("choice", [{}, {"message": None}, {"message": {}}, {"message": {"content": None}}])
def test_a_reply_without_text_is_refused(choice):
    with pytest.raises(UnusableReplyError, match=r"message\.content must be a text"):
        probabilities_from_samples([{"choices": [choice]}], SAMPLED)
