import logging
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import halve
from halve.assembly.serving import load_checked
from halve.engines import engine
from halve.errors import InvalidParameterError, ModelError, UserError
from halve.measure.artifacts import adopt_files
from halve.techniques.compression.quantization import export_onnx, manifest, read_manifest
from halve.techniques.compression.quantization.hardware import Hardware, Probe, Saturation
from halve.testing.tiny_service import points, teacher

INPUTS, LABELS = points()


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("fp32") / "teacher.onnx"
    export_onnx(teacher(), {"input": INPUTS[:32]}, path)
    return path


def quantize(model, out, **given):
    return halve.quantize(model, out=out, accept_slower=True, **given)


def test_a_file_and_arrays_become_a_model_that_its_engine_runs(onnx_file, tmp_path):
    made = quantize(onnx_file, tmp_path / "int8", calibration=list(INPUTS[:256]))
    assert made.model.engine == "onnxruntime"
    assert (made.model.parent, made.model.name) == ("teacher", "teacher-int8")
    assert [file.path for file in made.model.files] == ["manifest.json", "model.onnx"]
    assert read_manifest(made.folder) == made.manifest
    answerer = engine("onnxruntime").load(made.model, threads=1, folder=made.folder)
    answers = answerer.answer(list(INPUTS[256:512])).answers
    answerer.close()
    expected = engine("onnxruntime").load(
        replace(made.model, files=adopt_files(onnx_file.parent, relative_to=onnx_file.parent)),
        threads=1,
        folder=onnx_file.parent,
    )
    assert np.mean(answers == expected.answer(list(INPUTS[256:512])).answers) > 0.97
    expected.close()


def test_a_module_its_entry_and_its_file_become_the_same_integers(onnx_file, tmp_path, monkeypatch):
    (tmp_path / "tiny_network.py").write_text("from halve.testing.tiny_service import teacher\n")
    np.savez(tmp_path / "data.npz", x=INPUTS[:128])
    monkeypatch.chdir(tmp_path)
    ways = {
        "module": (teacher(), list(INPUTS[:128])),
        "entry": ("tiny_network:teacher", "data.npz"),
        "file": (str(onnx_file), (list(INPUTS[:128]), LABELS[:128])),
    }
    made = {
        name: quantize(model, tmp_path / name, calibration=data, payload="x", method="static")
        for name, (model, data) in ways.items()
    }
    contents = {name: (tmp_path / name / "model.onnx").read_bytes() for name in ways}
    assert contents["module"] == contents["entry"] == contents["file"]
    assert {each.manifest.agreement for each in made.values()} == {made["module"].manifest.agreement}


def test_training_takes_labels_out_of_a_file(tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", x=INPUTS[:512], y=LABELS[:512])
    made = quantize(
        teacher(), tmp_path / "w4a4", calibration=tmp_path / "data.npz", payload="x", label="y",
        bits=4, activation_bits=4, qat_epochs=2,
    )  # fmt: skip
    assert made.manifest.recipe == "W4A4, 2 epochs with quantization in the loop"


def test_texts_are_tokenized_and_the_tokenizer_goes_along(tmp_path):
    import torch
    from torch import nn

    words = [f"w{number}" for number in range(30)]
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "words.json"))

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(32, 16), nn.Linear(16, 3)

        def forward(self, input_ids, attention_mask):
            kept = attention_mask.unsqueeze(-1).float()
            return self.head((self.embedding(input_ids) * kept).sum(1) / kept.sum(1))

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(64)]
    made = quantize(Bag().eval(), tmp_path / "int8", calibration=texts, tokenizer=tmp_path / "words.json")
    assert [file.path for file in made.model.files] == ["manifest.json", "model.onnx", "tokenizer.json"]
    assert made.model.preprocess.kind == "wordpiece"
    answerer = engine("onnxruntime").load(made.model, threads=1, folder=made.folder)
    assert len(answerer.answer(texts)) == 64
    answerer.close()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"calibration": []}, r"calibration must be at least one input\. Got 0"),
        ({"model": "absent.onnx"}, r"model must be an ONNX file, or module:function\. Got 'absent\.onnx'"),
        ({"model": 7}, r"model must be a torch module in evaluation mode\. Got 'int'"),
        ({"model": teacher().train()}, r"must be a torch module in evaluation mode\. Got 'one in training mode'"),
        ({"bits": 9}, r"weight_bits must be 2 to 8\. Got 9"),
        ({"qat_epochs": 1}, r"qat_epochs must be 0 for an ONNX file"),
        ({"calibration": ["a text"]}, r"tokenizer must be given for texts"),
        ({"calibration": ["a text"], "tokenizer": "absent.json"}, r"tokenizer must be a tokenizer\.json"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(onnx_file, tmp_path, given, sentence):
    arguments = {"model": onnx_file, "calibration": list(INPUTS[:8]), **given}
    with pytest.raises(UserError, match=sentence):
        quantize(arguments.pop("model"), tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_not_written_over(onnx_file, tmp_path):
    with pytest.raises(InvalidParameterError, match="out must be a folder that does not exist yet"):
        quantize(onnx_file, tmp_path, calibration=list(INPUTS[:8]))


def test_a_model_is_checked_where_it_is_served(onnx_file, tmp_path, monkeypatch, caplog):
    """Made here, loaded on a host whose products saturate: refused. On another class of host: warned."""
    made = quantize(onnx_file, tmp_path / "m" / "int8", calibration=list(INPUTS[:64]), method="static")
    model = replace(made.model, files=adopt_files(tmp_path / "m", relative_to=tmp_path / "m"))
    load_checked(model, threads=1, folder=tmp_path / "m").close()
    assert not caplog.records

    elsewhere = Hardware(architecture="x86", instruction_sets=("avx2",))
    for saturates in (False, True):
        probe = Probe(hardware=elsewhere, saturation=Saturation(saturates=saturates, relative_error=0.5 * saturates))
        monkeypatch.setattr(manifest, "gather_probe", lambda probe=probe: probe)
        if saturates and any(layer.bits == 8 for layer in made.manifest.layers):
            with pytest.raises(ModelError, match=r"must not have 8-bit weights here.*Quantize it again here"):
                load_checked(model, threads=1, folder=tmp_path / "m")
        else:
            with caplog.at_level(logging.WARNING):
                load_checked(model, threads=1, folder=tmp_path / "m").close()
            assert "they are not known" in caplog.text or elsewhere == made.manifest.probe.hardware
