"""Questions, what is known of their answers, and their vectors by one encoder, made once and kept by hash."""

import hashlib
import json
import multiprocessing
import os
import sys
import tarfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._common import ROOT
from halve.demo.training import cache_folder, computed_once
from halve.errors import WorkloadError

sys.path.insert(0, str(ROOT / "examples"))  # intents imports its neighbour by its bare name, as a config does.

MAX_TOKENS = 128
BATCH = 64
CALIBRATION_QUESTIONS = 512
"""The first so many questions of QQP set the encoder's ranges."""

OUT_OF_SCOPE = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """Texts and their vectors.

    Args:
        texts: All different, byte for byte.
        vectors: float32 (n, dimension), unit length.
    """

    texts: tuple[str, ...]
    vectors: NDArray[np.float32]

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that change with any byte of the vectors."""
        return hashlib.sha256(np.ascontiguousarray(self.vectors).data).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, eq=False)
class QuestionPairs:
    """GPTCache's own benchmark: pairs of Quora questions that people labelled.

    Args:
        questions: Those that occur in a pair, in order of appearance.
        pairs: int64 (m, 2), numbers of questions.
        duplicate: bool (m,), the labels.
        meaning: int64 (n,): equal for questions that are duplicates by label or by transitive closure.
        component: int64 (n,): equal for questions that pairs connect, duplicates or not.
    """

    questions: Questions
    pairs: NDArray[np.int64]
    duplicate: NDArray[np.bool_]
    meaning: NDArray[np.int64]
    component: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Intents:
    """CLINC150: queries of a service and the intent that answers each; OUT_OF_SCOPE where there is none."""

    questions: Questions
    intent: NDArray[np.int64]


def question_pairs() -> QuestionPairs:
    """Return the 80,854 pairs of `gptcache_qqp`, with vectors.

    Raises:
        WorkloadError: If HALVE_DATA does not hold them.
        MissingExtraError: If the encoder is not installed.
    """
    texts, pairs, duplicate = raw_pairs()
    count = len(texts)
    return QuestionPairs(
        questions=Questions(texts=texts, vectors=vectors_of("qqp", texts)),
        pairs=pairs,
        duplicate=duplicate,
        meaning=connected(count, pairs[duplicate]),
        component=connected(count, pairs),
    )


def intents() -> Intents:
    """Return all queries of CLINC150 that occur once, in and out of scope, with vectors.

    Raises:
        WorkloadError: If HALVE_DATA does not hold them.
        MissingExtraError: If the encoder is not installed.
    """
    splits = json.loads(_data_file("clinc150/data_full.json").read_text())
    rows = [(text, name) for split in sorted(splits) for text, name in splits[split]]
    times = {text: 0 for text, _ in rows}
    for text, _ in rows:
        times[text] += 1
    kept = [(text, name) for text, name in rows if times[text] == 1]
    numbers = {name: number for number, name in enumerate(sorted({name for _, name in kept} - {"oos"}))}
    texts = tuple(text for text, _ in kept)
    intent = np.array([numbers.get(name, OUT_OF_SCOPE) for _, name in kept], dtype=np.int64)
    return Intents(questions=Questions(texts=texts, vectors=vectors_of("clinc150", texts)), intent=intent)


@cache
def raw_pairs() -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.bool_]]:
    """Return questions in order of appearance, pairs of their numbers, int64 (m, 2), and labels, bool (m,)."""
    with tarfile.open(_data_file("gptcache_qqp/similiar_qqp_full.json.gz")) as archive:
        member = next(entry for entry in archive.getmembers() if entry.isfile())
        file = archive.extractfile(member)
        assert file is not None
        rows: list[dict[str, Any]] = json.load(file)
    numbers: dict[str, int] = {}
    pairs = [[numbers.setdefault(row[side], len(numbers)) for side in ("text_a", "text_b")] for row in rows]
    return tuple(numbers), np.array(pairs, dtype=np.int64), np.array([row["label"] == 1 for row in rows])


def connected(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each of `count` nodes the smallest number in its connected component, int64 (count,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), dtype=np.int8)
    graph = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)


def vectors_of(name: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the encoder's vectors, float32 (n, 384), unit length, computed once and kept in HALVE_CACHE."""
    from examples.intents import MINILM_SHA256

    recipe = {"encoder": MINILM_SHA256, "made": "export_onnx, write_artifact auto", "tokens": MAX_TOKENS}
    data = {"texts": np.frombuffer("\0".join(texts).encode(), dtype=np.uint8)}
    state = computed_once(f"semantic-cache-{name}", recipe=recipe, data=data, compute=lambda: _computed(texts))
    return np.asarray(state["vectors"].numpy(), dtype=np.float32)


