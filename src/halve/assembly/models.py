"""Models that a config names become models with files in the run folder."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from halve.assembly import entries
from halve.assembly.config import EncoderConfig, ModelConfig
from halve.core import BuildModel, Model, Recipe
from halve.errors import ConfigError

_TOKENIZER = "tokenizer.json"
_SAMPLES = (
    "what is the weather like today",
    "a much longer question, of some twenty words, that shows how padding is used",
)


class MakeModel(Protocol):
    """`Bench.make_model`."""

    def __call__(self, model: Model, *, build: BuildModel) -> Model:
        """Return the model with its files, built at most once."""
        ...


def adopt_model(given: ModelConfig, *, folder: Path, make: MakeModel) -> Model:
    """Return the user's model with its weights (or ONNX file) and tokenizer copied into the run.

    Args:
        given: From the config.
        folder: Of the config; paths are relative to it.
        make: Builds files at most once for this recipe.
    """
    source = _source(given, folder)
    model = Model(
        name=given.name,
        engine="torch" if given.entry else "onnxruntime",
        entry=given.entry,
        recipe=Recipe(technique="given", parameters={"source": source}),
    )

    def build(target: Path) -> None:
        if given.entry is None:
            shutil.copyfile(folder / str(given.file), target / "model.onnx")
        else:
            from halve.engines.torch import build_module, save_weights

            save_weights(build_module(model), target / "weights.safetensors")
        if given.preprocess.kind == "wordpiece":
            shutil.copyfile(_tokenizer(given, folder), target / _TOKENIZER)

    made = make(model, build=build)
    return replace(made, preprocess=replace(given.preprocess, tokenizer_file=_path_of(made, _TOKENIZER)))


def adopt_encoder(given: EncoderConfig, *, folder: Path, make: MakeModel) -> Model:
    """Return the user's encoder as an ONNX file with its tokenizer; arguments as in `adopt_model`.

    Raises:
        ModelError: If a torch encoder gives no vector per text, or cannot be exported.
    """
    named = ModelConfig(name="encoder", file=given.file, entry=given.entry, preprocess=given.preprocess)
    parameters = {"source": _source(named, folder), "pooling": given.pooling}
    model = Model(name="encoder", engine="onnxruntime", recipe=Recipe(technique="given", parameters=parameters))

    def build(target: Path) -> None:
        shutil.copyfile(_tokenizer(named, folder), target / _TOKENIZER)
        if given.entry is None:
            shutil.copyfile(folder / str(given.file), target / "model.onnx")
        else:
            _export_encoder(given, target)

    made = make(model, build=build)
    return replace(made, preprocess=replace(given.preprocess, tokenizer_file=_path_of(made, _TOKENIZER)))


def _export_encoder(given: EncoderConfig, target: Path) -> None:
    from halve.engines.preprocess import WordPiece
    from halve.engines.torch import build_module
    from halve.techniques.compression.quantization import export_onnx

    module = build_module(Model(name="encoder", engine="torch", entry=given.entry)).eval()
    preprocess = replace(given.preprocess, tokenizer_file=_TOKENIZER)
    tokenize = WordPiece(
        Model(name="encoder", engine="torch", preprocess=preprocess), {_TOKENIZER: target / _TOKENIZER}
    )
    export_onnx(module, tokenize(list(_SAMPLES)), target / "model.onnx")


def _path_of(model: Model, file_name: str) -> str | None:
    return next((file.path for file in model.files if file.path.endswith(f"/{file_name}")), None)


def _source(given: ModelConfig, folder: Path) -> str:
    """Return a hash of where the model comes from: its file, or the code that builds it."""
    field = f"model {given.name}"
    if given.entry is not None:
        return entries.source_hash(given.entry, field=f"{field}.entry")
    path = folder / str(given.file)
    if not path.is_file():
        raise ConfigError(f"{field}.file", [f"there is no file {path}."])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tokenizer(given: ModelConfig, folder: Path) -> Path:
    named, field = given.preprocess.tokenizer_file, f"model {given.name}.preprocess.tokenizer_file"
    if named is None:
        raise ConfigError(field, ["it must be given for kind wordpiece."])
    path = Path(str(entries.call(named, field=field))) if ":" in named else folder / named
    if not path.is_file():
        raise ConfigError(field, [f"there is no file {path}."])
    return path
