from pathlib import Path

import jsonschema
import pytest

from halve.core import Run
from halve.core.documents import to_plain
from halve.report import summary
from halve.report.schema import FOLDER, KINDS, generated_schema, published_schema, write_schemas


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_shipped_schema_is_the_generated_one(name):
    assert published_schema(name) == generated_schema(name), (
        "run: python -c 'from halve.report.schema import write_schemas; write_schemas()'"
    )
    jsonschema.Draft202012Validator.check_schema(published_schema(name))


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("run", "halve.run/1"),
        ("run-record", "halve.run-record/1"),
        ("stack", "halve.stack/1"),
        ("profile", "halve.profile/1"),
    ],
)
def test_a_schema_names_its_version(name, version):
    schema = published_schema(name)
    assert schema["title"] == version
    assert schema["properties"]["schema"]["const"] == version
    assert "schema" in schema["required"]


def test_records_and_stacks_are_valid(run: Run):
    validate = jsonschema.Draft202012Validator
    validate(published_schema("run-record")).validate(to_plain(run))
    validate(published_schema("stack")).validate(to_plain(run.final_stack))


def test_an_unknown_key_is_invalid(runs):
    document = summary(runs["standard"](), folder=Path()) | {"savings": 1.0}
    with pytest.raises(jsonschema.ValidationError, match="'savings' was unexpected"):
        jsonschema.Draft202012Validator(published_schema("run")).validate(document)


def test_writing_gives_the_shipped_files(tmp_path):
    write_schemas(tmp_path)
    shipped = FOLDER
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in shipped.iterdir())
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (shipped / path.name).read_bytes()
