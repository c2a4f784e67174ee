import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.report.charts.svg import Drawing, Scale, fit, legend, minus, round_usd, text_width

ends = st.floats(1e-4, 1e4)


@given(low=ends, factor=st.floats(1.001, 1e5), logarithmic=st.booleans(), count=st.integers(2, 12))
def test_ticks_are_inside_rising_and_not_too_many(low, factor, logarithmic, count):
    high = low * factor
    ticks = Scale(low=low, high=high, start=0, end=100, logarithmic=logarithmic).ticks(count)
    assert ticks == sorted(set(ticks))
    assert 1 <= len(ticks) <= count + 1
    if not (logarithmic and ticks == [low]):
        assert all(low * 0.99 <= tick <= high * 1.01 for tick in ticks)


@given(low=ends, factor=st.floats(1.01, 1e5), values=st.lists(ends, min_size=2), logarithmic=st.booleans())
def test_scales_are_monotone_and_stay_inside(low, factor, values, logarithmic):
    scale = Scale(low=low, high=low * factor, start=10, end=90, logarithmic=logarithmic)
    places = [scale(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(10 <= place <= 90 for place in places)
    assert (scale(low), scale(low * factor)) == pytest.approx((10, 90))


def test_a_scale_of_one_value_is_its_middle():
    assert Scale(low=3, high=3, start=0, end=10)(3) == 5
    assert Scale(low=3, high=3, start=0, end=10).ticks(5) == [3]


@given(text=st.text(min_size=1, max_size=80), width=st.floats(30, 400))
def test_fitted_text_is_no_wider_than_its_room(text, width):
    assert text_width(fit(text, width, 12), 12) <= width
    assert fit(text, 1e6, 12) == text


@given(names=st.lists(st.text(max_size=60), max_size=12))
def test_a_legend_stays_left_of_its_end(names):
    drawing = Drawing(key="k", width=320, height=400, title="t", description="d")
    below = legend(drawing, [("series-0", name) for name in names], x=0, y=12, right=320)
    assert 32 <= below <= 32 + 20 * len(names)


def test_text_is_escaped():
    drawing = Drawing(key="k", width=10, height=10, title="<b>", description="&")
    drawing.text(0, 0, "<script>")
    drawing.rect(0, 0, 1, 1, css="bar", tip="<i>")
    svg = drawing.render()
    assert "<script>" not in svg
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "&lt;script&gt;" in svg


def test_negative_widths_become_none():
    drawing = Drawing(key="k", width=10, height=10, title="t", description="d")
    drawing.rect(0, 0, -5, 1, css="bar")
    assert 'width="0.0"' in drawing.render()


@pytest.mark.parametrize(("usd", "text"), [(0.05, "$0.05"), (0, "$0"), (-0.2, "\N{MINUS SIGN}$0.2")])
def test_round_dollars(usd, text):
    assert round_usd(usd) == text
    assert minus("-1") == "\N{MINUS SIGN}1"
