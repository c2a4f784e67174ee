from pathlib import Path

import pytest

from halve.assembly.config import Config
from halve.core.documents import load_yaml
from halve.demo import config_path
from halve.errors import InvalidParameterError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", [config_path("classify"), EXAMPLES / "vision.yaml", EXAMPLES / "intents.yaml"])
def test_every_config_is_valid_and_named_after_its_file(path):
    config = load_yaml(Config, path)
    assert config.name == path.stem
    assert config.model.name == "teacher"
    assert len(config.answerers) == 1


def test_an_unknown_demo_is_refused_with_the_known_ones():
    with pytest.raises(InvalidParameterError, match=r"demo must be one of classify\. Got 'chess'"):
        config_path("chess")
