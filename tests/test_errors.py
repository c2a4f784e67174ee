import re
from pathlib import Path

import pytest

from halve import errors
from halve.errors import (
    AnswerError,
    ConfigError,
    HalveError,
    InvalidParameterError,
    MissingExtraError,
    TooFewExamplesError,
    UserError,
)


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = re.findall(r"^(?P<lead>[ │├└─]*)(?P<name>[A-Z]\w+(?:Error))", errors.__doc__ or "", re.MULTILINE)
    depth_of = {name: len(lead) // 4 for lead, name in drawn}
    real = {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, HalveError)
    }
    assert set(depth_of) == {name for name, kind in real.items()}
    for name, kind in real.items():
        ancestors = [base for base in kind.__mro__[1:] if issubclass(base, HalveError)]
        assert len(ancestors) + 1 == depth_of[name], name


def test_the_sentence_names_field_rule_and_value() -> None:
    error = InvalidParameterError("objective.confidence", rule="in (0.5, 1)", value=1.5, hint="Try 0.95.")
    assert str(error) == "objective.confidence must be in (0.5, 1). Got 1.5. Try 0.95."
    assert isinstance(error, ValueError)
    assert isinstance(error, UserError)


def test_one_config_problem_is_one_line_and_several_are_a_list() -> None:
    assert str(ConfigError("halve.yaml", ["name must be given."])) == "halve.yaml: name must be given."
    assert str(ConfigError("halve.yaml", ["a.", "b."])) == "halve.yaml has 2 problems:\n  - a.\n  - b."


def test_others_carry_their_numbers() -> None:
    assert "at least 299" in str(TooFewExamplesError(have=12, need=299, promise="a drop of at most 0.01"))
    assert str(MissingExtraError("the torch engine", package="torch", extra="torch")).endswith(
        "needs torch: pip install 'halve[torch]'"
    )
    error = AnswerError("teacher", index=7, cause="boom")
    assert (error.index, str(error)) == (7, "model 'teacher' failed on input 7: boom")


@pytest.mark.parametrize("extra", sorted({"onnx", "torch", "serve", "demo"}))
def test_every_extra_named_in_an_error_exists(extra: str) -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert extra in project["project"]["optional-dependencies"]
