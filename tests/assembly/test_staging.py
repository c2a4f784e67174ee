import json
from pathlib import Path

import numpy as np
import pytest
import torch

from halve.assembly import entries
from halve.assembly.staging import is_entry, name_of, stage
from halve.errors import ConfigError, InvalidParameterError, ModelError, UserError
from halve.techniques.compression.quantization import export_onnx
from halve.testing.tiny_service import points, teacher, untrained, write_service

INPUTS, _ = points()


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A folder with the user's code, where the tests run."""
    write_service(tmp_path / "service")
    monkeypatch.chdir(tmp_path / "service")
    with entries.importable(Path.cwd()):
        yield tmp_path


def new(path):
    path.mkdir()
    return path


def test_a_module_an_entry_and_a_file_answer_the_same(service):
    export_onnx(teacher(), {"input": INPUTS[:8]}, service / "big.onnx")
    answers = []
    for number, given in enumerate((teacher(), "tiny_models:teacher", service / "big.onnx")):
        staged = stage(given, new(service / str(number)))
        assert all((staged.folder / file.path).is_file() for file in staged.model.files)
        loaded = staged.load()
        answers.append(loaded.answer(list(INPUTS[:100])).answers)
        loaded.close()
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_a_fingerprint_changes_with_every_weight(service):
    one, two, other = teacher(), teacher(), teacher()
    with torch.no_grad():
        other[0].bias[3] += 1e-3
    found = [stage(module, new(service / f"m{number}")).model for number, module in enumerate((one, two, other))]
    assert found[0].fingerprint == found[1].fingerprint != found[2].fingerprint
    assert [file.path for file in found[0].files] == ["weights.safetensors"]


def test_an_entry_is_built_once(service):
    staged = stage("tiny_models:teacher", new(service / "staged"))
    for _ in range(2):
        staged.load().close()
    assert (service / "service" / "built.log").read_text().split() == ["teacher"]
    assert (staged.model.name, staged.model.engine, staged.model.entry) == ("teacher", "torch", "tiny_models:teacher")


def test_a_tokenizer_goes_along(service):
    (service / "pieces.json").write_text('{"any": "thing"}')
    export_onnx(untrained(), {"input": INPUTS[:8]}, service / "small.onnx")
    staged = stage(service / "small.onnx", new(service / "staged"), tokenizer=service / "pieces.json", max_tokens=9)
    assert (staged.folder / "tokenizer.json").read_text() == '{"any": "thing"}'
    assert (staged.model.preprocess.tokenizer_file, staged.model.preprocess.max_tokens) == ("tokenizer.json", 9)
    assert {file.path for file in staged.model.files} == {"source.onnx", "tokenizer.json"}


def test_an_endpoint_is_a_json_file_where_one_will_do(service):
    (service / "endpoint.json").write_text(json.dumps({"url": "http://127.0.0.1:9/v1"}))
    staged = stage(service / "endpoint.json", new(service / "staged"), field="teacher", endpoints=True)
    assert (staged.model.engine, staged.model.name) == ("openai_http", "endpoint")
    assert [file.path for file in staged.model.files] == ["endpoint.json"]


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ("absent.onnx", InvalidParameterError, r"teacher must be an ONNX file, or module:function\. Got"),
        ("absent:nothing", ModelError, "'absent:nothing'.*No module named 'absent'"),
        ("tiny_models:absent", ModelError, "has no attribute 'absent'"),
        (7, InvalidParameterError, "must be a torch module in evaluation mode. Got 'int'"),
        (untrained().train(), InvalidParameterError, "Got 'one in training mode'"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused(service, given, error, sentence):
    with pytest.raises(error, match=sentence):
        stage(given, new(service / "staged"), field="teacher")


def test_an_endpoint_is_named_where_one_will_do(service):
    with pytest.raises(InvalidParameterError, match=r"an ONNX file, an endpoint's \.json file, or module:function"):
        stage("absent.json", new(service / "staged"), field="teacher", endpoints=True)


@pytest.mark.parametrize(("tokenizer", "error"), [("absent.json", InvalidParameterError), ("absent:path", ConfigError)])
def test_a_tokenizer_that_is_not_there_is_refused(service, tokenizer, error):
    with pytest.raises(error, match="tokenizer"):
        stage(teacher(), new(service / "staged"), tokenizer=tokenizer)


def test_a_file_shows_its_tensors_and_a_broken_one_is_refused(service):
    export_onnx(untrained(), {"input": INPUTS[:8]}, service / "small.onnx")
    with stage(service / "small.onnx", new(service / "one")).opened() as answerer:
        assert list(answerer.inputs(list(INPUTS[:2]))) == ["input"]
    (service / "broken.onnx").write_text("no model")
    with pytest.raises(UserError, match=r"source\.onnx|broken"):
        stage(service / "broken.onnx", new(service / "two")).load()


def test_what_to_call_a_model(service):
    assert name_of("tiny_models:teacher") == "teacher"
    assert name_of("folder/big.onnx") == name_of(Path("folder/big.onnx")) == "big"
    assert name_of(teacher()) == "Sequential"
    (service / "service" / "odd:name").write_text("")
    assert is_entry("tiny_models:teacher")
    assert not is_entry("odd:name"), "it is a file"
    assert not is_entry("big.onnx")
