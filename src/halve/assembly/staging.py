"""A model that a caller names or hands over, staged in a folder of its own: loadable, hashed, with its tokenizer."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from halve.assembly import entries
from halve.core import Answerer, EngineName, Model, Preprocess, TensorAnswerer
from halve.engines import engine
from halve.errors import InvalidParameterError, ModelError
from halve.measure.artifacts import adopt_files

if TYPE_CHECKING:
    from torch import nn

TOKENIZER, SOURCE, WEIGHTS, ENDPOINT = "tokenizer.json", "source.onnx", "weights.safetensors", "endpoint.json"


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A model ready to be loaded.

    Args:
        model: File paths are relative to `folder`; its fingerprint changes with every weight.
        folder: Holds its files.
        load: Loads it on one thread.
    """

    model: Model
    folder: Path
    load: Callable[[], Answerer]

    @contextmanager
    def opened(self) -> Iterator[TensorAnswerer]:
        """Give the model loaded, for its tensors and for what its engine runs.

        Raises:
            ModelError: If it shows none.
        """
        answerer = self.load()
        try:
            if not isinstance(answerer, TensorAnswerer):
                raise ModelError(f"model {self.model.name!r} shows no tensors to calibrate or train on")
            yield answerer
        finally:
            answerer.close()


def stage(
    given: "str | Path | nn.Module",
    folder: Path,
    *,
    tokenizer: str | Path | None = None,
    max_tokens: int = 64,
    field: str = "model",
    endpoints: bool = False,
) -> Staged:
    """Return the model staged in an existing, empty folder.

    Args:
        given: An ONNX file, `module:function` returning a torch module, or the module itself in evaluation mode.
        folder: Where its files go.
        tokenizer: For texts: a `tokenizer.json`, or `module:function` returning its path.
        max_tokens: Longer texts are cut.
        field: For messages.
        endpoints: Whether a .json file that describes an OpenAI-compatible endpoint will do.

    Raises:
        UserError: If there is no such file, or the code cannot be run.
    """
    text = str(given) if isinstance(given, str | Path) else ""
    entry = text if is_entry(text) else None
    kind: EngineName = "torch"
    if text and entry is None:
        kind = _staged_file(Path(text), folder, field=field, endpoints=endpoints)
    preprocess = _staged_tokenizer(tokenizer, folder, max_tokens=max_tokens)
    model = Model(
        name=name_of(given),
        engine=kind,
        files=adopt_files(folder, relative_to=folder),
        entry=entry,
        preprocess=preprocess,
    )
    if kind != "torch":
        return Staged(model=model, folder=folder, load=lambda: engine(kind).load(model, threads=1, folder=folder))
    return _staged_module(given, model, folder)


def _staged_module(given: object, model: Model, folder: Path) -> Staged:
    """Return a torch module with its weights beside it, so that its fingerprint is of what it answers."""
    from halve.engines.torch import answerer_of, build_module, save_weights

    module = build_module(model) if model.entry else given
    module = module.eval() if model.entry else module  # type: ignore[attr-defined]
    answerer_of(module, model, folder=folder).close()  # refuses what is no module in evaluation mode
    save_weights(module, folder / WEIGHTS)  # type: ignore[arg-type]
    hashed = Model(
        name=model.name,
        engine="torch",
        files=adopt_files(folder, relative_to=folder),
        entry=model.entry,
        preprocess=model.preprocess,
    )
    return Staged(model=hashed, folder=folder, load=lambda: answerer_of(module, hashed, folder=folder))


def _staged_file(path: Path, folder: Path, *, field: str, endpoints: bool) -> EngineName:
    if not path.is_file():
        known = "an ONNX file, an endpoint's .json file, or module:function" if endpoints else None
        rule = known or "an ONNX file, or module:function"
        raise InvalidParameterError(field, rule=rule, value=str(path))
    if endpoints and path.suffix == ".json":
        shutil.copyfile(path, folder / ENDPOINT)
        return "openai_http"
    shutil.copyfile(path, folder / SOURCE)
    return "onnxruntime"


def _staged_tokenizer(tokenizer: str | Path | None, folder: Path, *, max_tokens: int) -> Preprocess:
    if tokenizer is None:
        return Preprocess()
    named = str(tokenizer)
    path = Path(str(entries.call(named, field="tokenizer")) if is_entry(named) else named)
    if not path.is_file():
        raise InvalidParameterError("tokenizer", rule="a tokenizer.json", value=str(path))
    shutil.copyfile(path, folder / TOKENIZER)
    return Preprocess(kind="wordpiece", tokenizer_file=TOKENIZER, max_tokens=max_tokens)


def is_entry(text: str) -> bool:
    """Return whether a text names a Python function rather than a file."""
    return ":" in text and not Path(text).exists()


def name_of(given: object) -> str:
    """Return what to call a model: its function, its file or its class."""
    if isinstance(given, str) and is_entry(given):
        return given.rpartition(":")[2]
    return Path(given).stem if isinstance(given, str | Path) else type(given).__name__
