"""A transfer set out of the texts there are: unlabelled variations for a teacher to answer.

A student learns from the teacher's answers, so its inputs need no labels, and they need not be good sentences: what
counts is that they cover the words and the orders of words that requests will have. Five changes, each drawn word by
word or text by text:

- replacement: a word becomes one of its neighbours (near in the teacher's table of word vectors), so that words which
  no training text has get an answer too;
- dropout: words are left out;
- swap: two neighbouring words change places;
- crossing: the beginning of one text and the end of another of the same group;
- joining: two texts of different groups, one after the other; rarely, for the boundary between classes.

Source: Tang et al. 2019, arXiv:1903.12136, section 3.2 (dropout, replacement, sampling of parts); Jiao et al. 2020,
arXiv:1909.10351, section 3 (replacement by near vectors).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How far a variation goes from its text.

    Args:
        replacement: Chance that a word with neighbours becomes one of them, in [0, 1].
        dropout: Chance that a word is left out, in [0, 1].
        swap: Chance that a text has two neighbouring words swapped, in [0, 1].
        crossing: Chance that a text gets the end of another of its group, in [0, 1].
        joining: Chance that a text is followed by one of any group, in [0, 1].
    """

    replacement: float = 0.2
    dropout: float = 0.1
    swap: float = 0.1
    crossing: float = 0.4
    joining: float = 0.0

    def __post_init__(self) -> None:
        for name in ("replacement", "dropout", "swap", "crossing", "joining"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidParameterError(name, rule="in [0, 1]", value=getattr(self, name))


def augment_texts(
    texts: Sequence[str],
    groups: Sequence[int] | NDArray[np.int64],
    *,
    count: int,
    seed: int,
    variation: Variation | None = None,
    neighbours: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Return `count` different texts, none of them among `texts`, varied by turns from all of them.

    Args:
        texts: At least one; words are what stands between spaces.
        groups: What belongs together (labels, or the teacher's answers), one for each text.
        count: How many to make, >= 0; fewer come back where so many different ones cannot be found.
        seed: Of all draws.
        variation: How far to go.
        neighbours: Words that may stand for a word; words without an entry stay.

    Raises:
        InvalidParameterError: If there is no text, or texts and groups differ in length.
    """
    if not texts or len(groups) != len(texts):
        raise InvalidParameterError(
            "groups", rule=f"one for each of at least one text, {len(texts)}", value=len(groups)
        )
    variation, neighbours = variation or Variation(), neighbours or {}
    generator = np.random.default_rng(seed)
    words = [text.split() for text in texts]
    members: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(int(group), []).append(number)
    seen = set(texts)
    made: list[str] = []
    for number in _turns(len(texts), 20 * count, generator):
        if len(made) == count:
            break
        own = members[int(groups[number])]
        text = " ".join(_varied(words, number, own, variation=variation, neighbours=neighbours, generator=generator))
        if text and text not in seen:
            seen.add(text)
            made.append(text)
    return made


def near_words(
    vectors: NDArray[np.float32], words: Sequence[str], *, count: int = 8, least_cosine: float = 0.35
) -> dict[str, list[str]]:
    """Return the nearest other words of each word by the cosine of their vectors, nearest first.

    Args:
        vectors: (words, any), such as the rows of a teacher's embedding table for whole words; not all zero.
        words: What the rows stand for, without repeats.
        count: Most neighbours of a word, >= 1.
        least_cosine: Neighbours are at least this near, in [-1, 1]; words without any are left out.
    """
    if len(vectors) != len(words):
        raise InvalidParameterError("vectors", rule=f"one row for each of {len(words)} words", value=len(vectors))
    centred = vectors - vectors.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    count = min(count, len(words) - 1)
    found: dict[str, list[str]] = {}
    for start in range(0, len(words), 1024):
        cosine = unit[start : start + 1024] @ unit.T
        cosine[np.arange(len(cosine)), np.arange(start, start + len(cosine))] = -np.inf
        for row, values in enumerate(cosine):
            best = np.argpartition(-values, count - 1)[:count] if count else np.empty(0, np.int64)
            best = best[np.argsort(-values[best], kind="stable")]
            if near := [words[other] for other in best if values[other] >= least_cosine]:
                found[words[start + row]] = near
    return found


def _turns(texts: int, draws: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return numbers of texts, every one of them once before any comes again."""
    rounds = -(-draws // texts)
    return np.concatenate([generator.permutation(texts) for _ in range(rounds)] or [np.empty(0, np.int64)])


def _varied(
    words: Sequence[list[str]],
    number: int,
    own: Sequence[int],
    *,
    variation: Variation,
    neighbours: Mapping[str, Sequence[str]],
    generator: np.random.Generator,
) -> list[str]:
    text = list(words[number])
    if generator.random() < variation.crossing:
        other = words[own[int(generator.integers(len(own)))]]
        text = text[: int(generator.integers(1, len(text) + 1))] + other[int(generator.integers(len(other) + 1)) :]
    if generator.random() < variation.joining:
        text += words[int(generator.integers(len(words)))]
    if len(text) > 1 and generator.random() < variation.swap:
        place = int(generator.integers(len(text) - 1))
        text[place : place + 2] = text[place + 1], text[place]
    replaced = []
    for word, (drop, replace) in zip(text, generator.random((len(text), 2)), strict=True):
        if drop < variation.dropout:
            continue
        near = neighbours.get(word, ())
        replaced.append(near[int(generator.integers(len(near)))] if near and replace < variation.replacement else word)
    return replaced
