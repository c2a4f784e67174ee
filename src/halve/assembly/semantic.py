"""A semantic cache made runnable: its encoder, its policy and its store, as an answerer and as a memory."""

import json
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

from halve.core import (
    Answerer,
    CachedAnswer,
    Encoder,
    Engine,
    Model,
    Outcomes,
    Payload,
    Pooling,
    Prediction,
    RunnerName,
)
from halve.engines import engine
from halve.engines.encoder import load_encoder
from halve.errors import AnswerError, InvalidParameterError, ModelError
from halve.levers.semantic_cache import POLICY_NAME
from halve.techniques.inference.caching import exact_key, semantic

MOST_RECENT = 10_000
"""Vectors of questions under way that are kept, so that an answer that comes back need not be encoded again."""


def runner(name: RunnerName, *, stored: Sequence[str] = ()) -> Engine:
    """Return the engine of that name, or what runs semantic caches.

    Args:
        name: Of an engine, or `semantic_cache`.
        stored: Questions that a cache holds from the start, with any answer: what it is timed with.
    """
    return SemanticCacheEngine(stored=stored) if name == "semantic_cache" else engine(name)


def stored_answers(
    model: Model, payloads: Sequence[Payload], table: Outcomes, *, folder: Path
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what a cache of the table's other answers would answer; see the technique's `full_cache`."""
    texts = [str(payload) for payload in payloads]
    return semantic.full_cache(
        _policy(model, folder),
        texts=texts,
        vectors=encode_texts(model, texts, folder=folder),
        stored=np.asarray(table.answers, np.int64),
        classes=_classes(model),
        neighbours=_neighbours(model),
    )


def encode_texts(model: Model, texts: Sequence[str], *, folder: Path) -> NDArray[np.float32]:
    """Return an encoder model's vectors of texts, float32 (n, dimension)."""
    encoder = _encoder(model, threads=1, folder=folder)
    try:
        return encoder.encode(texts)
    finally:
        encoder.close()


@final
class SemanticCacheEngine:
    """Loads each cache with a store of its own, in a temporary folder: for timing, and for trying it out."""

    name = "semantic_cache"

    def __init__(self, *, stored: Sequence[str] = ()) -> None:
        self._stored = stored

    def load(self, model: Model, *, threads: int, folder: Path) -> Answerer:
        """Return the cache as an answerer; see `halve.core.Engine`."""
        shared = SharedCache(model, folder=folder)
        try:
            shared.fill(self._stored)
            return shared.answerer(threads=threads, owns=True)
        except BaseException:
            shared.close()
            raise


@final
class SharedCache:
    """One cache that every replica of this process asks, and that remembers what the last model answered.

    Args:
        model: Its files: an encoder, a tokenizer and a policy.
        folder: What their paths are relative to.
        location: A SQLite file, or a `postgresql://` address; None is a temporary file, gone when it is closed.
        data_version: Of what answers depend on: answers of another version are never found.

    Raises:
        ModelError: If a file is missing or changed.
        MissingExtraError: If the store's library is not installed.
        InvalidParameterError: If the store holds another encoder's vectors.
        StorageError: If the store cannot be opened.
    """

    def __init__(self, model: Model, *, folder: Path, location: str | None = None, data_version: str = "") -> None:
        self._model, self._folder, self._classes = model, folder, _classes(model)
        self._closing = ExitStack()
        self._policy, self._recent = _policy(model, folder), _Recent()
        encoder = _encoder(model, threads=1, folder=folder)
        self._closing.callback(encoder.close)
        digest, dimension = encoder.fingerprint.digest, encoder.fingerprint.dimension
        try:
            self._store = open_store(location, encoder=digest, dimension=dimension, closing=self._closing)
        except BaseException:
            self._closing.close()
            raise
        self._own, self._encoding = encoder, threading.Lock()
        self._cache = semantic.SemanticCache(
            store=self._store, encode=self._encode, on_vectors=self._policy, neighbours=_neighbours(model)
        )
        scope = semantic.Scope(tenant="", model=model.name, data_version=data_version, encoder=digest)
        self._partition = semantic.partition_key(scope)

    def fill(self, texts: Sequence[str]) -> None:
        """Store an arbitrary answer to each question."""
        if not texts:
            return
        now, vectors = time.time(), self._own.encode(texts)
        self._store.put_many(
            [
                semantic.NewEntry(
                    partition=self._partition,
                    key=exact_key(text),
                    text=text,
                    vector=vector,
                    answer="0",
                    answer_digest="0",
                    created_seconds=now,
                )
                for text, vector in zip(texts, vectors, strict=True)
            ]
        )

    def answerer(self, *, threads: int, owns: bool = False) -> Answerer:
        """Return an answerer for one replica, with an encoder of its own.

        Args:
            threads: Of the encoder.
            owns: Whether closing it closes this cache.
        """
        encoder = _encoder(self._model, threads=threads, folder=self._folder)
        return _CacheAnswerer(self, encoder, name=self._model.name, close=self.close if owns else None)

    def predict(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> Prediction:
        """Return the likeliest stored answers and how sure they are; even rows where nothing is stored."""
        answers, sure = np.zeros(len(texts), np.int64), np.zeros(len(texts))
        now = time.time()
        for row, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
            found = self._cache.lookup(self._partition, text, now_seconds=now, vector=vector)
            self._recent.keep(text, vector)
            if found.answer is not None:
                answers[row], sure[row] = int(json.loads(found.answer)), found.decision.probability
        return Prediction(answers=answers, probabilities=semantic.spread(answers, sure, classes=self._classes))

    def remember(self, payload: Payload, answer: CachedAnswer) -> None:
        """Store what the last model answered to a text; on disk when this returns. Safe from any thread."""
        text = str(payload)
        self._put(text, answer, self._recent.take(text))

    def close(self) -> None:
        """Write what is noted and close the store and the encoder. May be called twice."""
        self._closing.close()

    def _put(self, text: str, answer: CachedAnswer, vector: NDArray[np.float32] | None) -> None:
        if not isinstance(answer.answer, int):
            raise InvalidParameterError("answer", rule="a class: texts are not cached here", value=answer.answer)
        self._cache.put(
            self._partition,
            text,
            json.dumps(answer.answer),
            now_seconds=time.time(),
            vector=vector,
            answer_digest=str(answer.answer),
        )

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._encoding:
            return self._own.encode(texts)


@final
class _CacheAnswerer:
    """One replica's way into a shared cache."""

    def __init__(self, shared: SharedCache, encoder: Encoder, *, name: str, close: Callable[[], None] | None) -> None:
        self._shared, self._encoder, self._name, self._close = shared, encoder, name, close
        self._is_open = True

    def answer(self, payloads: Sequence[Payload]) -> Prediction:
        """Return the likeliest stored answer to each text; see `halve.core.Answerer`."""
        if not self._is_open:
            raise ModelError(f"model {self._name!r} is closed")
        for index, payload in enumerate(payloads):
            if not isinstance(payload, str):
                raise AnswerError(self._name, index=index, cause="payload must be a text. Got a tensor")
        texts = [str(payload) for payload in payloads]
        return self._shared.predict(texts, self._encoder.encode(texts))

    def close(self) -> None:
        """Close the encoder, and the cache if it is this replica's own."""
        self._is_open = False
        self._encoder.close()
        if self._close is not None:
            self._close()


def open_store(
    location: str | None, *, encoder: str, dimension: int, closing: ExitStack, limits: semantic.Limits | None = None
) -> semantic.EntryStore:
    """Return a store of entries.

    Args:
        location: A SQLite file, or a `postgresql://` address; None is a temporary file.
        encoder: Fingerprint of what makes its vectors.
        dimension: Of these.
        closing: Closes it, and removes what is temporary.
        limits: What it may hold; anything if None.

    Raises:
        MissingExtraError: If the store's library is not installed.
        InvalidParameterError: If it holds another encoder's vectors.
        StorageError: If it cannot be opened.
    """
    if location is None:
        folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="halve-cache-"))
        location = str(Path(folder) / "cache.sqlite")
    store: semantic.EntryStore
    if location.startswith(("postgresql://", "postgres://")):
        store = semantic.PostgresStore(location, encoder=encoder, dimension=dimension, limits=limits)
    else:
        store = semantic.SQLiteStore(Path(location), encoder=encoder, dimension=dimension, limits=limits)
    closing.callback(store.close)
    return store


