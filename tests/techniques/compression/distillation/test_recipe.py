import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import Hint, Recipe
from halve.techniques.compression.distillation.recipe import learning_rate_share


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("batch_size", 1),
        ("optimizer", "adam"),
        ("weight_decay", -1.0),
        ("momentum", 1.0),
        ("rate_factors", (("head", 0.0),)),
        ("temperature", 0.0),
        ("temperature", 101.0),
        ("alpha", 1.1),
        ("divergence", "kl"),
        ("warm_up_share", 1.0),
        ("gradient_norm", 0.0),
        ("ema_decay", 1.0),
        ("feature_hint", -1.0),
        ("attention_hint", math.inf),
    ],
)
def test_a_recipe_that_breaks_a_rule_is_refused(field, value):
    with pytest.raises(InvalidParameterError, match=f"{field} must be"):
        Recipe(**{"epochs": 1, "learning_rate": 0.1, field: value})


def test_a_hint_is_of_a_known_kind():
    with pytest.raises(InvalidParameterError, match="kind must be feature or attention"):
        Hint(student="a", teacher="b", kind="logits")


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    # 100 updates, a twentieth of them warm-up: 1/5, 2/5, ... 5/5; then (1 + cos(pi (u - 5) / 95)) / 2.
    shares = [learning_rate_share(update, 100, warm_up_share=0.05) for update in range(100)]
    assert shares[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert shares[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 94 / 95)))


@given(total=st.integers(1, 300), warm_up=st.floats(0, 0.9))
def test_the_learning_rate_stays_in_its_range_and_rises_before_it_falls(total, warm_up):
    shares = [learning_rate_share(update, total, warm_up_share=warm_up) for update in range(total)]
    assert all(0 < share <= 1 for share in shares)
    top = shares.index(max(shares))
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)
