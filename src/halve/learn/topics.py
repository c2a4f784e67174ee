"""Which topics there are and which numbers each takes. Light, so that `halve explain --help` loads no technique."""

from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from halve.errors import InvalidParameterError
from halve.learn.derivation import Derivation


@dataclass(frozen=True, kw_only=True)
class Number:
    """One number that a reader may choose.

    Args:
        name: Of the option and of the keyword of `derive`.
        default: Used where the reader gives none; an int asks for whole numbers.
        meaning: In a few words.
    """

    name: str
    default: float
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A derivation that can be asked for; `halve.learn.<name>` holds its `derive`."""

    name: str
    summary: str
    numbers: tuple[Number, ...]


_ALL = (
    Topic(
        name="quantization",
        summary="real numbers as integers: scale, zero point, rounding error, and which grid suits what",
        numbers=(
            Number(name="low", default=-0.8, meaning="least real number"),
            Number(name="high", default=1.2, meaning="greatest real number"),
            Number(name="bits", default=8, meaning="bits of an integer, 2 to 8"),
            Number(name="value", default=0.5, meaning="real number to follow through"),
        ),
    ),
    Topic(
        name="distillation",
        summary="a teacher's answers as targets: temperature, divergence, and why the loss has a T^2",
        numbers=(
            Number(name="first", default=4.0, meaning="teacher's logit of the first class, the label"),
            Number(name="second", default=2.0, meaning="teacher's logit of the second class"),
            Number(name="third", default=1.0, meaning="teacher's logit of the third class"),
            Number(name="temperature", default=5.0, meaning="temperature T, 0.5 to 100"),
            Number(name="alpha", default=0.9, meaning="weight of the teacher's part, 0 to 1"),
        ),
    ),
)

TOPICS = MappingProxyType({topic.name: topic for topic in _ALL})
"""Every topic by its name."""


def explain(topic: str, **numbers: float) -> Derivation:
    """Return the derivation of a topic with these numbers, and the defaults of the others.

    Raises:
        InvalidParameterError: If there is no such topic, it has no such number, or a number breaks its rule.
    """
    if topic not in TOPICS:
        raise InvalidParameterError("topic", rule=f"one of {', '.join(TOPICS)}", value=topic)
    known = {number.name: number.default for number in TOPICS[topic].numbers}
    for name in numbers:
        if name not in known:
            raise InvalidParameterError("number", rule=f"one of {', '.join(known)} for {topic}", value=name)
    derivation: Derivation = import_module(f"halve.learn.{topic}").derive(**known | numbers)
    return derivation