def encoder_file() -> Path:
    """Return all-MiniLM-L6-v2 in integers by halve's own quantization, in fp32 where that is slower; made once.

    Raises:
        MissingExtraError: If a library is not installed.
        ModelError: If it cannot be exported.
    """
    from examples.intents import MINILM_SHA256, encoder

    from halve.errors import ModelError
    from halve.techniques.compression.quantization import Data, Order, export_onnx, write_artifact

    folder = cache_folder() / f"semantic-cache-encoder-{MINILM_SHA256[:16]}"
    plain, integers = folder / "fp32.onnx", folder / "int8" / "model.onnx"
    if not plain.is_file():
        rows = next(iter(batches(raw_pairs()[0][:32])))[1]
        export_onnx(encoder(), rows, plain)
    if not integers.is_file() and not (folder / "slower").is_file():
        integers.parent.mkdir(parents=True, exist_ok=True)
        inputs = [rows for _, rows in batches(raw_pairs()[0][:CALIBRATION_QUESTIONS])]
        try:
            write_artifact(Order(), integers.parent, model=plain, data=Data(batches=inputs))
        except ModelError as error:
            (folder / "slower").write_text(f"{error}\n")
    return integers if integers.is_file() else plain


def batches(texts: Sequence[str]) -> Iterable[tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]]:
    """Yield batches from short to long texts: their numbers, and the encoder's inputs, padded to the longest."""
    ids = [encoded.ids for encoded in _tokenizer().encode_batch(list(texts))]
    order = np.argsort([len(tokens) for tokens in ids], kind="stable")
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        longest = len(ids[chosen[-1]])
        tokens = np.array([ids[row] + [0] * (longest - len(ids[row])) for row in chosen], dtype=np.int64)
        mask = np.array([[1] * len(ids[row]) + [0] * (longest - len(ids[row])) for row in chosen], dtype=np.int64)
        yield chosen, {"input_ids": tokens, "attention_mask": mask}


def encoded(model: str, texts: list[str]) -> NDArray[np.float32]:
    """Return unit vectors, float32 (n, 384), on one thread; runs in a process of its own."""
    from halve.techniques.compression.quantization.runtime import open_session

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    session = open_session(Path(model))
    found: NDArray[np.float32] = np.empty((len(texts), 384), dtype=np.float32)
    for chosen, inputs in batches(texts):
        found[chosen] = session.run(None, inputs)[0]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _computed(texts: Sequence[str]) -> dict[str, Any]:
    import torch

    workers = len(os.sched_getaffinity(0))
    model = str(encoder_file())
    vectors: NDArray[np.float32] = np.empty((len(texts), 384), dtype=np.float32)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        # Every worker gets texts of all lengths.
        jobs = [pool.submit(encoded, model, list(texts[part::workers])) for part in range(workers)]
        for part, job in enumerate(jobs):
            vectors[part::workers] = job.result()
    return {"vectors": torch.from_numpy(vectors)}


@cache
def _tokenizer() -> Any:
    from examples.intents import tokenizer_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file()))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def _data_file(name: str) -> Path:
    root = os.environ.get("HALVE_DATA")
    if not root or not Path(root, name).is_file():
        raise WorkloadError(f"HALVE_DATA must hold {name}. Got {root!r}.")
    return Path(root, name)
