import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from halve.core import Run
from halve.report import print_profile, print_report

FOLDER = Path("runs/r")


def printed(run: Run, *, encoding: str = "utf-8", **options) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    print_report(run, folder=FOLDER, console=Console(file=stream, **options))
    stream.flush()
    return raw.getvalue().decode(encoding)


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_no_line_is_wider_than_80_columns(run: Run):
    for line in printed(run).splitlines():
        assert len(line) <= 80, line
        assert line == line.rstrip()


def test_a_pipe_gets_no_escape_codes(run: Run):
    assert "\x1b" not in printed(run)


def test_a_terminal_gets_colour_and_the_same_words(run: Run):
    from rich.text import Text

    coloured = printed(run, force_terminal=True, color_system="standard", width=80, no_color=False)
    assert "\x1b[" in coloured
    assert Text.from_ansi(coloured).plain.split() == printed(run).split()


def test_no_color_is_obeyed(runs):
    plain = printed(runs["standard"](), force_terminal=True, color_system="standard", width=80, no_color=True)
    assert "\x1b[32m" not in plain
    assert "keep" in plain


def test_ascii_terminals_get_ascii_bars(runs):
    text = printed(runs["standard"](), encoding="ascii")
    assert "#####" in text
    assert text.isascii()


def test_every_change_its_reason_and_verdict_are_told(run: Run):
    text = squeezed(printed(run))
    for rung in run.rungs:
        assert squeezed(rung.description) in text
        assert squeezed(rung.verdict.reason) in text
        assert rung.verdict.decision in text


def test_the_waterfall_shows_the_records_figures(runs):
    text = printed(runs["standard"]())
    lines = text.splitlines()
    sized = next(line for line in lines if line.startswith("+ right_sizing"))
    assert sized.split()[2:] == ["$0.2815", "37.6", "%", "98.24", "%", "0.00", "pt", "56.8", "ms", "keep"]
    cache = next(line for line in lines if line.startswith("- exact_cache"))
    assert cache.split()[2:5] == ["$0.1273", "0.0", "%"]
    assert cache.endswith("reject")
    assert next(line for line in lines if line.startswith("= final")).split()[2:5] == ["$0.0349", "92.3", "%"]


def test_bars_shrink_with_the_cost(runs):
    bars = [line.count("█") for line in printed(runs["standard"]()).splitlines() if "of the cost" in line]
    assert bars[0] == 56
    assert bars == sorted(bars, reverse=True)
    assert len(bars) == 1 + 4


def test_a_dearer_step_fills_its_bar_and_no_more(runs):
    text = printed(runs["dearer"]())
    assert "-14.1 %" in text
    assert max(line.count("█") for line in text.splitlines()) == 56


def test_predicted_stands_beside_replayed(runs):
    text = printed(runs["standard"]())
    assert "p99 latency                              29.1 ms        34.2 ms        -14.9 %" in text
    assert "Trace and replicas were both divided by 2" in text


def test_without_a_replay_it_says_simulated(runs):
    assert "every figure here is simulated" in " ".join(printed(runs["no_replay"]()).split())


def test_names_are_not_markup(runs):
    run = replace(runs["standard"](), name="[bold]loud[/bold]")
    assert "[bold]loud[/bold]" in printed(run)


def test_paths_stand_whole(runs):
    deep = Path("/".join(["a-long-folder-name"] * 8))
    stream = io.StringIO()
    print_report(runs["standard"](), folder=deep, console=Console(file=stream, width=80))
    assert str(deep / "report.html") in stream.getvalue()


def test_assumptions_are_listed(runs):
    run = runs["standard"]()
    text = squeezed(printed(run))
    assert all(squeezed(assumption) in text for assumption in run.assumptions)
    assert "Assumptions" not in printed(replace(run, assumptions=()))


@pytest.mark.parametrize(
    "expected", ["$0.4512 per 1,000 requests", "98.16 %", "idle capacity", "63.0 %", "9 x m6a.large"]
)
def test_a_profile_tells_money_quality_and_load(runs, expected):
    stream = io.StringIO()
    print_profile(runs["standard"]().baseline, console=Console(file=stream, width=80))
    assert expected in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines())) <= 80
