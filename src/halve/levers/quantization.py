"""Quantization: the same models in ONNX Runtime, in fp32 and in INT8 for this host's instruction set."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from halve.core import Bench, Change, Model, Recipe, Stack, TensorAnswerer
from halve.errors import MissingExtraError, ModelError
from halve.techniques.compression import quantization as technique

CALIBRATION_EXAMPLES, BATCH = 256, 32
KINDS = {"fp32": "ONNX Runtime fp32", "int8-static": "static INT8", "int8-dynamic": "dynamic INT8"}
STATIC = technique.Order(method="auto", accept_slower=True)
DYNAMIC = technique.Order(method="dynamic", accept_slower=True)
"""One that is slower is for the gate to judge: it sees the whole fleet."""


class Quantization:
    """Proposes every model of the stack as fp32, static INT8, dynamic INT8, and each as its fastest kind."""

    name = "quantization"

    def __init__(self) -> None:
        self._problems: dict[str, str] = {}

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield the mixes from least to most change; models that cannot be converted stay as they are."""
        made = {model.name: self._variants(model, bench) for model in stack.models}
        mixes = [dict.fromkeys(made, kind) for kind in KINDS]
        mixes.append({name: _fastest(kinds, bench) for name, kinds in made.items() if kinds})
        seen = [stack]
        for mix in mixes:
            swaps = {name: made[name][kind] for name, kind in mix.items() if kind in made[name]}
            after = stack
            for name, new in swaps.items():
                after = after.with_model(name, new)
            if after not in seen:
                seen.append(after)
                parts = ", ".join(f"{name} as {KINDS[mix[name]]}" for name in swaps)
                here = technique.weight_bits_for(technique.detect_hardware())
                reason = "; ".join([here.reason, *self._problems.values()])
                yield Change(lever=self.name, description=parts, before=stack, after=after, reason=reason)

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say why nothing was proposed."""
        return "; ".join(self._problems.values()) or "every model of the stack was converted already"

    def _variants(self, model: Model, bench: Bench) -> dict[str, Model]:
        """Return the kinds made of a model that the user brought; none of a model that was made from one."""
        if model.recipe is None or model.recipe.technique != "given":
            return {}
        made: dict[str, Model] = {}
        for kind in KINDS if model.engine == "torch" else list(KINDS)[1:]:
            if kind != "fp32" and model.engine == "torch" and "fp32" not in made:
                break
            wanted = self._wanted(kind, parent=model)
            try:
                made[kind] = bench.make_model(wanted, build=partial(_build, kind, model, made.get("fp32"), bench))
            except (ModelError, MissingExtraError) as error:
                self._problems[wanted.name] = f"{wanted.name} could not be made: {error}"
        return made

    def _wanted(self, kind: str, *, parent: Model) -> Model:
        bits = 32 if kind == "fp32" else technique.weight_bits_for(technique.detect_hardware()).bits
        parameters: dict[str, str | int] = {"kind": kind, "weight_bits": bits, "calibration": CALIBRATION_EXAMPLES}
        return Model(
            name=f"{parent.name}-{kind}",
            engine="onnxruntime",
            files=tuple(file for file in parent.files if file.path == parent.preprocess.tokenizer_file),
            preprocess=parent.preprocess,
            parent=parent.name,
            recipe=Recipe(technique=self.name, parameters={**parameters}),
            answers_singly=kind == "int8-dynamic",
        )


def _build(kind: str, parent: Model, fp32: Model | None, bench: Bench, folder: Path) -> None:
    """Convert the parent; it is loaded only here, so that a run that goes on loads nothing."""
    answerer = bench.load(parent)
    try:
        if not isinstance(answerer, TensorAnswerer):
            raise ModelError(f"model {parent.name!r} shows no tensors to convert")
        payloads = [example.payload for example in bench.workload.search[:CALIBRATION_EXAMPLES]]
        batches = [answerer.inputs(payloads[at : at + BATCH]) for at in range(0, len(payloads), BATCH)]
        if kind == "fp32":
            technique.export_onnx(answerer.runtime_model, batches[0], folder / "model.onnx")
            return
        given = [file.path for file in fp32.files if file.path.endswith(".onnx")] if fp32 is not None else []
        source = bench.model_folder(parent) / given[0] if given else answerer.runtime_model
        data, order = technique.Data(batches=batches), STATIC if kind == "int8-static" else DYNAMIC
        timer = partial(bench.seconds, f"{parent.name}-{kind}", measure=technique.interleaved_seconds)
        technique.write_artifact(order, folder, model=source, data=data, timer=timer)
    finally:
        answerer.close()


def _fastest(made: dict[str, Model], bench: Bench) -> str:
    curves = {kind: bench.service_curve(model, threads=1) for kind, model in made.items()}
    return min(curves, key=lambda kind: float(curves[kind].median_seconds[-1]) / curves[kind].max_batch_size)
