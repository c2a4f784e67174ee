import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.learn import as_text, explain
from halve.techniques.compression.quantization.affine import LARGEST


def figures_of(derivation) -> dict[str, float]:
    return {name: figure for step in derivation.steps for name, figure in step.figures.items()}


def lines_of(derivation) -> list[str]:
    return [line for step in derivation.steps for line in step.lines]


def test_the_golden_example():
    derivation = explain("quantization")
    figures = figures_of(derivation)
    assert round(figures["scale"], 5) == 0.00784
    assert (figures["zero_point"], figures["integer"]) == (102, 166)
    assert round(figures["steps"], 2) == 63.75
    assert round(figures["real"], 5) == 0.50196
    assert figures["rounded_scale"] == pytest.approx(0.00784)
    assert round(figures["real_with_rounded_scale"], 5) == 0.50176
    assert (round(figures["scale_8_bits"], 5), round(figures["scale_4_bits"], 3)) == (0.00784, 0.133)
    assert "unrounded s = 0.00784313772: r_hat = 0.50196" in lines_of(derivation)
    assert "rounded   s = 0.00784000009: r_hat = 0.50176" in lines_of(derivation)


def test_what_a_symmetric_grid_wastes():
    derivation = explain("quantization")
    figures = figures_of(derivation)
    assert (figures["wasted_integers"], figures["integers"]) == (42, 255)
    assert "no number has q in [-127, -86]: [-1.2, -0.8) is wasted" in lines_of(derivation)
    assert figures["relu_of_normal_wasted_share"] == pytest.approx(0.5, abs=0.005)
    assert figures["relu_of_normal_error_ratio"] == pytest.approx(2, abs=0.05)
    assert figures["tanh_of_normal_wasted_share"] == 0
    assert figures["tanh_of_normal_error_ratio"] == pytest.approx(1, abs=0.06)
    assert figures["weights_normal_error_ratio"] == pytest.approx(1, abs=0.02)
    mirrored = lines_of(explain("quantization", low=-1.2, high=0.8))
    assert "no number has q in [86, 127]: (0.8, 1.2] is wasted" in mirrored
    assert "every integer is used" in lines_of(explain("quantization", low=-1, high=1))


def test_the_integer_product_agrees_with_the_real_one():
    figures = figures_of(explain("quantization"))
    assert figures["integer_product"] == pytest.approx(figures["real_product"], abs=0.005)
    without = figures["products"] * figures["scale"] * 0.3 / 127
    assert abs(without - figures["real_product"]) > 0.1


def test_a_range_without_zero_is_widened_and_said_so():
    derivation = explain("quantization", low=0.5, high=3)
    assert "[0.5, 3] does not hold 0, so it is widened to [0, 3]." in derivation.steps[0].reason
    assert figures_of(derivation)["scale"] == pytest.approx(3 / 255)


def test_a_value_outside_is_clamped_and_said_so():
    derivation = explain("quantization", value=2)
    assert figures_of(derivation)["integer"] == 255
    assert any("(clamped: 2 is outside the range)" in line for line in lines_of(derivation))
    assert any("clipped, so it may be more" in line for line in lines_of(derivation))
    assert not any("clamped:" in line for line in lines_of(explain("quantization")))


BOUNDS = st.one_of(st.floats(-9, 9), st.floats(-LARGEST, LARGEST))


@given(bounds=st.tuples(BOUNDS, BOUNDS).map(sorted), bits=st.integers(2, 8), value=BOUNDS)
def test_every_page_fits_in_80_columns_with_finite_figures(bounds, bits, value):
    low, high = bounds
    if max(high, 0) - min(low, 0) < 1e-30:
        return
    derivation = explain("quantization", low=low, high=high, bits=bits, value=value)
    text = as_text(derivation)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert all(math.isfinite(figure) for figure in figures_of(derivation).values())
    inside = low <= value <= high
    figures = figures_of(derivation)
    assert not inside or figures["error"] <= figures["half_step"] * 1.001


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"low": 1, "high": -1}, "range must be low <= high. Got (1.0, -1.0)."),
        ({"low": math.nan}, "range must be finite, within +-1.7e38. Got nan."),
        ({"high": math.inf}, "range must be finite, within +-1.7e38. Got inf."),
        ({"low": 0, "high": 0}, "range must be at least 1e-30 wide. Got (0, 0)."),
        ({"bits": 1}, "bits must be 2 to 8. Got 1."),
        ({"value": math.nan}, "value must be finite, within +-1.7e38. Got nan."),
        ({"value": 1e300}, "value must be finite, within +-1.7e38. Got 1e+300."),
    ],
)
def test_a_bad_number_is_one_sentence(numbers, message):
    with pytest.raises(InvalidParameterError) as caught:
        explain("quantization", **numbers)
    assert str(caught.value) == message
