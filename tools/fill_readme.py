"""Fills the README's waterfall block and figure from a finished run: what `halve report` prints, kept rungs only.

    python tools/fill_readme.py runs/latest

The figure is the top of the run's report.html, taken by Chromium.
"""

import io
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from halve.assembly import RunFolder, open_run
from halve.report import print_report

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FIGURE = Path("docs", "images", "report.png")
BLOCK = re.compile(r"(<!-- waterfall: begin -->\n).*(<!-- waterfall: end -->)", re.DOTALL)


def waterfall(folder: RunFolder) -> str:
    """Return the report from its first line to the end of the replay, and how many changes were rejected."""
    kept = tuple(rung for rung in folder.run.rungs if rung.verdict.keep)
    text = io.StringIO()
    print_report(replace(folder.run, rungs=kept), folder=folder.path, console=Console(file=text, width=80))
    shown = re.split(r"^Ledger ", text.getvalue(), maxsplit=1, flags=re.MULTILINE)[0].rstrip()
    host, rejected = folder.run.host, len(folder.run.rungs) - len(kept)
    return f"{shown}\n\n({rejected} rejected changes left out; {host.processor}, {host.cpu_count} cores)"


def main(run: Path) -> None:
    """Write the block and the figure."""
    folder = open_run(run)
    figure = f"![The top of the report of this run]({FIGURE})"
    block = f"```text\n{waterfall(folder)}\n```\n\n{figure}\n"
    README.write_text(BLOCK.sub(lambda match: match[1] + block + match[2], README.read_text()))
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium must be installed to take the figure.")
    (ROOT / FIGURE).parent.mkdir(parents=True, exist_ok=True)
    options = ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1200,820")
    page = (folder.path / folder.run.report_path).as_uri()
    subprocess.run([chromium, *options, f"--screenshot={ROOT / FIGURE}", page], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
