import hashlib

import pytest

from halve.assembly import entries
from halve.assembly.config import ModelConfig
from halve.assembly.models import adopt_model
from halve.core import Preprocess
from halve.errors import ConfigError
from halve.measure.artifacts import adopt_files
from halve.testing.tiny_service import BUILT_LOG, write_service


class Maker:
    """Builds models as a bench does: once, into a folder."""

    def __init__(self, root):
        self.root, self.asked = root, []

    def __call__(self, model, *, build):
        self.asked.append(model)
        folder = self.root / "models" / model.name
        if not folder.exists():
            folder.mkdir(parents=True)
            build(folder)
        from dataclasses import replace

        return replace(model, files=(*model.files, *adopt_files(folder, relative_to=self.root)))


@pytest.fixture
def service(tmp_path):
    return write_service(tmp_path / "service").parent


def test_python_code_becomes_weights_with_a_hash(service, tmp_path):
    given = ModelConfig(name="linear", entry="tiny_models:linear")
    with entries.importable(service):
        made = adopt_model(given, folder=service, make=Maker(tmp_path))
        source = entries.source_hash("tiny_models:linear", field="f")
    (file,) = made.files
    assert made.engine == "torch"
    assert made.entry == "tiny_models:linear"
    assert file.path == "models/linear/weights.safetensors"
    assert file.sha256 == hashlib.sha256((tmp_path / file.path).read_bytes()).hexdigest()
    assert made.recipe is not None
    assert made.recipe.technique == "given"
    assert made.recipe.parameters["source"] == source
    assert (service / BUILT_LOG).read_text() == "linear\n"


def test_a_file_is_copied_and_named_by_its_content(service, tmp_path):
    (service / "m.onnx").write_bytes(b"bytes of a model")
    made = adopt_model(ModelConfig(name="m", file="m.onnx"), folder=service, make=Maker(tmp_path))
    assert made.engine == "onnxruntime"
    assert (tmp_path / made.files[0].path).read_bytes() == b"bytes of a model"
    first = made.recipe
    (service / "m.onnx").write_bytes(b"other bytes")
    assert adopt_model(ModelConfig(name="m", file="m.onnx"), folder=service, make=Maker(tmp_path)).recipe != first


def test_a_tokenizer_travels_with_the_model(service, tmp_path):
    (service / "m.onnx").write_bytes(b"model")
    (service / "words.json").write_text("{}")
    text = Preprocess(kind="wordpiece", tokenizer_file="words.json", max_tokens=8)
    made = adopt_model(ModelConfig(name="m", file="m.onnx", preprocess=text), folder=service, make=Maker(tmp_path))
    assert made.preprocess.tokenizer_file == "models/m/tokenizer.json"
    assert made.preprocess.max_tokens == 8
    assert [file.path for file in made.files] == ["models/m/model.onnx", "models/m/tokenizer.json"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (ModelConfig(name="m", file="absent.onnx"), "model m.file: there is no file"),
        (ModelConfig(name="m", entry="tiny_models:absent"), "model m.entry: 'tiny_models:absent' cannot be imported"),
        (
            ModelConfig(name="m", file="m.onnx", preprocess=Preprocess(kind="wordpiece")),
            "model m.preprocess.tokenizer_file: it must be given for kind wordpiece.",
        ),
        (
            ModelConfig(name="m", file="m.onnx", preprocess=Preprocess(kind="wordpiece", tokenizer_file="absent.json")),
            "model m.preprocess.tokenizer_file: there is no file",
        ),
    ],
)
def test_what_is_missing_is_named(service, tmp_path, given, sentence):
    (service / "m.onnx").write_bytes(b"model")
    with entries.importable(service), pytest.raises(ConfigError) as caught:
        adopt_model(given, folder=service, make=Maker(tmp_path))
    assert sentence in str(caught.value)
