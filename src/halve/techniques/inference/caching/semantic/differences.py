"""In what two texts differ on the surface, as numbers: what a vector's cosine does not see. Learns nothing.

Cosines miss what matters most: on nine encoders a question and its reversal are .83 to .9997
alike (zilliztech/GPTCache issue 694).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.lexicon import contraries
from halve.techniques.inference.caching.semantic.rarity import Rarity
from halve.techniques.inference.caching.semantic.wording import Wording, wording

Array = NDArray[np.float64]
_Item = TypeVar("_Item")

NAMES = (
    "numbers",  # 1 if both state numbers, but not the same
    "numbers_in_one",  # 1 if one states numbers and the other none
    "quantities",  # share of values with units that stand in one only
    "dates",  # 1 if both state dates, but not the same
    "dates_in_one",  # 1 if one states dates and the other none
    "negation",  # 1 if one negates an odd number of times and the other does not
    "polarity",  # contraries: a word in one, its opposite in the other
    "poles_in_one",  # words with an opposite that stand in one only
    "names",  # names in one whose words the other lacks, both sides together
    "names_most",  # the same on the side that has more
    "question",  # 1 if both ask, but not for the same
    "question_in_one",  # 1 if only one asks
    "direction",  # 1 if x to y here is y to x there
    "inversions",  # share of pairs of common words that stand the other way round
    "script",  # 1 if letters are of different scripts
    "language",  # 1 if both languages are known and differ
    "words",  # 1 - common / all words
    "content",  # 1 - common / all content words
    "content_of_shorter",  # 1 - common / content words of the text that has fewer
    "content_count_least",  # content words in one only: of the side that has fewer
    "content_count_most",  # and of the other side
    "bigrams",  # 1 - common / all pairs of neighbouring words
    "grams",  # 1 - common / all runs of three characters
    "grams_of_shorter",  # 1 - common / those of the text that has fewer
    "rare_words",  # 1 - common / all words, weighted by rarity
    "rare_words_least",  # rarity of the words in one only: of the side that has less
    "rare_words_most",  # and of the other side
    "rarest_least",  # the rarest word in one only: of the side where it is less rare
    "rarest_most",  # and of the other side
    "characters",  # 1 - shorter / longer, in characters
    "count",  # 1 - fewer / more words
    "first_word",  # 1 if texts begin with different words
    "last_word",  # 1 if they end with different words
    "prefix",  # 1 - words before the first that differs / words of the longer
)
"""What each number says. All are 0 for equal texts, at least 0, and the same whichever text comes first."""

_PLAIN = Rarity()


def differences(one: str, other: str, *, rarity: Rarity = _PLAIN) -> Array:
    """Return in what two texts differ.

    Args:
        one, other: Their order does not matter.
        rarity: Weight of words.

    Returns:
        float64 (len(NAMES),), >= 0.
    """
    return np.array(_compared(wording(one), wording(other), rarity))


def differences_of_pairs(ones: Sequence[str], others: Sequence[str], *, rarity: Rarity = _PLAIN) -> Array:
    """Return the differences of many pairs, row by row as `differences`.

    Args:
        ones, others: As many of each.
        rarity: Weight of words.

    Returns:
        float64 (n, len(NAMES)).

    Raises:
        InvalidParameterError: If there are not as many.
    """
    if len(ones) != len(others):
        raise InvalidParameterError("ones and others", rule="as many of each", value=(len(ones), len(others)))
    rows = [_compared(wording(one), wording(other), rarity) for one, other in zip(ones, others, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(NAMES))


def _compared(one: Wording, other: Wording, rarity: Rarity) -> tuple[float, ...]:
    return (
        *_facts(one, other),
        *_questions_and_order(one, other),
        *_overlaps(one, other),
        *_rarities(one.known - other.known, other.known - one.known, one.known & other.known, rarity),
        1 - _ratio(len(one.text), len(other.text)),
        1 - _ratio(len(one.words), len(other.words)),
        float(one.words[:1] != other.words[:1]),
        float(one.words[-1:] != other.words[-1:]),
        _after_prefix(one.words, other.words),
    )


def _facts(one: Wording, other: Wording) -> tuple[float, ...]:
    missing, missing_other = len(one.names - other.known), len(other.names - one.known)
    return (
        float(numbers_differ(one, other)),
        float(bool(one.numbers) != bool(other.numbers)),
        1 - _common(one.quantities, other.quantities),
        float(dates_differ(one, other)),
        float(bool(one.dates) != bool(other.dates)),
        float(negation_differs(one, other)),
        float(contraries(one.known - other.known, other.known - one.known)),
        float(len(one.poles ^ other.poles)),
        float(missing + missing_other),
        float(max(missing, missing_other)),
    )


def _questions_and_order(one: Wording, other: Wording) -> tuple[float, ...]:
    return (
        float(bool(one.question) and bool(other.question) and one.question != other.question),
        float(bool(one.question) != bool(other.question)),
        float(direction_differs(one, other)),
        _inversions(one.places, other.places),
        float(script_differs(one, other)),
        float(language_differs(one, other)),
    )


def _overlaps(one: Wording, other: Wording) -> tuple[float, ...]:
    shared = len(one.content & other.content)
    fewer, more = sorted((len(one.content), len(other.content)))
    grams = len(one.grams & other.grams)
    return (
        1 - _common(one.known, other.known),
        1 - _common(one.content, other.content),
        1 - (shared / fewer if fewer else float(more == 0)),
        float(fewer - shared),
        float(more - shared),
        1 - _common(one.bigrams, other.bigrams),
        1 - _common(one.grams, other.grams),
        1 - grams / min(len(one.grams), len(other.grams)) if one.grams and other.grams else 0.0,
    )


def _rarities(
    only: frozenset[str], only_other: frozenset[str], common: frozenset[str], rarity: Rarity
) -> tuple[float, ...]:
    weights, weights_other = [rarity(word) for word in only], [rarity(word) for word in only_other]
    # Sums of floats depend on the order of a set, which differs between runs; sorted ones do not.
    less, more = sorted((sum(sorted(weights)), sum(sorted(weights_other))))
    shared = sum(sorted(rarity(word) for word in common))
    rarest = sorted((max(weights, default=0.0), max(weights_other, default=0.0)))
    whole = shared + (less + more)
    return (less + more) / whole if whole > 0 else 0.0, less, more, *rarest


def numbers_differ(one: Wording, other: Wording) -> bool:
    """Return whether both texts state numbers, and not the same ones."""
    return bool(one.numbers) and bool(other.numbers) and one.numbers != other.numbers


def dates_differ(one: Wording, other: Wording) -> bool:
    """Return whether both texts state dates, and not the same ones."""
    return bool(one.dates) and bool(other.dates) and one.dates != other.dates


def negation_differs(one: Wording, other: Wording) -> bool:
    """Return whether one text negates and the other does not, double negations cancelled."""
    return one.negations % 2 != other.negations % 2


def polarity_differs(one: Wording, other: Wording) -> bool:
    """Return whether a word that stands in one text only means the contrary of one in the other text only."""
    return contraries(one.known - other.known, other.known - one.known) > 0


def direction_differs(one: Wording, other: Wording) -> bool:
    """Return whether one text says `x to y` (or into, than, from, ...) where the other says `y to x`."""
    turned = {(after, before) for before, after in other.directions - one.directions}
    return not turned.isdisjoint(one.directions - other.directions)


def script_differs(one: Wording, other: Wording) -> bool:
    """Return whether the letters of two texts are of different scripts."""
    return bool(one.script) and bool(other.script) and one.script != other.script


def language_differs(one: Wording, other: Wording) -> bool:
    """Return whether two texts are in different languages, as far as that can be told."""
    return bool(one.language) and bool(other.language) and one.language != other.language


def _common(one: frozenset[_Item], other: frozenset[_Item]) -> float:
    """Return |A and B| / |A or B|, 1 for two empty sets (Jaccard 1901)."""
    both = len(one & other)
    either = len(one) + len(other) - both
    return both / either if either else 1.0


def _ratio(one: int, other: int) -> float:
    return min(one, other) / max(one, other) if one or other else 1.0


def _inversions(places: dict[str, int], others: dict[str, int]) -> float:
    """Return the share of pairs of common words in the other order: (1 - tau) / 2 with Kendall's tau."""
    common = sorted(((place, others[word]) for word, place in places.items() if word in others))
    there = [place for _, place in common]
    pairs = len(there) * (len(there) - 1) // 2
    if pairs == 0 or all(a < b for a, b in pairwise(there)):
        return 0.0
    return sum(a > b for index, a in enumerate(there) for b in there[index + 1 :]) / pairs


def _after_prefix(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    if one == other:
        return 0.0
    shorter = min(len(one), len(other))
    same = next((place for place in range(shorter) if one[place] != other[place]), shorter)
    return 1 - same / max(len(one), len(other))
