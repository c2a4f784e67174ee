"""The README's block is what `halve report` prints of a run, without what was rejected."""

import io
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from halve.assembly import RunFolder
from halve.report import print_report

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def script():
    return runpy.run_path(str(ROOT / "tools" / "fill_readme.py"))


def test_block_holds_the_kept_rungs_and_counts_the_others(script, finished_run, tmp_path):
    kept = [rung for rung in finished_run.rungs if rung.verdict.keep]
    rejected = len(finished_run.rungs) - len(kept)
    assert kept
    assert rejected
    lines = script["waterfall"](RunFolder(path=tmp_path, run=finished_run)).splitlines()
    assert sum(line.startswith("+ ") for line in lines) == len(kept)
    assert not any(line.startswith("- ") for line in lines)
    assert lines[-1].startswith(f"({rejected} rejected changes left out; ")


def test_every_line_but_the_last_is_one_of_the_report(script, finished_run, tmp_path):
    text = io.StringIO()
    print_report(finished_run, folder=tmp_path, console=Console(file=text, width=80))
    full = set(text.getvalue().splitlines())
    only_kept = replace(finished_run, rungs=tuple(rung for rung in finished_run.rungs if rung.verdict.keep))
    block = script["waterfall"](RunFolder(path=tmp_path, run=only_kept))
    assert [line for line in block.splitlines()[:-1] if line not in full] == []


def test_block_is_found_in_the_readme(script):
    assert len(script["BLOCK"].findall((ROOT / "README.md").read_text())) == 1
