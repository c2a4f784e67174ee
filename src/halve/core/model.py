"""A model as an artifact: what runs, where its bytes are, and the recipe that made it. Runs nothing itself."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EngineName = Literal["torch", "onnxruntime", "openvino", "openai_http", "recorded"]
"""Names of the engines in `halve.engines`; each runs one kind of model."""

RunnerName = EngineName | Literal["semantic_cache"]
"""What can stand behind a stage: an engine, or a semantic cache, which is an answerer like any other: an encoder, a
policy that says how likely a stored answer is right, and a store that the serving process fills."""


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """One file of a model, relative to the folder that holds the stack or the run."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a payload becomes the model's input tensors.

    Args:
        kind: `tensor` passes arrays through as float32; `wordpiece` tokenizes text with a Hugging Face
            tokenizers file into `input_ids` and `attention_mask`, both int64 of shape (batch, tokens).
        tokenizer_file: For `wordpiece`: the `tokenizer.json`, one of the model's files.
        max_tokens: For `wordpiece`: longer texts are cut to this many tokens.
    """

    kind: Literal["tensor", "wordpiece"] = "tensor"
    tokenizer_file: str | None = None
    max_tokens: int = 64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model was made from its parent: enough to make it again."""

    technique: str
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A runnable artifact.

    Args:
        name: Unique within a stack.
        engine: Which engine runs it; `semantic_cache` for a cache that answers.
        files: Its bytes, each with its SHA-256. Never pickled: ONNX, safetensors, GGUF, Parquet or JSON.
        entry: `module:function` that builds it, for models that are Python code. Only a config can
            set it, because its author runs it; a stack file or run folder is refused if it does.
        preprocess: How payloads become tensors.
        parent: Name of the model that this one was made from.
        recipe: How it was made.
        answers_singly: Its answer to a payload depends on what shares the batch (dynamic quantization takes
            the range of a whole batch), so it is measured and run in batches of one.
    """

    name: str
    engine: RunnerName
    files: tuple[ModelFile, ...] = ()
    entry: str | None = None
    preprocess: Preprocess = field(default_factory=Preprocess)
    parent: str | None = None
    recipe: Recipe | None = None
    answers_singly: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes on disk of all its files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over engine, file hashes, entry and preprocessing: the same answers, the same fingerprint."""
        identity = {
            "engine": self.engine,
            "files": sorted(file.sha256 for file in self.files),
            "entry": self.entry,
            "preprocess": [self.preprocess.kind, self.preprocess.max_tokens],
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
