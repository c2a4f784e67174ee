import inspect
from importlib import import_module

import pytest

from halve.errors import InvalidParameterError
from halve.learn import TOPICS, explain


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_every_topic_derives_itself_from_exactly_its_numbers(topic):
    derive = import_module(f"halve.learn.{topic.name}").derive
    assert set(inspect.signature(derive).parameters) == {number.name for number in topic.numbers}
    derivation = explain(topic.name)
    assert derivation.topic == topic.name
    assert derivation.given == {number.name: number.default for number in topic.numbers}
    assert derivation.steps


def test_numbers_given_replace_defaults():
    derivation = explain("quantization", bits=4, value=-0.25)
    assert derivation.given == {"low": -0.8, "high": 1.2, "bits": 4, "value": -0.25}


def test_an_unknown_topic_lists_the_known_ones():
    with pytest.raises(InvalidParameterError, match=r"topic must be one of quantization, .*\. Got 'astrology'"):
        explain("astrology")


def test_an_unknown_number_lists_the_known_ones():
    message = r"number must be one of low, high, bits, value for quantization\. Got 'width'"
    with pytest.raises(InvalidParameterError, match=message):
        explain("quantization", width=3)
