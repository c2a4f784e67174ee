"""The two tasks: data, teacher, its cached answers, and the network that is taught."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._common import ROOT
from halve.demo.networks import small_network
from halve.demo.training import augmented, cache_folder
from halve.techniques.compression.distillation import (
    Recipe,
    TeacherCache,
    array_sha256,
    augment_texts,
    near_words,
)
from halve.techniques.compression.distillation.students import ConvolutionStudent, start_from_vectors
from halve.techniques.compression.quantization import export_onnx

sys.path.insert(0, str(ROOT / "examples"))  # intents imports its neighbour by its bare name, as a config does.

from examples import intents, vision

Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One teacher and what its students learn from.

    Args:
        name: Of cached files.
        inputs: What the teacher is asked; the labelled rows come first.
        labels: int64 of the labelled rows.
        test, test_labels: Looked at once.
        teacher: Loads it.
        new_student: Makes the untrained student under torch's generator.
        recipe: Of halve's way; others take its updates, batches and optimizer.
        augment: Of a batch; None for nothing.
        texts: Test queries, for timing.
        labelled_epochs: Of the ways that see labelled rows alone; None for as many updates as halve's way has.
    """

    name: str
    inputs: Inputs
    labels: NDArray[np.int64]
    test: Inputs
    test_labels: NDArray[np.int64]
    teacher: Callable[[], torch.nn.Module]
    new_student: Callable[[], torch.nn.Module]
    recipe: Recipe
    augment: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    texts: tuple[str, ...] = ()
    labelled_epochs: int | None = None

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def sha256(self) -> str:
        return array_sha256(self.inputs)

    def cache(self) -> TeacherCache:
        """Return the teacher's answers; asks for what is not there yet."""
        module: list[torch.nn.Module] = []

        def answer(start: int, stop: int) -> NDArray[np.float32]:
            module[:] = module or [self.teacher()]
            part = {name: array[start:stop] for name, array in self.inputs.items()}
            return log_softmax(logits_of(module[0], part))

        return TeacherCache.open(
            cache_folder() / "benchmark-teachers",
            teacher=self.name,
            inputs_sha256=self.sha256,
            rows=self.rows,
            classes=None,
            answer=answer,
        )

    def teacher_accuracy(self) -> float:
        """Return the teacher's accuracy on the test data, in percent."""
        return 100 * float((logits_of(self.teacher(), self.test).argmax(1) == self.test_labels).mean())

    def served(self, module: torch.nn.Module, path: Path) -> Callable[[list[str]], Any]:
        """Return what answers texts through onnxruntime on one thread, tokenization included."""
        import onnxruntime
        from tokenizers import Tokenizer

        export_onnx(module, {name: array[:4] for name, array in self.test.items()}, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options)
        tokenizer = Tokenizer.from_file(str(intents.tokenizer_file()))
        tokenizer.enable_truncation(intents.MAX_TOKENS)
        tokenizer.enable_padding()

        def answer(texts: list[str]) -> Any:
            encoded = tokenizer.encode_batch(list(texts))
            ids = np.array([one.ids for one in encoded], dtype=np.int64)
            mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
            return session.run(None, {"input_ids": ids, "attention_mask": mask})

        return answer


def vision_task(quick: bool) -> Task:
    images, labels = vision.training_set()
    rows, labelled = (6_000, 1_000) if quick else (VISION_ROWS, VISION_LABELLED)
    unseen, answers = vision.examples()
    test = slice(vision.HELD_OUT, None)
    return Task(
        name="vision-teacher",
        inputs={"images": images[:rows]},
        labels=labels[:labelled],
        test={"images": unseen[test]},
        test_labels=answers[test],
        teacher=vision.teacher,
        new_student=lambda: small_network(widths=(16, 32, 64), classes=vision.CLASSES, side_pixels=vision.SIDE_PIXELS),
        recipe=VISION,
        augment=moved,
    )


def intents_task(quick: bool) -> Task:
    """Return the intents with one label in ten."""
    return replace(_intents(quick, labelled=500 if quick else INTENTS_LABELLED), labelled_epochs=LABELLED_EPOCHS)


def intents_all_labels_task(quick: bool) -> Task:
    """Return the same with every training query labelled."""
    return _intents(quick, labelled=5_000 if quick else 15_000)


