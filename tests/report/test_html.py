import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from markupsafe import escape

from halve.core import Run
from halve.report import render_html, write_html

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of turn; collects ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole(run: Run):
    page = Balanced()
    page.feed(render_html(run))
    page.close()
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)


def test_the_page_needs_no_network_and_no_script(run: Run):
    page = render_html(run)
    assert not re.search(r"https?:|//\w|<script|url\(|@import|\bsrc=", page)


def test_charts_are_xml_with_title_and_description(run: Run):
    charts = re.findall(r"<svg.*?</svg>", render_html(run), flags=re.DOTALL)
    assert len(charts) >= 10
    for chart in charts:
        root = ElementTree.fromstring(chart)
        title, description = root[0], root[1]
        assert (title.tag, description.tag) == ("title", "desc")
        assert title.text
        assert description.text
        assert root.attrib["aria-labelledby"] == f"{title.attrib['id']} {description.attrib['id']}"


def test_names_are_escaped_everywhere(runs):
    evil = "</title><img onerror=alert(1)>&\"'"
    run = runs["standard"]()
    ledger = tuple(replace(line, name=evil) for line in run.final.ledger[:1])
    rung = run.rungs[0]
    rungs = (replace(rung, lever=evil, description=evil, verdict=replace(rung.verdict, reason=evil)), *run.rungs[1:])
    final = replace(run.final, ledger=ledger, stage_share={evil: 1.0}, utilization={evil: 0.5})
    page = render_html(replace(run, name=evil, rungs=rungs, final=final, assumptions=(evil,), commands=(evil,)))
    assert "<img" not in page
    assert page.count("&lt;img onerror=alert(1)&gt;") > 8


def test_everything_that_was_tried_is_told(run: Run):
    page = render_html(run)
    for rung in run.rungs:
        assert str(escape(rung.description)) in page
        assert str(escape(rung.verdict.reason)) in page
    for line in (*run.commands, *run.assumptions):
        assert str(escape(line)) in page
    assert str(escape(run.certificate.method)) in page
    assert run.host.processor in page


def test_rejected_changes_are_listed_under_the_waterfall(runs):
    page = render_html(runs["standard"]())
    listed = page[page.index('<ul class="rejected">') :].split("</ul>")[0]
    assert listed.count("<li>") == 3
    assert "would save nothing" in listed
    assert "would cost 6.3 % more" in listed


def test_equal_records_give_equal_pages(runs):
    assert render_html(runs["standard"]()) == render_html(runs["standard"]())


@pytest.mark.parametrize(("name", "label"), [("standard", "replayed"), ("no_replay", "simulated only")])
def test_figures_say_where_they_come_from(runs, name, label):
    page = render_html(runs[name]())
    assert f'<span class="badge plain">{label}</span>' in page
    assert '<span class="badge plain">simulated</span>' in page


def test_writing_leaves_one_whole_file(runs, tmp_path):
    target = tmp_path / "new" / "report.html"
    write_html(runs["standard"](), target)
    assert target.read_text(encoding="utf-8") == render_html(runs["standard"]())
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
