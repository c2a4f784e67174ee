"""How much a store may hold, and who leaves first.

Three orders, lowest first, ties by number (the older entry leaves):

    lru     last_used_seconds
    lfu     hits, then last_used_seconds
    cost    (hits + 1) usd_saved_each / (size_bytes (age_seconds + 1))

`cost` is the money that a byte is expected to save each second it is kept. (hits + 1) / (age + 1 s) estimates an
entry's rate of hits with one hit in one second as the prior, so a new entry has time to prove itself and an idle one
decays. Kin to Greedy-Dual-Size-Frequency (Cherkasova 1998, HPL-98-69), which lets values age by inflation; here age is
measured.

An entry is never evicted by its own `put`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from halve.errors import InvalidParameterError

Policy = Literal["lru", "lfu", "cost"]

ORDER_SQL: Final[dict[Policy, str]] = {
    "lru": "last_used_seconds, entry",
    "lfu": "hits, last_used_seconds, entry",
    "cost": (
        "(hits + 1) * usd_saved_each / "
        "(size_bytes * (CASE WHEN created_seconds < {now} THEN {now} - created_seconds ELSE 0.0 END + 1.0)), entry"
    ),
}
"""The orders as both databases read them; `{now}` is a number."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a store may hold.

    Args:
        entries: At most so many, >= 1; None for any number.
        size_bytes: Texts, answers, tags and vectors (2 bytes a number) together, >= 1; None for any size.
        policy: Who leaves first.
        slack_share: When a limit is passed, entries leave until this share of it is free, in [0, 0.5]: a search for
            victims looks at every entry, so that it should not be needed at every `put`.

    Raises:
        InvalidParameterError: If a value is outside its range.
    """

    entries: int | None = None
    size_bytes: int | None = None
    policy: Policy = "lru"
    slack_share: float = 0.01

    def __post_init__(self) -> None:
        for name in ("entries", "size_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidParameterError(f"limits.{name}", rule="at least 1, or None for no limit", value=value)
        if self.policy not in get_args(Policy):
            rule = f"one of {', '.join(get_args(Policy))}"
            raise InvalidParameterError("limits.policy", rule=rule, value=self.policy)
        if not 0 <= self.slack_share <= 0.5:
            raise InvalidParameterError("limits.slack_share", rule="in [0, 0.5]", value=self.slack_share)

    def check_fits(self, size_bytes: int) -> None:
        """Refuse what would not fit if it were alone.

        Raises:
            InvalidParameterError: If it is larger than everything that may be held.
        """
        if _above(size_bytes, self.size_bytes):
            rule = f"at most {self.size_bytes} bytes, all that the store may hold"
            raise InvalidParameterError("the entry", rule=rule, value=size_bytes)

    def exceeded_by(self, *, entries: int, size_bytes: int) -> bool:
        """Return whether so much is more than may be held."""
        return _above(entries, self.entries) or _above(size_bytes, self.size_bytes)

    def order_sql(self, *, now_seconds: float) -> str:
        """Return the order in which entries leave, for ORDER BY."""
        return ORDER_SQL[self.policy].format(now=repr(float(now_seconds)))

    def victims(self, ordered: Iterable[tuple[int, int]], *, entries: int, size_bytes: int) -> list[int]:
        """Return the numbers of the entries that must leave.

        Args:
            ordered: (entry, size_bytes) of those that may leave, in the order of leaving; read as far as needed.
            entries: Held now.
            size_bytes: Held now.
        """
        leaving: list[int] = []
        if not self.exceeded_by(entries=entries, size_bytes=size_bytes):
            return leaving
        most_entries, most_bytes = self._after(self.entries), self._after(self.size_bytes)
        for entry, size in ordered:
            if not (_above(entries, most_entries) or _above(size_bytes, most_bytes)):
                break
            leaving.append(entry)
            entries, size_bytes = entries - 1, size_bytes - size
        return leaving

    def _after(self, limit: int | None) -> int | None:
        return None if limit is None else limit - int(limit * self.slack_share)


def _above(value: int, limit: int | None) -> bool:
    return limit is not None and value > limit