def _intents(quick: bool, *, labelled: int) -> Task:
    texts, labels, wider = _queries(5_000 if quick else 30_000)
    train = 5_000 if quick else len(texts)
    test_texts, test_labels = _split("test")
    vocabulary = len(word_vectors())

    def new_student() -> torch.nn.Module:
        student = ConvolutionStudent(vocabulary=vocabulary, classes=len(intents.labels()), **STUDENT)
        start_from_vectors(student, torch.from_numpy(word_vectors()))
        return student

    order = np.random.default_rng(0).permutation(len(texts))[:train]
    return Task(
        name="intents-teacher",
        inputs=tokens([texts[row] for row in order] + wider),
        labels=labels[order[:labelled]],
        test=tokens(test_texts),
        test_labels=test_labels,
        teacher=intents.teacher,
        new_student=new_student,
        recipe=INTENTS,
        texts=tuple(test_texts[:64]),
    )


VISION_ROWS, VISION_LABELLED = 30_000, 5_000
"""Images that the teacher is asked, and those of them whose label a student may see."""

INTENTS_LABELLED = 1_500
"""Queries whose intent a student may see, of 15,000 training queries and 30,000 variations of them."""

LABELLED_EPOCHS = 60
"""Best of 20, 60 and 180 for labels alone on the validation queries (83.2, 84.9 and 83.6 %, two seeds): 180 would be as
many updates as halve's way has, and learns 1,500 queries by heart."""

VISION = Recipe(
    epochs=8,
    learning_rate=0.2,
    batch_size=125,
    optimizer="sgd",
    weight_decay=5e-4,
    warm_up_share=0.25,
    gradient_norm=float("inf"),
    temperature=2.0,
    alpha=0.9,
)
INTENTS = Recipe(
    epochs=6, learning_rate=2e-3, batch_size=250, weight_decay=0.0, temperature=2.0, alpha=1.0, ema_decay=0.99
)
STUDENT = {"width": 128, "channels": 256, "hidden": 256}


def moved(batch: dict[str, Any]) -> dict[str, Any]:
    """Move images by up to a pixel and mirror half of them."""
    return {"images": augmented(batch["images"], shift_pixels=1, flip=True)}


@cache
def _queries(count: int) -> tuple[list[str], NDArray[np.int64], list[str]]:
    """Return the training queries, their intents' numbers, and variations of them, for which no label was used."""
    from tokenizers import Tokenizer

    texts, labels = _split("train")
    pieces = Tokenizer.from_file(str(intents.tokenizer_file())).get_vocab()
    words = sorted((word for word in pieces if word.isalpha() and len(word) > 1), key=lambda word: pieces[word])[
        :20_000
    ]
    near = near_words(word_vectors()[[pieces[word] for word in words]], words, count=6, least_cosine=0.4)
    head, embeddings = intents.trained_head(), intents.training_embeddings()
    with torch.no_grad():
        alike = head(embeddings).argmax(dim=1).numpy()
    return texts, labels, augment_texts(texts, alike, count=count, seed=0, neighbours=near)


@cache
def word_vectors() -> NDArray[np.float32]:
    """Return MiniLM's word vectors, float32 (vocabulary, 384)."""
    weight = intents.encoder().bert.get_input_embeddings().weight
    return np.asarray(weight.detach().numpy())


def _split(name: str) -> tuple[list[str], NDArray[np.int64]]:
    number = {intent: place for place, intent in enumerate(intents.labels())}
    queries = intents._queries()[name]
    return [text for text, _ in queries], np.array([number[intent] for _, intent in queries], dtype=np.int64)


def tokens(texts: list[str]) -> Inputs:
    ids = intents.token_ids(texts)
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}


def logits_of(module: torch.nn.Module, inputs: Inputs, size: int = 50) -> NDArray[np.float32]:
    """Return logits; texts are asked in the order of their lengths, which pads least."""
    rows = len(next(iter(inputs.values())))
    mask = inputs.get("attention_mask")
    order = np.arange(rows) if mask is None else np.argsort(mask.sum(axis=1), kind="stable")
    found: NDArray[np.float32] | None = None
    with torch.inference_mode():
        for start in range(0, rows, size):
            chosen = order[start : start + size]
            longest = None if mask is None else int(mask[chosen].sum(axis=1).max())
            batch = [torch.from_numpy(array[chosen]) for array in inputs.values()]
            batch = batch if longest is None else [tensor[:, :longest] for tensor in batch]
            logits = module(*batch).numpy()
            found = np.empty((rows, logits.shape[1]), np.float32) if found is None else found
            found[chosen] = logits
    assert found is not None
    return found


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return torch.from_numpy(logits).log_softmax(dim=1).numpy()


def source_sha256() -> str:
    """Return the hash of the technique's code and of this benchmark's: what is trained depends on it."""
    digest = hashlib.sha256()
    folders = (ROOT / "src/halve/techniques/compression/distillation", ROOT / "benchmarks/_distillation")
    for path in sorted(path for folder in folders for path in folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