@final
class _Recent:
    """Vectors of the latest questions, by text. Thread-safe."""

    def __init__(self) -> None:
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, text: str, vector: NDArray[np.float32]) -> None:
        with self._lock:
            self._vectors[text] = vector
            if len(self._vectors) > MOST_RECENT:
                self._vectors.popitem(last=False)

    def take(self, text: str) -> NDArray[np.float32] | None:
        with self._lock:
            return self._vectors.pop(text, None)


def _encoder(model: Model, *, threads: int, folder: Path) -> Encoder:
    pooling = model.recipe.parameters.get("pooling", "mean") if model.recipe else "mean"
    return load_encoder(model, threads=threads, folder=folder, pooling=cast("Pooling", pooling))


def _policy(model: Model, folder: Path) -> semantic.HitPolicy:
    paths = [file.path for file in model.files if file.path.endswith(f"/{POLICY_NAME}")]
    if len(paths) != 1:
        raise ModelError(f"files of model {model.name!r} must hold exactly one {POLICY_NAME}. Got {paths}.")
    try:
        return semantic.HitPolicy.from_document(json.loads((folder / paths[0]).read_text()))
    except (OSError, ValueError, InvalidParameterError) as error:
        raise ModelError(f"{paths[0]} of model {model.name!r} is no hit policy: {error}") from None


def _classes(model: Model) -> int:
    classes = model.recipe.parameters.get("classes") if model.recipe else None
    if not isinstance(classes, int) or classes < 1:
        raise ModelError(f"the recipe of model {model.name!r} must say how many classes there are. Got {classes!r}.")
    return classes


def _neighbours(model: Model) -> int:
    return int(model.recipe.parameters.get("neighbours", 8)) if model.recipe else 8
