"""The frame that every benchmark shares: arguments, fair timing, intervals, the environment, the file."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from halve.measure.host import describe_host

ROOT = Path(__file__).resolve().parent.parent

Value = float | str | list[str] | dict[str, float]
"""What a figure can be in the file."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A median and an interval that holds the true one with at least the confidence asked for, if n allows."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:,.4g} [{self.low:,.4g}, {self.high:,.4g}]"


@dataclass(kw_only=True)
class Result:
    """What a benchmark found.

    Args:
        figures: Ours and the ratios, by name; an `Estimate` becomes NAME, NAME_low and NAME_high in the file.
            Text and lists of text stay as they are.
        peers: What the other tools did, by tool.
    """

    figures: dict[str, Value | Estimate] = field(default_factory=dict)
    peers: dict[str, dict[str, float | str | Estimate]] = field(default_factory=dict)


def median_interval(samples: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """Return the median and its exact order-statistic interval, whatever the distribution.

    [x_(k+1), x_(n-k)] covers the median with probability 1 - 2 P(Binomial(n, 1/2) <= k); k is the largest that
    gives the confidence. Below 6 samples it is the range. Source: David and Nagaraja 2003, Order Statistics, 7.1.
    """
    ordered = np.sort(np.asarray(samples, dtype=float))
    n = len(ordered)
    narrower = [k for k in range(1, (n + 1) // 2) if 2 * binom.cdf(k, n, 0.5) <= 1 - confidence]
    k = max(narrower, default=0)
    return Estimate(median=float(np.median(ordered)), low=float(ordered[k]), high=float(ordered[n - 1 - k]))


def interleaved(
    actions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return seconds of each action, one per round, by the clock (wall time unless told otherwise).

    Every round runs all actions, each time starting with another one, so that drift of the machine and
    effects of order fall on all alike. Ratios of two actions are taken round by round.
    """
    names = list(actions)
    for action in list(actions.values()) * warm_up:
        action()
    seconds = {name: np.empty(rounds) for name in names}
    for round_number in range(rounds):
        shift = round_number % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            actions[name]()
            seconds[name][round_number] = clock() - start
    return seconds


def environment(packages: Sequence[str]) -> dict[str, Any]:
    """Return when, where, on what and with which versions this ran."""
    host = describe_host(("halve", "numpy", *packages))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m {_module_name()} {' '.join(sys.argv[1:])}".strip(),
        "commit": _commit(),
        **asdict(host),
        "platform": sys.platform,
        "load_average_1_minute": os.getloadavg()[0],
    }


def main(name: str, run: Callable[[bool], Result], *, packages: Sequence[str] = ()) -> None:
    """Parse `[--quick] --json FILE`, run the benchmark, write {"name", "figures", "peers", "environment"}.

    Args:
        name: Of the benchmark.
        run: Takes whether to be quick; prints its table; returns what it found.
        packages: Distributions whose versions belong in the file, beside halve and numpy.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {_module_name()}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    arguments = parser.parse_args()
    before = environment(packages)
    result = run(arguments.quick)
    document = {
        "name": name,
        "figures": _flat(result.figures),
        "peers": {peer: _flat(values) for peer, values in result.peers.items()},
        "environment": before,
    }
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as text in aligned columns, the first to the left, the others to the right."""
    texts = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    ]
    return "\n".join(lines)


def _flat(values: Mapping[str, Value | Estimate]) -> dict[str, Value]:
    flat: dict[str, Value] = {}
    for key, value in values.items():
        if isinstance(value, Estimate):
            flat |= {key: value.median, f"{key}_low": value.low, f"{key}_high": value.high}
        else:
            flat[key] = value
    return flat


def _module_name() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec is not None else "benchmarks"


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
