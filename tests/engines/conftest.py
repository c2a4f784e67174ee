import hashlib
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from halve.core import Model, ModelFile, Outcomes, Preprocess
from halve.engines.recorded import save_recorded
from halve.engines.torch import save_weights
from halve.techniques.compression.quantization import export_onnx

WORDS = ("the", "cat", "sat", "on", "mat", "dog", "ran", "far", "away", "why", "not", "now", "then", "here", "this")
TEXTS = ("the cat sat", "dog ran far away", "why not", "this is it", "that was then and there it is now", "a", "")


def as_model_file(path: Path) -> ModelFile:
    content = path.read_bytes()
    return ModelFile(path=path.name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


@pytest.fixture
def model_file():
    """Return what turns a path into a file of a model in its folder."""
    return as_model_file


@pytest.fixture(scope="session")
def tiny():
    """The module of tiny models, importable by its name."""
    folder = str(Path(__file__).parent / "entries")
    sys.path.insert(0, folder)
    yield importlib.import_module("halve_tiny_models")
    sys.path.remove(folder)


@pytest.fixture(scope="session")
def images():
    return [*np.random.default_rng(5).standard_normal((7, 1, 8, 8)).astype(np.float32)]


@pytest.fixture(scope="session")
def texts():
    return list(TEXTS)


@pytest.fixture(scope="session")
def folder(tiny, images, tmp_path_factory):
    """A folder of weights, ONNX files, a tokenizer and a recording, all of the same two tiny models."""
    import torch

    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    convolution, encoder = tiny.convolution().eval(), tiny.encoder().eval()
    ids = np.arange(24).reshape(3, 8) % 22 + 4
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    save_weights(convolution, root / "convolution.safetensors")
    save_weights(encoder, root / "encoder.safetensors")
    export_onnx(convolution, {"input": np.stack(images)}, root / "convolution.onnx")
    export_onnx(encoder, {"input_ids": ids, "attention_mask": mask}, root / "encoder.onnx")
    write_tokenizer(root / "tokenizer.json")
    write_recording(root / "recorded.parquet", images)
    return root


def write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(path))


def write_recording(path: Path, images) -> None:
    n = len(images)
    probabilities = np.full((n, 4), 0.1, np.float32)
    answers = np.arange(n) % 4
    probabilities[np.arange(n), answers] = 0.7
    outcomes = Outcomes(
        model="recorded",
        answers=answers,
        scores=np.ones(n),
        compute_seconds=np.linspace(0.1, 0.7, n),
        probabilities=probabilities,
    )
    save_recorded(outcomes, path, payloads=images)


@pytest.fixture
def make_model(folder):
    """Return a model over files of the folder."""

    def make(engine, *names, entry=None, text=False, max_tokens=16):
        kind = {"kind": "wordpiece", "tokenizer_file": "tokenizer.json", "max_tokens": max_tokens} if text else {}
        return Model(
            name="tiny",
            engine=engine,
            files=tuple(as_model_file(folder / name) for name in names),
            entry=entry,
            preprocess=Preprocess(**kind),
        )

    return make
