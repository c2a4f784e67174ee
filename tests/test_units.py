import pytest

from halve.units import format_bytes, format_percent, format_seconds, format_usd


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0"), (1234.5, "$1,234"), (12.345, "$12.35"), (1.2345, "$1.234"), (0.12345, "$0.1235"),
        (0.0012345, "$0.00123"), (0.0000012345, "$0.00000123"), (-0.5, "-$0.5000"),
    ],
)  # fmt: skip
def test_usd(usd: float, text: str) -> None:
    assert format_usd(usd) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0000821, "82 us"), (0.0123, "12.3 ms"), (1.2, "1.20 s"), (185, "3 min 5 s"), (7260, "2 h 1 min")],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_percent_and_bytes() -> None:
    assert format_percent(0.1234) == "12.3 %"
    assert [format_bytes(size) for size in (12, 1600, 2.5e6, 3e9, 4e12)] == [
        "12 B", "1.6 kB", "2.5 MB", "3.0 GB", "4.0 TB",
    ]  # fmt: skip
