"""`halve report`."""

from pathlib import Path

import click

from halve.cli.options import Command, debug_option, json_option


@click.command(cls=Command, examples=("halve report runs/latest", "halve report runs/latest --html report.html --open"))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the HTML report to this file.")
@click.option("--open", "open_it", is_flag=True, help="Open the HTML report in the browser.")
@json_option
@debug_option
def command(run: Path, html: Path | None, open_it: bool, as_json: bool) -> None:
    """Print the report of a finished RUN, a folder below runs/."""
    from halve.assembly import open_run
    from halve.cli.outcome import print_run

    folder = open_run(run)
    print_run(folder.run, folder=folder.path, as_json=as_json)
    if html is None and not open_it:
        return
    from halve.report import write_html

    page = html if html is not None else folder.path / folder.run.report_path
    write_html(folder.run, page)
    click.echo(f"wrote {page}", err=True)
    if open_it:
        click.launch(page.resolve().as_uri())
