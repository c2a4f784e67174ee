"""Units as types, and how people read them. Base units inside; prettier ones only here, for display."""

from decimal import Decimal
from typing import NewType

Usd = NewType("Usd", float)
Seconds = NewType("Seconds", float)

SECONDS_PER_HOUR = 3600.0


def format_usd(usd: float) -> str:
    """Return dollars with three or four significant digits, `$0.0123`; the sign stands before the dollar."""
    sign = "-" if usd < 0 else ""
    size = abs(usd)
    if size == 0:
        return "$0"
    if size >= 1000:
        return f"{sign}${size:,.0f}"
    if size < 0.1:
        return f"{sign}${Decimal(f'{size:.3g}'):f}"
    digits = 2 if size >= 10 else 3 if size >= 1 else 4
    return f"{sign}${size:.{digits}f}"


def format_seconds(seconds: float) -> str:
    """Return a duration in the unit a person would use: `820 us`, `12.3 ms`, `1.20 s`, `3 min 5 s`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def format_percent(share: float, *, digits: int = 1) -> str:
    """Return a share in [0, 1] as a percentage, `12.3 %`."""
    return f"{share * 100:.{digits}f} %"


def format_bytes(size_bytes: float) -> str:
    """Return a size with a decimal prefix, `1.6 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
