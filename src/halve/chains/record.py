"""How a model was made, step by step: `recipe.json` beside its files. Enough to make it again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from halve.core.documents import dumps, load_json, replace_file

FILE_NAME = "recipe.json"
VERSIONED = ("halve", "numpy", "onnx", "onnxruntime", "torch", "torch-pruning")

Scalar = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class ChainStep:
    """One technique of a chain.

    Args:
        technique: `pruning`, `distillation`, `quantization`, `mixture_of_experts`.
        parameters: What was asked for.
        figures: What came out of it, measured.
    """

    technique: str
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ChainRecord:
    """All that a model was made from.

    Args:
        parent, parent_fingerprint: The model that taught it, or that it was cut from.
        training_sha256: Of the payloads it was trained on.
        n_training: How many.
        seed: Of everything that drew.
        steps: In order.
        versions: Of the libraries that made it, by name.
    """

    schema: Literal["halve.recipe/1"] = "halve.recipe/1"
    parent: str
    parent_fingerprint: str
    training_sha256: str
    n_training: int
    seed: int
    steps: tuple[ChainStep, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def chain(self) -> str:
        """The techniques in order: `pruning > distillation > quantization`."""
        return " > ".join(step.technique for step in self.steps)

    def with_step(self, step: ChainStep) -> "ChainRecord":
        """Return the record with one more step."""
        return replace(self, steps=(*self.steps, step))

    def write(self, folder: Path) -> None:
        """Write `recipe.json`; StorageError if it cannot be written."""
        with replace_file(folder / FILE_NAME) as partial:
            partial.write_text(dumps(replace(self, versions=_versions()), indent=2) + "\n")


def read_record(folder: Path) -> ChainRecord:
    """Return the record of a model's folder; RunFolderError if it is missing or damaged."""
    return load_json(ChainRecord, folder / FILE_NAME)


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
