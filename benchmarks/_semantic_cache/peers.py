"""The rules of other caches, on the same neighbours.

GPTCache 0.1.44, RedisVL, LiteLLM, Bifrost and Portkey serve the nearest entry where its cosine reaches one number,
so their defaults differ and their best-tuned settings are one and the same. GPTCache scores 4 minus the squared
distance of unit vectors, 2 + 2 cos, and asks for 0.8 of 4: its default of 0.8 is a cosine of 0.6. `lookups.py` runs
GPTCache itself and shows that it decides so. RedisVL asks for a cosine distance of at most 0.1.

vLLM Semantic Router serves the nearest entry that its guard lets pass: texts must not differ in polarity. The
guard here is written from its description (issues 2691 and 2727): a negation on one side only, or a word on one side
whose opposite stands on the other.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from benchmarks._semantic_cache.figures import Scored
from benchmarks._semantic_cache.streams import Stream

PLAIN_DEFAULTS: Mapping[str, float] = {"gptcache": 0.6, "redisvl": 0.9, "litellm": 0.8, "bifrost, portkey": 0.95}
GUARDED_DEFAULTS: Mapping[str, float] = {"vllm semantic router .80": 0.80, "vllm semantic router .92": 0.92}

NEGATED = (
    "is",
    "are",
    "was",
    "were",
    "do",
    "does",
    "did",
    "has",
    "have",
    "had",
    "would",
    "should",
    "could",
    "wo",
    "ca",
)
NEGATIONS = frozenset(
    ("not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot", "unable")
) | {f"{verb}nt" for verb in NEGATED}
"""Without apostrophes."""

OPPOSITES: tuple[tuple[str, str], ...] = (
    ("on", "off"), ("enable", "disable"), ("enabled", "disabled"), ("start", "stop"), ("open", "close"),
    ("increase", "decrease"), ("raise", "lower"), ("gain", "lose"), ("add", "remove"), ("allow", "block"),
    ("accept", "reject"), ("buy", "sell"), ("lock", "unlock"), ("install", "uninstall"), ("login", "logout"),
    ("connect", "disconnect"), ("subscribe", "unsubscribe"), ("before", "after"), ("up", "down"), ("in", "out"),
    ("good", "bad"), ("best", "worst"), ("most", "least"), ("more", "less"), ("high", "low"), ("hot", "cold"),
    ("true", "false"), ("safe", "dangerous"), ("legal", "illegal"), ("possible", "impossible"), ("love", "hate"),
    ("advantages", "disadvantages"), ("pros", "cons"), ("male", "female"), ("men", "women"), ("boys", "girls"),
    ("first", "last"), ("maximum", "minimum"), ("always", "never"), ("positive", "negative"), ("fast", "slow"),
)  # fmt: skip
_OPPOSITE = {word: other for pair in OPPOSITES for word, other in (pair, pair[::-1])}


def plain(stream: Stream, _: Sequence[str]) -> Scored:
    """Return cosines of the nearest entries."""
    return Scored(
        scores=np.where(stream.neighbours[:, 0] >= 0, stream.cosines[:, 0], -np.inf), right=stream.right[:, 0]
    )


def guarded(stream: Stream, texts: Sequence[str]) -> Scored:
    """Return cosines of the nearest entries that the guard lets pass, among the neighbours that are known."""
    place = np.full(len(stream), -1)
    for row, (question, neighbours) in enumerate(zip(stream.asked.tolist(), stream.neighbours.tolist(), strict=True)):
        passing = (
            column
            for column, entry in enumerate(neighbours)
            if entry >= 0 and not opposed(texts[question], texts[entry])
        )
        place[row] = next(passing, -1)
    chosen = np.maximum(place, 0)[:, None]
    cosines = np.take_along_axis(stream.cosines, chosen, axis=1)[:, 0]
    right = np.take_along_axis(stream.right, chosen, axis=1)[:, 0]
    return Scored(scores=np.where(place >= 0, cosines, -np.inf), right=right & (place >= 0))


FAMILIES: Mapping[str, Callable[[Stream, Sequence[str]], Scored]] = {"plain": plain, "guarded": guarded}
"""Rules with one threshold, by what they compare with it."""

DEFAULTS: Mapping[str, Mapping[str, float]] = {"plain": PLAIN_DEFAULTS, "guarded": GUARDED_DEFAULTS}


def opposed(one: str, other: str) -> bool:
    """Return whether the guard sees a difference in polarity."""
    first, second = words(one), words(other)
    if bool(first & NEGATIONS) != bool(second & NEGATIONS):
        return True
    only_first, only_second = first - second, second - first
    return any(_OPPOSITE.get(word) in only_second for word in only_first)


@lru_cache(maxsize=200_000)
def words(text: str) -> frozenset[str]:
    """Return the lower-case words of a text, apostrophes left out."""
    return frozenset(re.findall(r"[a-z0-9]+", text.lower().replace("'", "").replace("\u2019", "")))
