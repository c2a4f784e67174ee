import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from halve.core import Example, Payload
from halve.core.hashing import payload_digest
from halve.errors import InvalidParameterError, WorkloadError
from halve.workload import split_examples

texts = st.text(max_size=3)
tensors = arrays.arrays(
    np.float32, arrays.array_shapes(max_dims=2, max_side=2), elements=st.sampled_from([-1, -0.0, 0, 2])
)


def same(left: Payload, right: Payload) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return isinstance(left, str) and isinstance(right, str) and left == right
    return left.shape == right.shape and np.array_equal(left, right)


def split(payloads: list[Payload], *, share: float = 0.5, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Split with one example known to be on each side, so that no side is empty; those two are left out."""
    anchors = anchor(True, share=share, seed=seed), anchor(False, share=share, seed=seed)
    examples = [Example(payload=payload, reference=number) for number, payload in enumerate(payloads)]
    search, certify = split_examples([*examples, *anchors], certify_share=share, seed=seed)
    search, certify = ([e for e in side if e.reference != "anchor"] for side in (search, certify))
    return search, certify


def anchor(certify: bool, *, share: float, seed: int) -> Example:
    for number in range(10_000):
        text = f"anchor {number}"
        place = int.from_bytes(payload_digest(text, salt=str(seed))[:8], "big") / 2**64
        if (place < share) == certify:
            return Example(payload=text, reference="anchor")
    raise AssertionError


@given(payloads=st.lists(texts | tensors, max_size=20), seed=st.integers(0, 5), share=st.sampled_from([0.1, 0.5, 0.9]))
def test_every_example_once_and_equal_payloads_on_one_side(payloads: list[Payload], seed: int, share: float) -> None:
    search, certify = split([*payloads, *payloads], share=share, seed=seed)
    references = [example.reference for side in (search, certify) for example in side]
    assert sorted(references) == list(range(2 * len(payloads)))
    assert not any(same(left.payload, right.payload) for left in search for right in certify)


@given(payloads=st.lists(texts, min_size=1, max_size=10), more=st.lists(texts, max_size=10), order=st.randoms())
def test_an_example_stays_on_its_side_when_others_come_or_move(
    payloads: list[Payload], more: list[Payload], order: object
) -> None:
    before = {e.payload for e in split(payloads)[1]}
    mixed = [*payloads, *more]
    order.shuffle(mixed)  # type: ignore[attr-defined]
    after = {e.payload for e in split(mixed)[1]}
    assert before == after & set(payloads)


@given(left=texts | tensors, right=texts | tensors)
def test_digests_are_equal_exactly_for_equal_payloads(left: Payload, right: Payload) -> None:
    assert (payload_digest(left) == payload_digest(right)) == same(left, right)


def test_shape_and_kind_count() -> None:
    flat = np.arange(6, dtype=np.float32)
    digests = [payload_digest(p) for p in (flat, flat.reshape(2, 3), flat.reshape(3, 2), "", "0", flat[:0])]
    assert len(set(digests)) == 6
    assert payload_digest(flat.reshape(2, 3).T) == payload_digest(flat.reshape(2, 3).T.copy())


def test_salt_cannot_be_mistaken_for_content() -> None:
    assert payload_digest("1:x", salt="2") != payload_digest("x", salt="21:")


def test_digest_is_the_same_on_every_machine() -> None:
    assert payload_digest("abc", salt="7") == hashlib.sha256(b"1:7:text:abc").digest()
    tensor = np.array([1.0, -0.0], dtype=np.float32)
    expected = hashlib.sha256(b"0::float32(2,):" + bytes.fromhex("0000803f00000000")).digest()
    assert payload_digest(tensor) == expected


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_share_is_kept_on_average(share: float) -> None:
    examples = [Example(payload=f"text {number}", reference=number) for number in range(4000)]
    _, certify = split_examples(examples, certify_share=share, seed=1)
    assert len(certify) / 4000 == pytest.approx(share, abs=5 * (share * (1 - share) / 4000) ** 0.5)


def test_another_seed_gives_another_split() -> None:
    examples = [Example(payload=f"text {number}", reference=number) for number in range(100)]
    sides = [frozenset(e.reference for e in split_examples(examples, certify_share=0.5, seed=s)[1]) for s in range(4)]
    assert len(set(sides)) == 4


def test_order_within_a_side_is_the_given_order() -> None:
    examples = [Example(payload=f"text {number}", reference=number) for number in range(50)]
    for side in split_examples(examples, certify_share=0.5, seed=0):
        assert [e.reference for e in side] == sorted(e.reference for e in side)


@pytest.mark.parametrize(("share", "empty"), [(1e-9, "certify"), (1 - 1e-9, "search")])
def test_empty_side_is_refused(share: float, empty: str) -> None:
    examples = [Example(payload="a", reference=0), Example(payload="b", reference=1)]
    with pytest.raises(WorkloadError, match=f"the {empty} split must hold at least 1 example. Got 0 from 2 examples"):
        split_examples(examples, certify_share=share, seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan"), -1.0])
def test_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InvalidParameterError, match=rf"examples.certify_share must be in \(0, 1\)\. Got {share}"):
        split_examples([Example(payload="a", reference=0)], certify_share=share, seed=0)
