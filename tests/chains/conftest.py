"""Lessons over real torch modules: the tiny service's teacher, and a teacher of texts with its tokenizer."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from halve.chains import Lesson
from halve.core import Model, Preprocess
from halve.core.progress import Silent
from halve.engines.torch import answerer_of
from halve.measure.artifacts import adopt_files
from halve.testing.tiny_service import teacher, training_points
from halve.workload import training_set

WORDS = ("play", "stop", "next", "song", "volume", "up", "down", "light", "on", "off", "set", "timer", "now", "red")


def folders_in(root: Path):
    """Return what gives folders by name."""

    def give(name: str) -> Path:
        (root / name).mkdir(parents=True, exist_ok=True)
        return root / name

    return give


@dataclass
class Loads:
    """A teacher that is in memory; notes each time that it is loaded, and how many payloads it was asked."""

    module: object
    model: Model
    folder: Path
    asked: list = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def __call__(self):
        answerer = answerer_of(self.module, self.model, folder=self.folder)
        self.opened += 1
        return Counted(answerer, self)


class Counted:
    """An answerer that counts."""

    def __init__(self, answerer, loads):
        self._answerer, self._loads = answerer, loads
        self.inputs = answerer.inputs
        self.runtime_model = answerer.runtime_model

    def answer(self, payloads):
        self._loads.asked.append(len(payloads))
        return self._answerer.answer(payloads)

    def close(self):
        self._loads.closed += 1
        self._answerer.close()


@pytest.fixture
def make_lesson(tmp_path):
    """Return what makes a lesson of the tiny teacher; its `load` counts."""

    def make(n=240, *, payloads=None, references=None, module=None, seed=0, **changes):
        inputs = list(training_points()[0][:n]) if payloads is None else payloads
        module = teacher() if module is None else module
        model = Model(name="teacher", engine="torch", entry="mine:teacher")
        return Lesson(
            teacher=model,
            load=Loads(module, model, tmp_path),
            training=replace(training_set(inputs, references), **changes),
            caches=tmp_path / "teachers",
            workspace=folders_in(tmp_path / "work"),
            seed=seed,
            progress=Silent(),
        )

    return make


def write_word_pieces(path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {name: number for number, name in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(path))


def text_teacher():
    """Return embeddings, their mean, and a linear layer: the class of a text is its words' strongest."""
    import torch
    from torch import nn

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(len(WORDS) + 4, 160), nn.Linear(160, 3)

        def forward(self, input_ids, attention_mask):
            kept = attention_mask.unsqueeze(-1).float()
            return self.head((self.embedding(input_ids) * kept).sum(1) / kept.sum(1))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bag = Bag().eval()
    bag.head.weight.data *= 12.0
    return bag


@pytest.fixture
def make_text_lesson(tmp_path, make_lesson):
    """Return what makes a lesson of texts, its teacher with a tokenizer beside it."""

    def make(n=200):
        write_word_pieces(tmp_path / "tokenizer.json")
        rng = np.random.default_rng(0)
        texts = list(dict.fromkeys(" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(n)))
        preprocess = Preprocess(kind="wordpiece", tokenizer_file="tokenizer.json", max_tokens=16)
        files = tuple(file for file in adopt_files(tmp_path, relative_to=tmp_path) if file.path == "tokenizer.json")
        model = Model(name="bag", engine="torch", entry="mine:bag", files=files, preprocess=preprocess)
        lesson = make_lesson(payloads=texts)
        return replace(lesson, teacher=model, load=Loads(text_teacher(), model, tmp_path))

    return make
