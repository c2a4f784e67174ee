"""Makes models on a bench for levers, each in fp32 and in integers, and remembers why one could not be made."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from halve.chains.files import write_integers
from halve.chains.lesson import Inputs
from halve.chains.record import Scalar
from halve.core import Bench, BuildModel, Model, Recipe, TensorAnswerer
from halve.errors import InvalidParameterError, MissingExtraError, ModelError
from halve.techniques.compression import quantization

INTEGERS = "int8"


@dataclass(kw_only=True)
class Maker:
    """What a lever makes models with.

    Args:
        bench: Where they are remembered.
        technique: Of their recipes.
        problems: Why a model could not be made, by its name; one sentence each.
    """

    bench: Bench
    technique: str
    problems: dict[str, str] = field(default_factory=dict)

    def make(
        self, name: str, *, parent: Model, reads: Model, parameters: Mapping[str, Scalar], build: BuildModel
    ) -> list[Model]:
        """Return the model that `build` writes, and the same in integers; fewer where one cannot be made.

        Args:
            name: Of the fp32 model; `-int8` is added for the other.
            parent: What taught it, or what it was cut from.
            reads: The model whose preprocessing it shares.
            parameters: Of its recipe: other parameters make another model.
            build: Writes `model.onnx`.
        """
        tokenizer = [file for file in reads.files if file.path == reads.preprocess.tokenizer_file]
        wanted = Model(
            name=name,
            engine="onnxruntime",
            files=tuple(tokenizer),
            preprocess=reads.preprocess,
            parent=parent.name,
            recipe=Recipe(technique=self.technique, parameters={**parameters}),
        )
        made = self._made(wanted, build)
        if made is None:
            return []
        bits = quantization.weight_bits_for(quantization.detect_hardware()).bits
        integers = replace(
            wanted,
            name=f"{name}-{INTEGERS}",
            parent=name,
            recipe=Recipe(
                technique="quantization",
                parameters={**parameters, "weight_bits": bits, "chain": f"{self.technique} > quantization"},
            ),
        )
        rounded = self._made(integers, partial(_round, self.bench, made))
        return [made] if rounded is None else [made, rounded]

    def _made(self, wanted: Model, build: BuildModel) -> Model | None:
        try:
            return self.bench.make_model(wanted, build=build)
        except (ModelError, MissingExtraError, InvalidParameterError) as error:
            self.problems[wanted.name] = f"{wanted.name} could not be made: {str(error).rstrip('.')}"
            return None


def _round(bench: Bench, made: Model, folder: Path) -> None:
    path = next(file.path for file in made.files if file.path.endswith(".onnx"))
    source = (bench.model_folder(made) / path).parent
    answerer = bench.load(made)
    try:
        if not isinstance(answerer, TensorAnswerer):
            raise ModelError(f"model {made.name!r} shows no tensors to calibrate on")
        write_integers(folder, source=source, inputs=search_inputs(answerer, bench))
    finally:
        answerer.close()


def search_inputs(answerer: TensorAnswerer, bench: Bench, *, rows: int = 256) -> Inputs:
    """Return the tensors of the first search examples."""
    return answerer.inputs([example.payload for example in bench.workload.search[:rows]])
