"""What `optimize` and `demo` share: run the ladder, print what came out, choose the exit code."""

from pathlib import Path
from typing import TYPE_CHECKING

from halve.cli.options import print_json
from halve.cli.progress import progress

if TYPE_CHECKING:
    from halve.core import Run

NOTHING_PASSED = 3


def optimize_and_print(config: Path, *, runs: Path, seed: int | None, as_json: bool) -> int:
    """Optimize, print the report, and return the exit code: 0, or 3 if nothing passed."""
    from halve.assembly import optimize

    folder = optimize(config, runs=runs, seed=seed, progress=progress())
    print_run(folder.run, folder=folder.path, as_json=as_json)
    return exit_code(folder.run)


def exit_code(run: "Run") -> int:
    """Return 0, or 3 if nothing passed: no rung was kept, or none of those kept could be certified."""
    kept = any(rung.verdict.keep for rung in run.rungs)
    return 0 if kept and run.final_stack != run.baseline_stack else NOTHING_PASSED


def print_run(run: "Run", *, folder: Path, as_json: bool) -> None:
    """Print a run on stdout, for people or as halve.run/1."""
    if as_json:
        from halve.report import summary

        print_json(summary(run, folder=folder))
        return
    from rich.console import Console

    from halve.report import print_report

    print_report(run, folder=folder, console=Console())
