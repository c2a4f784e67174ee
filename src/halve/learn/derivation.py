"""A derivation: steps of a reason, lines with the numbers filled in, and the same figures by name for machines."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

WIDTH = 80
_MARGIN = " " * 4


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thought.

    Args:
        title: What this step finds.
        reason: Why, in one or two sentences.
        lines: The formula, then the formula with numbers; or a table. At most 76 characters each.
        figures: What was found, by name; finite.
    """

    title: str
    reason: str
    lines: tuple[str, ...]
    figures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """A topic worked through.

    Args:
        topic: Its name on the command line.
        title: What is derived, with the reader's numbers.
        given: The reader's numbers.
        steps: In order; each may use what the steps before found.
        sources: Where the formulas are from.
    """

    topic: str
    title: str
    given: Mapping[str, float]
    steps: tuple[Step, ...]
    sources: tuple[str, ...]


def as_text(derivation: Derivation) -> str:
    """Return the derivation as plain text, 80 columns wide, ending with a newline."""
    return "\n".join(_lines(derivation)) + "\n"


def _lines(derivation: Derivation) -> Iterator[str]:
    yield from textwrap.wrap(derivation.title, WIDTH)
    for number, step in enumerate(derivation.steps, start=1):
        yield ""
        yield f"{number}. {step.title}"
        yield from textwrap.wrap(step.reason, WIDTH, initial_indent=_MARGIN, subsequent_indent=_MARGIN)
        yield ""
        yield from (_MARGIN + line for line in step.lines)
    yield ""
    yield from textwrap.wrap(f"Sources: {'; '.join(derivation.sources)}.", WIDTH)
