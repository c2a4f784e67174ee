"""INT8 after training, the plain way: an fp32 ONNX file in, a smaller and faster one out. Few choices are made here.

Static: the ranges of activations are seen on calibration inputs. Dynamic: each range is taken as the model runs, over
the whole batch, so answers depend on what shares it. Whether the result is worth its error is not judged here.
"""

import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from halve.errors import InvalidParameterError, MissingExtraError, ModelError
from halve.techniques.compression.quantization.affine import (
    ACTIVATIONS,
    WEIGHTS,
    Grid,
    QuantizedTensor,
    Scheme,
    quantize_tensor,
)
from halve.techniques.compression.quantization.agreement import Agreement, agreement
from halve.techniques.compression.quantization.calibration import Batches, fitted
from halve.techniques.compression.quantization.graph import Graph, Layer
from halve.techniques.compression.quantization.grids import (
    CONVOLUTIONAL_OPERATORS,
    DENSE_OPERATORS,
    RECTIFIERS,
    ObserverName,
    is_convolutional,
    static_grids,
)
from halve.techniques.compression.quantization.qdq import write_qdq
from halve.techniques.compression.quantization.runtime import run_logits

ActivationType = Literal["uint8", "int8"]
ACTIVATION_SCHEMES: dict[ActivationType, Scheme] = {
    "uint8": ACTIVATIONS,
    "int8": replace(ACTIVATIONS, signed=True),
}

INT8_ACTIVATION_GAIN = 0.8
"""Where both are tried, int8 activations must cut the error to this share of uint8's: their kernels are slower."""

