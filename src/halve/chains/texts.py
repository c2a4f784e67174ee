"""Students for texts over the teacher's own word pieces: convolutions over words, or tables of words and n-grams.

Their inputs are the data's texts and variations of them, which need nothing but the teacher's answer.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from halve.chains.lesson import Lesson
from halve.chains.recipes import text_recipe
from halve.chains.students import ReadInputs, Student, write_student
from halve.core import Bench, Model, TensorAnswerer
from halve.core.hashing import payload_hash
from halve.errors import InvalidParameterError, MissingExtraError
from halve.techniques.compression import distillation

if TYPE_CHECKING:
    import torch

TextStudent = Literal["convolution", "ngrams"]
TEXT_STUDENTS: tuple[TextStudent, ...] = get_args(TextStudent)

WIDTH = 128
"""Of a word's vector, if the teacher's is no narrower."""

NGRAM_OPTIONS: dict[str, Any] = {"hidden": 512, "word_dropout": 0.1, "ngram_dropout": 0.2, "dropout": 0.1}

VARIATIONS_PER_TEXT = 2
"""Texts made of each given one."""

MOST_VARIATIONS = 60_000
WHOLE_WORDS = 12_000
"""Words of the data that get neighbours: the most frequent ones."""


def write_text_student(folder: Path, *, kind: TextStudent, bench: Bench, lesson: Lesson, name: str) -> None:
    """Train a text student on a run's data and write it; see `write_student`."""
    with lesson.opened() as teacher:
        tokenizer = tokenizer_of(lesson.teacher, bench.model_folder(lesson.teacher))
        vectors = word_vectors(teacher)
        wider = with_variations(lesson, tokenizer=tokenizer, vectors=vectors)
        student = text_student(kind, wider, tokenizer=tokenizer, vectors=vectors, read=teacher.inputs)
    write_student(folder, lesson=wider, student=student, recipe=text_recipe(wider, kind), name=name)


def text_student(
    kind: TextStudent, lesson: Lesson, *, tokenizer: Any, vectors: "torch.Tensor | None", read: ReadInputs
) -> Student:
    """Return an untrained student for the teacher's classes and word pieces, its words started from the teacher's.

    Args:
        kind: `convolution`: nearer to the teacher; `ngrams`: cheaper.
        lesson: Of texts.
        tokenizer: A `tokenizers.Tokenizer`.
        vectors: The teacher's word vectors, (vocabulary, any); None where it shows none.
        read: Texts to `input_ids` and `attention_mask`.
    """
    import torch

    from halve.techniques.compression.distillation import students

    sizes: dict[str, Any] = {
        "vocabulary": tokenizer.get_vocab_size() if vectors is None else len(vectors),
        "classes": lesson.answers().classes,
        "width": WIDTH if vectors is None else min(WIDTH, vectors.shape[1]),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lesson.seed)
        module: torch.nn.Module
        if kind == "convolution":
            module = students.ConvolutionStudent(**sizes)
        else:
            special = [number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]
            module = students.NgramStudent(**sizes, special=special, **NGRAM_OPTIONS)
        if vectors is not None:
            students.start_from_vectors(module, vectors)
    return Student(module=module, read=read)


def with_variations(lesson: Lesson, *, tokenizer: Any, vectors: "torch.Tensor | None") -> Lesson:
    """Return the lesson with variations of its texts added, unlabelled.

    Raises:
        InvalidParameterError: If its payloads are no texts.
    """
    training = lesson.training
    texts = [payload for payload in training.payloads if isinstance(payload, str)]
    if len(texts) != len(training):
        raise InvalidParameterError("student", rule="a network of yours where payloads are no texts", value="tensors")
    groups = lesson.answers().log_probabilities().argmax(axis=1).astype(np.int64)
    near = {} if vectors is None else _neighbours(texts, tokenizer=tokenizer, vectors=vectors.numpy())
    count = min(VARIATIONS_PER_TEXT * len(texts), MOST_VARIATIONS)
    more = distillation.augment_texts(texts, groups, count=count, seed=lesson.seed, neighbours=near)
    payloads = [*texts, *more]
    references = np.concatenate([training.references, np.full(len(more), -1, np.int64)])
    wider = replace(training, payloads=payloads, references=references, sha256=payload_hash(payloads))
    return replace(lesson, training=wider)


def tokenizer_of(model: Model, folder: Path) -> Any:
    """Return the tokenizer of a model that reads texts."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtraError("text input", package="tokenizers", extra="onnx") from None
    if model.preprocess.tokenizer_file is None:
        raise InvalidParameterError("tokenizer", rule="given for texts", value=None)
    return Tokenizer.from_file(str(folder / model.preprocess.tokenizer_file))


def word_vectors(teacher: TensorAnswerer) -> "torch.Tensor | None":
    """Return the teacher's largest embedding table, float32 (vocabulary, any); None if it is no torch module."""
    modules: Callable[[], Any] | None = getattr(teacher.runtime_model, "modules", None)
    if modules is None:
        return None
    from torch import nn

    tables = [part.weight.detach().float() for part in modules() if isinstance(part, nn.Embedding)]
    return max(tables, key=len, default=None)


def _neighbours(texts: list[str], *, tokenizer: Any, vectors: NDArray[np.float32]) -> dict[str, list[str]]:
    """Return words near each frequent word of the texts: those that are one piece of the tokenizer."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    pieces = {word: tokenizer.token_to_id(word) for word in frequent}
    known = [word for word in frequent if pieces[word] is not None][:WHOLE_WORDS]
    if len(known) < 2:
        return {}
    return distillation.near_words(vectors[[pieces[word] for word in known]], known)
