"""Payloads to input tensors: arrays pass through as float32, texts through a Hugging Face tokenizers file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.core import Model, Payload, stack_payloads
from halve.errors import InvalidParameterError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKEN_MULTIPLE = 8
"""Texts are padded to a multiple of this many tokens, so that few distinct shapes reach the runtime."""

Prepare = Callable[[Sequence[Payload]], dict[str, NDArray[Any]]]
"""Payloads to named input tensors, batch axis first."""


def preparation(model: Model, files: dict[str, Path]) -> Prepare:
    """Return what turns payloads into this model's inputs: `input`, or `input_ids` and `attention_mask`.

    Raises:
        ModelError: If the tokenizer file is not one of the model's files, or cannot be read.
        MissingExtraError: If text is asked for and `tokenizers` is not installed.
    """
    if model.preprocess.kind == "tensor":
        return _prepare_tensor
    return WordPiece(model, files)


def _prepare_tensor(payloads: Sequence[Payload]) -> dict[str, NDArray[Any]]:
    return {"input": stack_payloads(payloads)}


class WordPiece:
    """Tokenizes texts, cut at `max_tokens`, padded to the longest of the batch rounded up to TOKEN_MULTIPLE.

    One text at a time on the calling thread: `tokenizers` starts its own threads only for batches, and they
    would compete with the model's.
    """

    def __init__(self, model: Model, files: dict[str, Path]) -> None:
        name = model.preprocess.tokenizer_file
        if name is None or name not in files:
            rule = f"one of the files of model {model.name!r}, {sorted(files)}"
            raise ModelError(f"preprocess.tokenizer_file must be {rule}. Got {name!r}.")
        self._max_tokens = model.preprocess.max_tokens
        if self._max_tokens < 1:
            raise InvalidParameterError("preprocess.max_tokens", rule="at least 1", value=self._max_tokens)
        self._tokenizer = _load_tokenizer(files[name], owner=model.name)
        self._pad_id = _pad_id(self._tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=self._max_tokens)

    def __call__(self, payloads: Sequence[Payload]) -> dict[str, NDArray[Any]]:
        """Return `input_ids` and `attention_mask`, int64 (batch, tokens)."""
        if not all(isinstance(payload, str) for payload in payloads):
            raise InvalidParameterError("payload", rule="a text for this model", value="a tensor")
        rows = [self._tokenizer.encode(payload).ids for payload in payloads]
        longest = max((len(row) for row in rows), default=0)
        tokens = min(-(-max(longest, 1) // TOKEN_MULTIPLE) * TOKEN_MULTIPLE, self._max_tokens)
        input_ids = np.full((len(rows), tokens), self._pad_id, dtype=np.int64)
        attention_mask = np.zeros((len(rows), tokens), dtype=np.int64)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = row
            attention_mask[index, : len(row)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}


def _load_tokenizer(path: Path, *, owner: str) -> "Tokenizer":
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtraError("text input", package="tokenizers", extra="onnx") from None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for every unreadable file.
        raise ModelError(f"{path.name} of model {owner!r} is not a tokenizers file: {error}.") from error


def _pad_id(tokenizer: "Tokenizer") -> int:
    padding = tokenizer.padding
    if padding is not None:
        return int(padding["pad_id"])
    for token in ("[PAD]", "<pad>"):
        number = tokenizer.token_to_id(token)
        if number is not None:
            return int(number)
    return 0
