"""Encoders: an ONNX model with its tokenizer, a sentence-transformers folder, or a server with `/v1/embeddings`."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, final

import numpy as np
from numpy.typing import NDArray

from halve.core import EncoderFingerprint, Model, ModelFile, Pooling, Preprocess
from halve.engines.files import only_file, verified_files
from halve.engines.http_json import HttpError, JsonClient, Policy
from halve.engines.onnxruntime import open_session
from halve.engines.preprocess import WordPiece
from halve.errors import AnswerError, InvalidParameterError, ModelError

EMBEDDINGS_PATH = "/embeddings"
BATCH = 32
MAX_TOKENS = 256
_RANK_POOLED, _RANK_STATES = 2, 3
_TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def load_encoder(model: Model, *, threads: int = 1, folder: Path, pooling: Pooling = "mean") -> "OnnxEncoder":
    """Return the encoder in a model's ONNX file, on this machine.

    Args:
        model: One `.onnx` file and a wordpiece tokenizer.
        threads: Of one call, >= 1.
        folder: What the model's file paths are relative to.
        pooling: Of token states (batch, tokens, d); a graph that gives (batch, d) has pooled already.

    Raises:
        ModelError: If a file is missing or changed, or the graph takes or gives something else.
        MissingExtraError: If onnxruntime or tokenizers is not installed.
    """
    if threads < 1:
        raise InvalidParameterError("threads", rule="at least 1", value=threads)
    files = verified_files(model, folder=folder)
    session = open_session(only_file(model, files, suffix=".onnx"), threads=threads, owner=model.name)
    digest = hashlib.sha256("".join(sorted(file.sha256 for file in model.files)).encode()).hexdigest()
    return OnnxEncoder(model, session=session, tokenize=WordPiece(model, files), pooling=pooling, sha256=digest)


def open_encoder_folder(folder: Path, *, threads: int = 1) -> "OnnxEncoder":
    """Return the encoder of a sentence-transformers folder, or of any with `model.onnx` and `tokenizer.json`.

    `onnx/model.onnx` or `model.onnx`; pooling from `1_Pooling/config.json`, length from
    `sentence_bert_config.json` where they are there: mean and 256 tokens otherwise.

    Raises:
        ModelError: If a file is missing; a folder with safetensors alone must be exported to ONNX first.
    """
    graph = next((path for path in (folder / "onnx" / "model.onnx", folder / "model.onnx") if path.is_file()), None)
    if graph is None or not (folder / "tokenizer.json").is_file():
        rule = "hold model.onnx (or onnx/model.onnx) and tokenizer.json"
        raise ModelError(f"{folder} must {rule}. Got {_names(folder)}.")
    files = tuple(_hashed(path, folder) for path in (graph, folder / "tokenizer.json"))
    settings = _json(folder / "1_Pooling" / "config.json")
    cut = int(_json(folder / "sentence_bert_config.json").get("max_seq_length") or MAX_TOKENS)
    model = Model(
        name=folder.name,
        engine="onnxruntime",
        files=files,
        preprocess=Preprocess(kind="wordpiece", tokenizer_file="tokenizer.json", max_tokens=cut),
    )
    pooling: Pooling = "cls" if settings.get("pooling_mode_cls_token") else "mean"
    return load_encoder(model, threads=threads, folder=folder, pooling=pooling)


@final
class OnnxEncoder:
    """A session, its tokenizer, and how its output becomes one vector per text."""

    def __init__(self, model: Model, *, session: Any, tokenize: WordPiece, pooling: Pooling, sha256: str) -> None:
        self._name, self._tokenize = model.name, tokenize
        self._session: Any = session
        self._inputs = [node.name for node in session.get_inputs()]
        if not {"input_ids"} <= set(self._inputs) <= set(_TEXT_INPUTS):
            rule = f"among {', '.join(_TEXT_INPUTS)}, with input_ids"
            raise ModelError(f"inputs of encoder {model.name!r} must be {rule}. Got {self._inputs}.")
        shape = self._run(["a"])[0].shape
        if len(shape) not in (_RANK_POOLED, _RANK_STATES):
            rule = "(batch, dimension) or (batch, tokens, dimension)"
            raise ModelError(f"the first output of encoder {model.name!r} must be {rule}. Got {shape}.")
        self._pooling: Pooling = "none" if len(shape) == _RANK_POOLED else pooling
        if len(shape) == _RANK_STATES and pooling == "none":
            rule = "mean or cls for a graph that gives token states"
            raise InvalidParameterError("pooling", rule=rule, value=pooling)
        self._fingerprint = EncoderFingerprint(
            model_sha256=sha256,
            dimension=int(shape[-1]),
            pooling=self._pooling,
            is_normalized=True,
            max_tokens=model.preprocess.max_tokens,
        )

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """See `halve.core.Encoder`."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `halve.core.Encoder`; texts of like length share a batch."""
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise AnswerError(self._name, index=index, cause="payload must be a text. Got a tensor")
        vectors = np.empty((len(texts), self._fingerprint.dimension), np.float32)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(texts), BATCH):
            rows = order[start : start + BATCH]
            vectors[rows] = self._pooled(*self._run([texts[row] for row in rows]))
        return _unit(vectors, owner=self._name)

    def inputs(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return what the graph gets for texts, padded to the longest: for calibration."""
        return self._named(self._tokenize(texts))

    def close(self) -> None:
        """Give back the session's memory and threads."""
        self._session = None

    def _run(self, texts: list[str]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self._session is None:
            raise ModelError(f"encoder {self._name!r} is closed")
        tensors = self._tokenize(texts)
        output = self._session.run(None, self._named(tensors))[0]
        return np.asarray(output, np.float32), tensors["attention_mask"]

    def _named(self, tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        tensors = {**tensors, "token_type_ids": np.zeros_like(tensors["input_ids"])}
        return {name: tensors[name] for name in self._inputs}

    def _pooled(self, output: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        if self._pooling == "none":
            return output
        if self._pooling == "cls":
            return output[:, 0]
        kept = mask[:, :, None].astype(np.float32)
        pooled: NDArray[np.float32] = (output * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)
        return pooled


@final
class EndpointEncoder:
    """Asks a server with OpenAI-compatible embeddings.

    Args:
        url: Of the server, with `/v1` where it has one.
        model: As the server names it.
        key: Sent as a bearer token, if given.
        timeout_seconds: Of one request, > 0.

    Raises:
        ModelError: If the server cannot be reached or gives no vectors.
    """

    def __init__(self, url: str, *, model: str, key: str | None = None, timeout_seconds: float = 30.0) -> None:
        self._name, self._model = f"{model} at {url}", model
        self._client = JsonClient(url, policy=_policy(timeout_seconds), key=key)
        try:
            first = self._ask(["a"])
        except HttpError as error:
            self._client.close()
            raise ModelError(f"encoder {self._name} gives no vectors: {error.cause}") from None
        self._fingerprint = EncoderFingerprint(
            model_sha256=hashlib.sha256(f"{url}\n{model}".encode()).hexdigest(),
            dimension=first.shape[1],
            pooling="none",
            is_normalized=True,
            max_tokens=0,
        )

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """Of address and name: a server that changes its model behind them must be given another name."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `halve.core.Encoder`."""
        vectors = np.empty((len(texts), self._fingerprint.dimension), np.float32)
        for start in range(0, len(texts), BATCH):
            part = list(texts[start : start + BATCH])
            try:
                vectors[start : start + BATCH] = self._ask(part)
            except (HttpError, ValueError) as error:
                raise AnswerError(self._name, index=start, cause=str(error)) from None
        return _unit(vectors, owner=self._name)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, texts: list[str]) -> NDArray[np.float32]:
        reply = self._client.post(EMBEDDINGS_PATH, {"model": self._model, "input": texts})
        try:
            rows = sorted(reply["data"], key=lambda row: int(row["index"]))
            vectors = np.asarray([row["embedding"] for row in rows], np.float32)
        except (KeyError, TypeError, ValueError):
            raise HttpError("the reply must hold data, each with index and embedding") from None
        if vectors.ndim != _RANK_POOLED or len(vectors) != len(texts):
            raise HttpError(f"the reply must hold {len(texts)} vectors. Got an array of shape {vectors.shape}")
        return vectors


def _policy(timeout_seconds: float) -> Policy:
    if not timeout_seconds > 0:
        raise InvalidParameterError("timeout_seconds", rule="above 0", value=timeout_seconds)
    return Policy(timeout_seconds=timeout_seconds, retries=2, backoff_seconds=0.5)


def _unit(vectors: NDArray[np.float32], *, owner: str) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = ~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0)
    if bad.any():
        raise AnswerError(owner, index=int(np.argmax(bad)), cause="its vector is zero, NaN or infinite")
    return cast("NDArray[np.float32]", vectors / lengths)


def _hashed(path: Path, folder: Path) -> ModelFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return ModelFile(path=str(path.relative_to(folder)), sha256=digest, size_bytes=path.stat().st_size)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}.") from None
    return found if isinstance(found, dict) else {}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ["no such folder"]
