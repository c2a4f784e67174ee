"""What stands in one text, read by rules: words, numbers, dates, polarity, names, question. Compares nothing."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from halve.techniques.inference.caching.semantic import lexicon
from halve.techniques.inference.caching.semantic.lexicon import FUNCTION_WORDS, OPPOSITES, UNITS, stem

LONGEST_TEXT = 2_000
"""Characters that are read, from the start: a bound on the time a hostile text can cost."""

_TOKEN = re.compile(
    r"\d{1,3}(?:,\d{2,3})+(?:\.\d+)?|\d+(?:\.\d+)?"  # 1,000.5 and 1,00,000
    r"|[cC]\+\+|[cCfF]#"
    r"|[^\W\d_]+(?:['\u2019][^\W\d_]+)*"
    r"|[%$€£₹°.?!]"
)
_DIGIT = re.compile(r"\d")
_ASCII_LETTER = re.compile("[A-Za-z]")
_SENTENCE_END = frozenset(".?!")
_YEARS = (1000, 2100)
_REMEMBERED = 4_096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wording:
    """One text as the rules see it. Sets hold stems in small letters unless said otherwise.

    Args:
        text: Small letters, white space collapsed.
        is_cut: Whether the text goes on behind what was read.
        words: All words and numbers, in order, stemmed.
        known: The same as a set.
        content: Those that are no function words.
        places: Content word -> where it stands first, counted in content words.
        bigrams: Neighbouring words.
        grams: Three characters in a row, with a space before the first word and after the last.
        numbers: Values as text, `2` for "two", "2.0" and "2"; years of four digits are dates instead.
        quantities: Values with their unit, `2 kilometre`.
        dates: Years, months, days of the week, today and its neighbours.
        negations: How many words negate.
        poles: Words that have an opposite in the list.
        names: Words with a capital that do not begin a sentence, and abbreviations.
        question: What is asked for: who, when, where, why, how, how much, what, whether; empty if it cannot be told.
        directions: (x, y) where a word such as `to` or `than` stands between x and y; (y, x) for `from`.
        script: The one most letters are in, such as `LATIN`; empty without letters.
        language: Guessed from frequent words, for Latin script; empty if it cannot be told.
    """

    text: str
    is_cut: bool
    words: tuple[str, ...]
    known: frozenset[str]
    content: frozenset[str]
    places: dict[str, int]
    bigrams: frozenset[tuple[str, str]]
    grams: frozenset[str]
    numbers: frozenset[str]
    quantities: frozenset[str]
    dates: frozenset[str]
    negations: int
    poles: frozenset[str]
    names: frozenset[str]
    question: str
    directions: frozenset[tuple[str, str]]
    script: str
    language: str


@lru_cache(maxsize=_REMEMBERED)
def wording(text: str) -> Wording:
    """Return what stands in a text; remembers the last 4,096 texts, about 50 MB.

    Args:
        text: Any; only its first 2,000 characters are read.
    """
    is_cut, text = len(text) > LONGEST_TEXT, unicodedata.normalize("NFKC", text[:LONGEST_TEXT])
    tokens = _TOKEN.findall(text)
    lower = [token.lower() for token in tokens]
    if "'" in text or "\u2019" in text:
        lower = [token.translate(_APOSTROPHES) for token in lower]
    plain = " ".join(text.lower().split())
    words = tuple(stem(word) for word in lower if word[0].isalnum())
    known = frozenset(words)
    subject = [word for word in words if word not in FUNCTION_WORDS]
    padded = f" {plain} "
    numbers, quantities, dates = _numbers_and_dates(tokens, lower)
    script = _script(text)
    return Wording(
        text=plain,
        is_cut=is_cut,
        words=words,
        known=known,
        content=frozenset(subject),
        places={word: place for place, word in reversed(list(enumerate(subject)))},
        bigrams=frozenset(pairwise(words)),
        grams=frozenset([padded[start : start + 3] for start in range(len(padded) - 2)]),
        numbers=numbers,
        quantities=quantities,
        dates=dates,
        negations=sum(word in lexicon.NEGATIONS for word in lower),
        poles=known & OPPOSITES.keys(),
        names=_names(tokens, lower),
        question=_question(lower),
        directions=_directions(words),
        script=script,
        language=_language(frozenset(lower)) if script == "LATIN" else "",
    )


_APOSTROPHES = str.maketrans("", "", "'\u2019")

_COUNTING = frozenset(
    word
    for words in (lexicon.NUMBER_WORDS, lexicon.ORDINALS, lexicon.MULTIPLIERS, lexicon.MONTHS, lexicon.DAYS)
    for word in words
)
"""Without one of these and without a digit, a text has neither numbers nor dates."""


def _numbers_and_dates(tokens: list[str], lower: list[str]) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    if _COUNTING.isdisjoint(lower) and not _DIGIT.search(" ".join(lower)):
        return frozenset(), frozenset(), frozenset()  # as in most texts; most of the time goes into what follows
    numbers: set[str] = set()
    quantities: set[str] = set()
    dates = {lexicon.DAYS[word] for word in lower if word in lexicon.DAYS}
    place = 0
    while place < len(lower):
        value, after = _number(lower, place)
        if value is None:
            if _is_month(tokens, lower, place):
                dates.add(lexicon.MONTHS[lower[place]])
            place += 1
            continue
        if after == place + 1 and len(lower[place]) == 4 and _YEARS[0] <= value < _YEARS[1] and value == int(value):
            dates.add(f"year {value:.0f}")
        else:
            number = f"{value:.12g}"
            numbers.add(number)
            unit = UNITS.get(lower[after]) if after < len(lower) else None
            unit = unit or (UNITS.get(lower[place - 1]) if place and lower[place - 1] in "$€£₹rs" else None)
            quantities.add(f"{number} {unit}" if unit else number)
        place = after
    return frozenset(numbers), frozenset(quantities), frozenset(dates)


def _number(lower: list[str], place: int) -> tuple[float | None, int]:
    """Return the number that begins at a place and where it ends; None and the place if none does."""
    word = lower[place]
    if word[0].isdecimal():
        try:
            value = float(word.replace(",", ""))
        except ValueError:  # digits of two scripts in one number
            return None, place
        place += 1
    elif word in lexicon.NUMBER_WORDS:
        value, place = lexicon.NUMBER_WORDS[word], place + 1
        ones = lexicon.NUMBER_WORDS.get(lower[place], 10.0) if place < len(lower) else 10.0
        if value >= 20 and ones < 10:
            value, place = value + ones, place + 1
    elif word in lexicon.ORDINALS:
        return lexicon.ORDINALS[word], place + 1
    elif word in lexicon.MULTIPLIERS and word != "k":
        value = 1.0
    else:
        return None, place
    while place < len(lower) and lower[place] in lexicon.MULTIPLIERS:
        value, place = value * lexicon.MULTIPLIERS[lower[place]], place + 1
    return value, place


def _is_month(tokens: list[str], lower: list[str], place: int) -> bool:
    word = lower[place]
    if word not in lexicon.MONTHS:
        return False
    if word not in lexicon.DOUBTFUL_MONTHS:
        return True
    beside = [lower[other] for other in (place - 1, place + 1) if 0 <= other < len(lower)]
    return (place > 0 and tokens[place][0].isupper()) or any(other[0].isdecimal() for other in beside)


def _names(tokens: list[str], lower: list[str]) -> frozenset[str]:
    """Return capitalised words, unless nearly every word of the text has a capital: then none tells anything."""
    raised = [place for place, token in enumerate(tokens) if token[0].isupper()]
    if len(raised) > 2:
        letters = sum(token[0].isalpha() for token in tokens)
        if letters > 3 and len(raised) > 0.7 * letters:
            return frozenset()
    found = set()
    for place in raised:
        begins = place == 0 or tokens[place - 1] in _SENTENCE_END
        if not begins or (len(tokens[place]) > 1 and tokens[place].isupper()):
            found.add(stem(lower[place]))
    return frozenset(found - FUNCTION_WORDS)


def _question(lower: list[str]) -> str:
    if lower and lower[0] in lexicon.YES_OR_NO:
        return "whether"
    for place, word in enumerate(lower):
        kind = lexicon.QUESTIONS.get(word)
        if kind == "how" and place + 1 < len(lower) and lower[place + 1] in lexicon.MEASURES:
            return "how much"
        if kind:
            return kind
    return ""


def _directions(words: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    return frozenset(_around_connectors(words))


def _around_connectors(words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for place, word in enumerate(words):
        if word in lexicon.CONNECTORS:
            before = next((other for other in reversed(words[:place]) if other not in FUNCTION_WORDS), "")
            after = next((other for other in words[place + 1 :] if other not in FUNCTION_WORDS), "")
            if before and after and before != after:
                yield (after, before) if word == "from" else (before, after)


def _script(text: str) -> str:
    if text.isascii():
        return "LATIN" if _ASCII_LETTER.search(text) else ""
    letters = [character for character in text if character.isalpha()]
    if all(character < "\u0250" for character in letters):
        return "LATIN" if letters else ""
    counts: dict[str, int] = {}
    for character in letters:
        name = unicodedata.name(character, "UNKNOWN").split()[0]
        counts[name] = counts.get(name, 0) + 1
    return max(sorted(counts), key=lambda name: counts[name])


def _language(words: frozenset[str]) -> str:
    counts = {name: len(words & frequent) for name, frequent in lexicon.LANGUAGES.items()}
    best = max(counts, key=lambda name: counts[name])
    alone = sum(count == counts[best] for count in counts.values()) == 1
    return best if counts[best] >= 2 and alone else ""
