from dataclasses import replace

import pytest

from halve.errors import InvalidParameterError
from halve.serving.gateway import Limits
from halve.testing.fakes import FakeAnswerer


def test_links_are_the_model_stages_in_order_and_the_last_accepts_everything(make_chain):
    links = make_chain({"small": FakeAnswerer, "large": FakeAnswerer}).links
    assert [link.model.name for link in links] == ["small", "large"]
    assert [link.deployment.model for link in links] == ["small", "large"]
    assert links[0].accepts is not None
    assert links[1].accepts is None


def test_a_model_that_may_decline_needs_its_acceptance(make_chain):
    chain = make_chain({"small": FakeAnswerer, "large": FakeAnswerer})
    with pytest.raises(InvalidParameterError, match=r"accepts must be given for model 'small'.*Got \['large'\]"):
        replace(chain, accepts={"large": lambda prediction: None})


def test_a_cache_without_a_cache_stage_is_refused(make_chain):
    with pytest.raises(InvalidParameterError, match=r"cache and cache_key must be given exactly when"):
        replace(make_chain(), cache=object(), cache_key=bytes)


def test_every_instance_type_needs_its_price(make_chain):
    with pytest.raises(InvalidParameterError, match=r"usd_per_vcpu_second must be given for box. Got \['other'\]"):
        replace(make_chain(), usd_per_vcpu_second={"other": 1.0})


@pytest.mark.parametrize("name", ["in_flight_items", "body_bytes", "drain_seconds"])
def test_limits_are_at_least_one(name):
    with pytest.raises(InvalidParameterError, match=rf"limits.{name} must be at least 1. Got 0"):
        Limits(**{name: 0})
