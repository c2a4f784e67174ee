from xml.etree import ElementTree

import pytest

from halve.core import Run
from halve.report import charts
from halve.report.charts.svg import text_width

NAMES = sorted(charts.__all__)
WIDTHS = (320.0, 470.0, 980.0)


def elements(svg: str, tag: str, css: str = "") -> list[ElementTree.Element]:
    return [
        item for item in ElementTree.fromstring(svg).iter(tag) if css in item.attrib.get("class", "").split() or not css
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_text_and_bars_stay_inside_the_drawing(run: Run, name, width):
    svg = getattr(charts, name)(run, width=width)
    if not svg:
        assert (name in ("replay", "replayed_latency") and run.replay is None) or not run.certificate.steps
        return
    height = float(ElementTree.fromstring(svg).attrib["viewBox"].split()[3])
    for item in elements(svg, "text"):
        size = text_width(item.text or "", 12)
        x = float(item.attrib["x"])
        left = {"start": x, "middle": x - size / 2, "end": x - size}[item.attrib["text-anchor"]]
        assert left >= -16, item.text
        assert left + size <= width + 16, item.text
        assert 0 < float(item.attrib["y"]) <= height, item.text
    for item in elements(svg, "rect"):
        assert float(item.attrib["x"]) >= -0.1
        assert float(item.attrib["x"]) + float(item.attrib["width"]) <= width + 0.1
        assert float(item.attrib["y"]) + float(item.attrib["height"]) <= height + 0.1


def test_the_waterfall_hangs_together(runs):
    svg = charts.waterfall(runs["standard"](), width=980)
    before, after = elements(svg, "rect", "bar-before"), elements(svg, "rect", "bar-after")
    steps = elements(svg, "rect", "bar-down")
    assert (len(before), len(steps), len(after)) == (1, 4, 1)
    edge = float(before[0].attrib["x"]) + float(before[0].attrib["width"])
    for step in steps:
        left, width = float(step.attrib["x"]), float(step.attrib["width"])
        assert left + width == pytest.approx(edge, abs=0.2)
        edge = left


def test_bars_are_as_long_as_their_money(runs):
    run = runs["standard"]()
    svg = charts.waterfall(run, width=980)
    before, after = (float(elements(svg, "rect", css)[0].attrib["width"]) for css in ("bar-before", "bar-after"))
    assert after / before == pytest.approx(1 - run.saving_rate, abs=0.001)


def test_a_dearer_step_is_drawn_upwards(runs):
    svg = charts.waterfall(runs["dearer"](), width=980)
    assert len(elements(svg, "rect", "bar-up")) == 1
    assert "+$0.0638 (+14.1 %)" in svg


def test_the_plane_holds_every_measured_rung(runs):
    run = runs["standard"]()
    svg = charts.plane(run, width=470)
    kept = sum(rung.verdict.keep for rung in run.rungs)
    assert len(elements(svg, "circle", "dot-kept")) == kept
    assert len(elements(svg, "circle", "dot-rejected")) == len(run.rungs) - kept
    assert len(elements(svg, "line", "limit")) == 1


def test_dots_below_the_margin_lie_below_its_line(runs):
    svg = charts.plane(runs["standard"](), width=470)
    limit = float(elements(svg, "line", "limit")[0].attrib["y1"])
    below = [dot for dot in elements(svg, "circle") if float(dot.attrib["cy"]) > limit]
    assert [dot.attrib["class"] for dot in below] == ["dot-rejected"]


def test_curves_rise(runs):
    for path in elements(charts.latency(runs["standard"](), width=470), "path"):
        points = [tuple(map(float, step.split())) for step in path.attrib["d"][1:].split("L")]
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)


def test_the_ledger_keeps_refunds_left_of_zero(runs):
    svg = charts.ledger(runs["dearer"](), width=980)
    refund = next(item for item in elements(svg, "rect", "series-3") if item.find("title") is not None)
    first = next(item for item in elements(svg, "rect", "series-0") if item.find("title") is not None)
    assert float(refund.attrib["x"]) + float(refund.attrib["width"]) <= float(first.attrib["x"]) + 0.1


def test_many_ledger_lines_share_the_last_colour(runs):
    svg = charts.ledger(runs["long_names"](), width=320)
    assert "8 more lines" in svg
    assert len([item for item in elements(svg, "rect", "series-7") if item.find("title") is not None]) == 8


def test_a_refused_step_is_marked(runs):
    svg = charts.certificate(runs["refused"](), width=470)
    assert len(elements(svg, "circle", "dot-bad")) == 1
    assert [item.text for item in elements(svg, "text", "bad")] == ["refused"]


def test_shares_are_drawn_to_scale(runs):
    svg = charts.stages(runs["standard"](), width=470)
    student = float(elements(svg, "rect", "series-0")[0].attrib["width"])
    assert student == pytest.approx(0.871 * 470, abs=0.1)
