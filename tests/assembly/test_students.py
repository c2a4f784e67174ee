from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import nn

from halve import chains
from halve.assembly.staging import stage
from halve.assembly.students import open_student
from halve.core.progress import Silent
from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization import export_onnx
from halve.testing.tiny_service import teacher, training_points, untrained
from halve.workload import training_set

INPUTS, _ = training_points()
WORDS = [f"w{number}" for number in range(30)]


class Bag(nn.Module):
    """The mean of the words' vectors, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(32, 160), nn.Linear(160, 3)

    def forward(self, input_ids, attention_mask):
        kept = attention_mask.unsqueeze(-1).float()
        return self.head((self.embedding(input_ids) * kept).sum(1) / kept.sum(1))


def new(path):
    path.mkdir()
    return path


@pytest.fixture
def opened(tmp_path):
    """Return what opens a student beside a staged teacher."""

    def make(given, *, module=None, payloads=None, tokenizer=None):
        source = stage(module or teacher(), new(tmp_path / "teacher"), tokenizer=tokenizer)
        lesson = chains.Lesson(
            teacher=source.model,
            load=source.load,
            training=training_set(list(INPUTS[:40]) if payloads is None else payloads),
            caches=tmp_path / "teachers",
            workspace=lambda name: tmp_path / name,
            seed=0,
            progress=Silent(),
        )
        folder = new(tmp_path / "student")
        return open_student(given, folder, source=source, lesson=lesson, tokenizer=tokenizer, max_tokens=16)

    return make


@pytest.fixture
def pieces(tmp_path):
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("[PAD]", "[UNK]")])
    tokenizer.save(str(tmp_path / "pieces.json"))
    return tmp_path / "pieces.json"


def texts(n):
    rng = np.random.default_rng(0)
    return list(dict.fromkeys(" ".join(rng.choice(WORDS, rng.integers(2, 8))) for _ in range(n)))


def test_a_network_of_the_users_is_the_same_untrained_one_each_time(opened):
    found = opened(untrained())
    one, two = found.make(), found.make()
    assert one.module is not two.module
    with torch.no_grad():
        next(one.module.parameters()).zero_()
    for first, second in zip(two.module.parameters(), untrained().parameters(), strict=True):
        assert torch.equal(first, second)
    assert list(one.read(list(INPUTS[:2]))) == ["input"]
    assert (found.reads.model.name, found.reads.model.engine) == ("Sequential", "torch")
    assert found.recipe == chains.student_recipe(found.lesson)


def test_ngrams_read_what_the_teacher_reads_and_learn_from_variations(opened, pieces):
    given = texts(30)
    found = opened("ngrams", module=Bag().eval(), payloads=given, tokenizer=pieces)
    assert found.reads.model.preprocess.tokenizer_file == "tokenizer.json"
    assert (found.reads.folder / "tokenizer.json").read_bytes() == pieces.read_bytes()
    assert list(found.lesson.training.payloads)[: len(given)] == given
    assert len(found.lesson.training) > len(given)
    assert found.recipe == chains.text_recipe(found.lesson, "ngrams")
    student = found.make()
    assert list(student.read(given[:2])) == ["input_ids", "attention_mask"]
    assert student.module.words.weight.shape[0] == 32


def test_ngrams_of_a_file_start_without_vectors(opened, pieces, tmp_path):
    ids = {"input_ids": np.ones((2, 8), np.int64), "attention_mask": np.ones((2, 8), np.int64)}
    export_onnx(Bag().eval(), ids, tmp_path / "bag.onnx")
    found = opened("ngrams", module=tmp_path / "bag.onnx", payloads=texts(20), tokenizer=pieces)
    assert len(found.make().module.words.weight) == 32


def test_a_file_cannot_be_trained(opened, tmp_path):
    export_onnx(untrained(), {"input": INPUTS[:8]}, tmp_path / "small.onnx")
    with pytest.raises(
        InvalidParameterError,
        match=r"student must be module:function returning .*, or one of convolution, ngrams\. Got",
    ):
        opened(tmp_path / "small.onnx")


def test_a_student_that_is_not_there_is_named(opened):
    with pytest.raises(InvalidParameterError, match=r"student must be .*Got 'absent\.onnx'"):
        opened("absent.onnx")


def test_tensors_have_no_ngrams(opened):
    with pytest.raises(InvalidParameterError, match=r"student must be a network of yours where payloads are no texts"):
        opened("ngrams")


def test_early_stopping_goes_along(opened):
    found = opened(untrained())
    assert found.lesson.held_out is None
    assert replace(found.lesson, seed=3).seed == 3
