"""Rules that forbid a hit whatever the score: certain differences that no similarity makes up for. Learns nothing.

A rule costs hits where the words differ and the meaning does not (`2 months`, `60 days`); each can be left out by name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.differences import (
    dates_differ,
    direction_differs,
    language_differs,
    negation_differs,
    numbers_differ,
    polarity_differs,
    script_differs,
)
from halve.techniques.inference.caching.semantic.wording import Wording, wording


@dataclass(frozen=True, kw_only=True)
class Veto:
    """One rule.

    Args:
        name: Its key.
        says: What holds where it forbids, for the decision's reason.
        forbids: Whether it does, for two texts; their order does not matter.
    """

    name: str
    says: str
    forbids: Callable[[Wording, Wording], bool]


def _one_number(one: Wording, other: Wording) -> bool:
    return bool(one.numbers) != bool(other.numbers)


def _one_date(one: Wording, other: Wording) -> bool:
    return bool(one.dates) != bool(other.dates)


def _too_long(one: Wording, other: Wording) -> bool:
    return one.is_cut or other.is_cut


VETOES: Mapping[str, Veto] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            Veto(name="numbers", says="numbers differ", forbids=numbers_differ),
            Veto(name="numbers_in_one", says="only one states a number", forbids=_one_number),
            Veto(name="dates", says="dates differ", forbids=dates_differ),
            Veto(name="dates_in_one", says="only one states a date", forbids=_one_date),
            Veto(name="negation", says="only one negates", forbids=negation_differs),
            Veto(name="polarity", says="a word stands against its contrary", forbids=polarity_differs),
            Veto(name="direction", says="two things have changed places", forbids=direction_differs),
            Veto(name="script", says="scripts differ", forbids=script_differs),
            Veto(name="language", says="languages differ", forbids=language_differs),
            Veto(name="too_long", says="a text is too long to be compared", forbids=_too_long),
        )
    }
)
"""Every rule, in the order in which they are asked."""

DEFAULT_VETOES = ("numbers", "dates", "negation", "polarity", "direction", "script", "language", "too_long")
"""Without the two rules that a missing word is enough for."""


def first_veto(one: str, other: str, *, names: Iterable[str] = DEFAULT_VETOES) -> Veto | None:
    """Return the first rule that forbids serving one text's answer for the other; None if none does.

    Args:
        one, other: Their order does not matter.
        names: Rules to ask, keys of VETOES, in this order.
    """
    words, others = wording(one), wording(other)
    return next((VETOES[name] for name in names if VETOES[name].forbids(words, others)), None)


def checked_vetoes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple.

    Raises:
        InvalidParameterError: If one is no key of VETOES.
    """
    given = tuple(names)
    for name in given:
        if name not in VETOES:
            raise InvalidParameterError("vetoes", rule=f"some of {', '.join(VETOES)}", value=name)
    return given
