"""A torch module as an fp32 ONNX file that answers the same, and whose bytes depend on nothing but the module."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, MissingExtraError, ModelError
from halve.techniques.compression.quantization.runtime import run_logits

if TYPE_CHECKING:
    from torch import nn

OPSET = 18
"""The opset that torch's exporter writes without converting."""

PARITY_TOLERANCE = 1e-3
"""Largest difference of a logit from the module's, over the largest logit: rounding stays 100 times below."""

Inputs = Mapping[str, NDArray[Any]]
"""Named input tensors, batch axis first, in the order that `forward` takes them."""


_TALKATIVE = (
    "torch.onnx._internal.exporter._registration",  # "torchvision is not installed", four times
    "torch.fx.experimental.symbolic_shapes",  # a value that decides where the graph goes
)


def export_onnx(module: object, inputs: Inputs, path: Path, *, tolerance: float = PARITY_TOLERANCE) -> None:
    """Write the module as ONNX, batch axis free (and the token axis of 2-D integer inputs), output `logits`.

    The file is checked by `onnx.checker`, then run beside the module on the inputs at several batch sizes.
    The same module gives the same bytes: stack traces, source paths and doc strings are taken out.

    Args:
        module: In evaluation mode, on the CPU; returns logits, float32 (batch, classes).
        inputs: Real inputs, at least one row; their names become the graph's.
        path: Where the file goes.
        tolerance: Largest |difference| of a logit over the largest |logit|, > 0.

    Raises:
        InvalidParameterError: If it is no torch module, is in training mode, or the inputs hold no row.
        ModelError: If torch cannot export the module, or the file does not answer as the module does.
        MissingExtraError: If torch, onnx, onnxscript or onnxruntime is not installed.
    """
    onnx, nn = _require_onnx()
    if not isinstance(module, nn.Module):
        raise InvalidParameterError("module", rule="a torch.nn.Module", value=type(module).__name__)
    if module.training:
        raise InvalidParameterError("module", rule="in evaluation mode", value="training", hint="Call module.eval().")
    if not inputs or min(len(array) for array in inputs.values()) == 0:
        raise InvalidParameterError("inputs", rule="at least one row", value={k: v.shape for k, v in inputs.items()})
    model = _trace(module, inputs)
    _strip(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # checker and shape inference raise two unrelated classes.
        raise ModelError(f"the exported graph is not valid ONNX: {error}") from error
    content: bytes = model.SerializeToString(deterministic=True)
    _check_parity(module, content, inputs, tolerance=tolerance)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _require_onnx() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        from torch import nn
    except ImportError as error:
        raise MissingExtraError("ONNX export", package=str(error.name), extra="onnx,torch") from None
    return onnx, nn


def _trace(module: "nn.Module", inputs: Inputs) -> Any:
    """Return the module's graph as an `onnx.ModelProto`."""
    import torch

    examples = {name: _at_least_two(array) for name, array in inputs.items()}
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                module,
                tuple(torch.from_numpy(array) for array in examples.values()),
                dynamo=True,
                dynamic_shapes=tuple(_free_axes(array) for array in examples.values()),
                input_names=list(examples),
                output_names=["logits"],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # torch.onnx and torch.export raise many classes, some of them private.
        raise ModelError(f"torch cannot export {type(module).__name__}: {_last_line(error)}") from error
    if program is None:
        raise ModelError(f"torch cannot export {type(module).__name__}: it returned no program.")
    model = program.model_proto
    for node in model.graph.input:
        if not node.type.tensor_type.shape.dim[0].dim_param:
            raise ModelError(f"the batch axis of {node.name} was fixed by the module; forward must work for any batch.")
    return model


def _at_least_two(array: NDArray[Any]) -> NDArray[Any]:
    """Return at least 2 rows (and tokens): torch takes an axis of length 1 for a constant, not for a free one."""
    repeats = [2 if len(array) == 1 else 1] + [1] * (array.ndim - 1)
    if _has_token_axis(array) and array.shape[1] == 1:
        repeats[1] = 2
    return np.ascontiguousarray(np.tile(array, repeats))


def _free_axes(array: NDArray[Any]) -> dict[int, str]:
    return {0: "batch", 1: "tokens"} if _has_token_axis(array) else {0: "batch"}


def _has_token_axis(array: NDArray[Any]) -> bool:
    return array.ndim == 2 and np.issubdtype(array.dtype, np.integer)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide what the exporter says about its own insides; why it failed is in what it raises."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        # It prints the graph it could not guard.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(torch|onnxscript|onnx|copyreg)\b")
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
            warnings.filterwarnings("ignore", message="# The axis name: .* will not be used", category=UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _strip(model: Any) -> None:
    """Take out what tells of the machine that exported: stack traces, source paths, doc strings."""
    for owner in (model, model.graph, *model.functions):
        owner.ClearField("doc_string")
        owner.ClearField("metadata_props")
    graphs = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        for part in _parts(graph):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
        for node in graph.node:
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs


def _parts(graph: Any) -> Iterator[Any]:
    yield from graph.node
    yield from graph.value_info
    for kind in ("input", "output", "initializer"):
        yield from (part for part in getattr(graph, kind, ()) if not isinstance(part, str))


def _check_parity(module: "nn.Module", content: bytes, inputs: Inputs, *, tolerance: float) -> None:
    rows = min(len(array) for array in inputs.values())
    for batch in sorted({1, min(2, rows), rows}):
        part = {name: np.ascontiguousarray(array[:batch]) for name, array in inputs.items()}
        expected, actual = _module_logits(module, part), run_logits(content, [part])
        if actual.shape != expected.shape:
            raise ModelError(
                f"the exported model returns shape {actual.shape} where the module returns {expected.shape}."
            )
        scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
        difference = float(np.abs(actual - expected).max()) / scale
        if not difference <= tolerance:
            raise ModelError(
                f"logits of the exported model must be within {tolerance:g} of the module's, over the largest logit. "
                f"Got {difference:.3g} at batch {batch}."
            )


def _module_logits(module: "nn.Module", inputs: Inputs) -> NDArray[np.float32]:
    import torch

    # Copies, so that a module that works in place leaves the caller's inputs alone.
    copies = [torch.from_numpy(array.copy()) for array in inputs.values()]
    try:
        with torch.inference_mode():
            logits = module(*copies)
    except Exception as error:  # It is the user's own code.
        batch = len(copies[0])
        raise ModelError(f"{type(module).__name__} failed on a batch of {batch}: {_last_line(error)}") from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ModelError(f"the module must return logits of shape (batch, classes). Got {got}.")
    return np.asarray(logits.float().numpy(), dtype=np.float32)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
    return f"{type(error.__cause__ or error).__name__}: {lines[0] if lines else ''}"
