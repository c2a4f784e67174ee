"""The two halves of the examples: one to search on, one that only the certificate sees."""

from collections.abc import Sequence

from halve.core import Example
from halve.core.hashing import payload_digest
from halve.errors import InvalidParameterError, WorkloadError


def split_examples(
    examples: Sequence[Example], *, certify_share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Return (search, certify), each in the given order.

    An example belongs to certify if SHA-256(seed, payload), read as a number in [0, 1), is below `certify_share`. So
    equal payloads are never on both sides, whatever their references, and an example stays on its side when others are
    added, removed or moved.

    Args:
        examples: At least one on each side after the split.
        certify_share: Expected share of the different payloads in certify, in (0, 1).
        seed: Another seed gives another split.

    Raises:
        InvalidParameterError: If the share is out of range.
        WorkloadError: If a side is empty.
    """
    if not 0 < certify_share < 1:
        raise InvalidParameterError("examples.certify_share", rule="in (0, 1)", value=certify_share)
    search: list[Example] = []
    certify: list[Example] = []
    for example in examples:
        place = int.from_bytes(payload_digest(example.payload, salt=str(seed))[:8], "big") / 2**64
        (certify if place < certify_share else search).append(example)
    for name, side in (("search", search), ("certify", certify)):
        if not side:
            have = f"{len(examples)} examples at certify_share {certify_share}"
            raise WorkloadError(
                f"the {name} split must hold at least 1 example. Got 0 from {have}: label more examples."
            )
    return search, certify