MULTIPLYING = frozenset(
    {"Attention", "Conv", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"}
)
"""ONNX operators that multiply tensors: those not in integers are named in the result."""


@dataclass(frozen=True, kw_only=True)
class StaticQuantization:
    """What `quantize_static` chose, and how it did on its calibration inputs.

    Args:
        activation_type: As asked for, or chosen.
        weight_bits: As asked for.
        per_channel: Whether weights have one scale per output channel.
        agreement: With the fp32 model.
        left_in_fp32: Names of ONNX nodes that multiply and were left as they are: products of two activations,
            operators without an 8-bit kernel, a convolution that writes an output of the model.
    """

    activation_type: ActivationType
    weight_bits: int
    per_channel: bool
    agreement: Agreement
    left_in_fp32: tuple[str, ...] = ()


def quantize_static(
    fp32_path: Path,
    out_path: Path,
    *,
    calibration: Batches,
    weight_bits: int,
    per_channel: bool = True,
    activation_type: ActivationType | Literal["measured"] = "uint8",
    operators: Sequence[str] | None = None,
    observer: ObserverName = "minmax",
) -> StaticQuantization:
    """Write an INT8 model whose activation ranges were seen on calibration inputs (QDQ form).

    The same inputs give the same bytes.

    Args:
        fp32_path: The model, output `logits` or a single one.
        out_path: Where the INT8 model goes.
        calibration: Batches like the requests to come; 100 to 500 inputs are plenty.
        weight_bits: 8, or 7 where the processor's 8-bit products saturate; see `weight_bits_for`.
        per_channel: One weight scale per output channel instead of one per tensor.
        activation_type: Of activations. x86 kernels are 1.5 to 4 times faster on uint8 at the same error; "measured"
            tries both on the calibration inputs, through the runtime on this host, and keeps uint8 unless int8 cuts
            relative_rmse to INT8_ACTIVATION_GAIN of it.
        operators: ONNX operators to run in INT8; None is CONVOLUTIONAL_OPERATORS if the model holds Conv, else
            DENSE_OPERATORS. MatMuls of two activations stay fp32.
        observer: How the range of an activation is chosen.

    Raises:
        InvalidParameterError: If a parameter is none of its values, or the calibration is empty, not finite, or
            does not fit the model's inputs.
        ModelError: If the model cannot be loaded or run, holds nothing to quantize, or its weights or logits are
            not finite.
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    _check_weight_bits(weight_bits)
    if activation_type not in (*ACTIVATION_SCHEMES, "measured"):
        raise InvalidParameterError("activation_type", rule="uint8, int8 or measured", value=activation_type)
    graph = Graph.load(fp32_path)
    allowed = operators or (CONVOLUTIONAL_OPERATORS if is_convolutional(graph) else DENSE_OPERATORS)
    batches = fitted(graph.to_bytes(), calibration)
    expected = run_logits(fp32_path, batches)
    if not np.isfinite(expected).all():
        raise ModelError(f"logits of {fp32_path.name} on the calibration inputs must be finite. Got NaN or infinity.")
    scheme = replace(WEIGHTS, bits=weight_bits, axis=0 if per_channel else None)
    tried: dict[ActivationType, tuple[bytes, Agreement]] = {}
    for kind in ACTIVATION_SCHEMES if activation_type == "measured" else (activation_type,):
        grids = static_grids(graph, batches, observer=observer, scheme=ACTIVATION_SCHEMES[kind], operators=allowed)
        layers = integer_layers(graph, grids)
        if not layers:
            raise ModelError(
                f"{fp32_path.name} must hold {' or '.join(allowed)} with constant weights to be quantized."
            )
        weights = round_weights(graph, scheme, layers=layers)
        content = write_qdq(graph, weights=weights, activations=grids, only_products=not is_convolutional(graph))
        tried[kind] = (content, agreement(expected, run_logits(content, batches)))
    chosen = _better(tried) if activation_type == "measured" else activation_type
    _write(out_path, tried[chosen][0])
    return StaticQuantization(
        activation_type=chosen,
        weight_bits=weight_bits,
        per_channel=per_channel,
        agreement=tried[chosen][1],
        left_in_fp32=left_in_fp32(graph, {layer.name for layer in layers}),
    )


def _better(tried: Mapping[ActivationType, tuple[bytes, Agreement]]) -> ActivationType:
    error = {kind: agreement.relative_rmse for kind, (_, agreement) in tried.items()}
    return "int8" if error["int8"] < INT8_ACTIVATION_GAIN * error["uint8"] else "uint8"


def integer_layers(graph: Graph, grids: Mapping[str, Grid]) -> tuple[Layer, ...]:
    """Return the layers that have an integer kernel with these grids: a Conv needs one on what it writes, too."""
    return tuple(
        layer
        for layer in graph.layers
        if layer.input in grids and (layer.operator != "Conv" or _has_grid_behind(graph, layer, grids))
    )


def _has_grid_behind(graph: Graph, layer: Layer, grids: Mapping[str, Grid]) -> bool:
    readers = graph.consumers(layer.output)
    behind = {name for node in readers if len(readers) == 1 and node.op_type in RECTIFIERS for name in node.output}
    return layer.output not in graph.outputs and bool(({layer.output} | behind) & set(grids))


def round_weights(
    graph: Graph, scheme: Scheme = WEIGHTS, *, layers: Collection[Layer] | None = None
) -> dict[str, QuantizedTensor]:
    """Return weights on the grid of their own range, rounded to nearest, by layer name.

    Args:
        graph: The fp32 model.
        scheme: Symmetric. An axis, whichever, means one scale per output channel; none means one scale.
        layers: Which; None is all.
    """
    rounded = {}
    for layer in graph.layers if layers is None else layers:
        own = scheme if scheme.axis is None else replace(scheme, axis=layer.output_axis)
        rounded[layer.name] = quantize_tensor(graph.constant(layer.weight), own)
    return rounded


def left_in_fp32(graph: Graph, layers: Collection[str]) -> tuple[str, ...]:
    """Return the names of all nodes that multiply but are none of these layers, in the order of the graph."""
    nodes = graph.proto.graph.node
    return tuple(node.name for node in nodes if node.op_type in MULTIPLYING and node.name not in layers)


def quantize_dynamic(fp32_path: Path, out_path: Path, *, weight_bits: int, per_channel: bool = True) -> None:
    """Write an INT8 model that takes the range of each activation as it runs: no calibration.

    Only DENSE_OPERATORS, by onnxruntime's own quantizer. Never Conv: ConvInteger is slower than fp32. The same model
    gives the same bytes.

    Args:
        fp32_path: The model.
        out_path: Where the INT8 model goes.
        weight_bits: 8, or 7 where the processor's 8-bit products saturate; see `weight_bits_for`.
        per_channel: One weight scale per output channel instead of one per tensor.

    Raises:
        InvalidParameterError: If weight_bits is not 7 or 8.
        ModelError: If the model cannot be loaded or quantized, its weights are not finite, or it has none of
            DENSE_OPERATORS with constant weights.
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    _check_weight_bits(weight_bits)
    graph = Graph.load(fp32_path)
    if not any(layer.operator in DENSE_OPERATORS for layer in graph.layers):
        raise ModelError(f"{fp32_path.name} must hold {' or '.join(DENSE_OPERATORS)} to be quantized dynamically.")
    with _quantizer(graph, fp32_path.name) as (quantization, prepared):
        target = prepared.with_name("dynamic.onnx")
        quantization.quantize_dynamic(
            prepared,
            target,
            op_types_to_quantize=list(DENSE_OPERATORS),
            per_channel=per_channel,
            reduce_range=weight_bits == 7,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        _write(out_path, _canonical(target))


def disagreement(fp32_path: Path, int8_path: Path, inputs: Batches) -> Agreement:
    """Compare two models through the deployed runtime on this host.

    Raises:
        InvalidParameterError: If there is no input.
        ModelError: If a model cannot be run, or their logits differ in shape.
    """
    return agreement(run_logits(fp32_path, inputs), run_logits(int8_path, inputs))


@contextmanager
def _quantizer(graph: Graph, name: str) -> Iterator[tuple[Any, Path]]:
    """Give `onnxruntime.quantization` and a file of the model, marked as prepared so that nothing is logged."""
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingExtraError("quantization", package=str(error.name), extra="onnx") from None
    with tempfile.TemporaryDirectory(prefix="halve-") as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(onnx|onnxruntime)\b")
        prepared = Path(folder) / "prepared.onnx"
        proto = graph.copy().proto
        onnx.helper.set_model_props(proto, {"onnx.quant.pre_process": "onnxruntime.quant"})
        prepared.write_bytes(proto.SerializeToString(deterministic=True))
        try:
            yield quantization, prepared
        except Exception as error:  # onnxruntime raises many classes, some of them private.
            raise ModelError(f"{name} cannot be quantized: {type(error).__name__}: {error}") from error


def _canonical(path: Path) -> bytes:
    """Return the model's bytes, without anything that depends on when and where it was made."""
    import onnx

    model = onnx.load(path)
    model.ClearField("doc_string")
    model.ClearField("metadata_props")
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _check_weight_bits(weight_bits: int) -> None:
    if weight_bits not in (7, 8):
        raise InvalidParameterError("weight_bits", rule="7 or 8", value=weight_bits)
