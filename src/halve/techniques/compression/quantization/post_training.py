"""INT8 after training: an fp32 ONNX file in, a smaller and faster one out, and how far its answers moved.

Affine quantization of a tensor x to integers q: x ~ scale * (q - zero_point), scale = (max - min) / (2^bits - 1),
zero_point = round(-min / scale); weights are symmetric, zero_point = 0. Rounding is half to even.
Source: Jacob et al. 2018, arXiv:1712.05877, section 2.1.

Whether the result is worth its error is not judged here.
"""

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, MissingExtraError, ModelError
from halve.techniques.compression.quantization.runtime import open_session, run_logits

Batches = Sequence[Mapping[str, NDArray[Any]]]
"""Batches of named input tensors, batch axis first."""

ActivationType = Literal["uint8", "int8"]
ACTIVATION_TYPES: tuple[ActivationType, ...] = ("uint8", "int8")

PRODUCTS = ("Conv", "Gemm", "MatMul")

CONVOLUTIONAL_OPERATORS = (*PRODUCTS, "Add", "AveragePool", "Clip", "GlobalAveragePool", "MaxPool", "Relu")
"""In INT8 by `quantize_static` where there are convolutions: also what stands between two of them."""

DENSE_OPERATORS = ("Gemm", "MatMul")
"""In INT8 elsewhere, and by `quantize_dynamic` always.

Not Add: in a transformer it adds -inf to masked scores. Dynamic never Conv: ConvInteger is slower than fp32.
"""

INT8_ACTIVATION_GAIN = 0.8
"""Where both are tried, int8 activations must cut the error to this share of uint8's: their kernels are slower."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a quantized model's answers are from those of its fp32 parent, on n inputs.

    Args:
        argmax_disagreement_share: Share of inputs whose answer differs, in [0, 1].
        relative_rmse: sqrt(mean (q - f)^2) / std(f) over all logits, q quantized and f fp32.
        n: Inputs compared.
    """

    argmax_disagreement_share: float
    relative_rmse: float
    n: int


@dataclass(frozen=True, kw_only=True)
class StaticQuantization:
    """What `quantize_static` chose, and how it did on its calibration inputs."""

    activation_type: ActivationType
    weight_bits: int
    per_channel: bool
    agreement: Agreement


def quantize_static(
    fp32_path: Path,
    out_path: Path,
    *,
    calibration: Batches,
    weight_bits: int,
    per_channel: bool = True,
    activation_type: ActivationType | Literal["measured"] = "uint8",
    operators: Sequence[str] | None = None,
) -> StaticQuantization:
    """Write an INT8 model whose activation ranges were seen on calibration inputs (QDQ form).

    Ranges are the minimum and maximum over the calibration inputs. The same inputs give the same bytes.

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

    Raises:
        InvalidParameterError: If weight_bits is not 7 or 8, or the calibration is empty, not finite, or does
            not fit the model's inputs.
        ModelError: If the model cannot be loaded or quantized, or its weights are not finite.
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    _check_weight_bits(weight_bits)
    present = _check_weights(fp32_path)
    _check_calibration(fp32_path, calibration)
    expected = run_logits(fp32_path, calibration)
    if not np.isfinite(expected).all():
        raise ModelError(f"logits of {fp32_path.name} on the calibration inputs must be finite. Got NaN or infinity.")
    defaults = CONVOLUTIONAL_OPERATORS if "Conv" in present else DENSE_OPERATORS
    tried: dict[ActivationType, tuple[bytes, Agreement]] = {}
    with _quantizer(fp32_path) as (quantization, prepared):
        for kind in ACTIVATION_TYPES if activation_type == "measured" else (activation_type,):
            target = prepared.with_name(f"{kind}.onnx")
            quantization.quantize_static(
                prepared,
                target,
                _Reader(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(operators or defaults),
                per_channel=per_channel,
                reduce_range=weight_bits == 7,
                activation_type=quantization.QuantType.from_string("QUInt8" if kind == "uint8" else "QInt8"),
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                # Rounding logits to 8 bits ties classes, and what follows a product (bias, norm) is fp32 anyway.
                extra_options={
                    "MatMulConstBOnly": True,
                    "OpTypesToExcludeOutputQuantization": list(DENSE_OPERATORS),
                },
            )
            content = _canonical(target)
            tried[kind] = (content, _agreement(expected, run_logits(content, calibration)))
    chosen = _better(tried) if activation_type == "measured" else activation_type
    _write(out_path, tried[chosen][0])
    return StaticQuantization(
        activation_type=chosen, weight_bits=weight_bits, per_channel=per_channel, agreement=tried[chosen][1]
    )


def _better(tried: Mapping[ActivationType, tuple[bytes, Agreement]]) -> ActivationType:
    error = {kind: agreement.relative_rmse for kind, (_, agreement) in tried.items()}
    return "int8" if error["int8"] < INT8_ACTIVATION_GAIN * error["uint8"] else "uint8"


def quantize_dynamic(fp32_path: Path, out_path: Path, *, weight_bits: int, per_channel: bool = True) -> None:
    """Write an INT8 model that takes the range of each activation as it runs: no calibration.

    Only DENSE_OPERATORS. The same model gives the same bytes.

    Args:
        fp32_path: The model.
        out_path: Where the INT8 model goes.
        weight_bits: 8, or 7 where the processor's 8-bit products saturate; see `weight_bits_for`.
        per_channel: One weight scale per output channel instead of one per tensor.

    Raises:
        InvalidParameterError: If weight_bits is not 7 or 8.
        ModelError: If the model cannot be loaded or quantized, its weights are not finite, or it has none of
            DENSE_OPERATORS.
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    _check_weight_bits(weight_bits)
    operators = _check_weights(fp32_path)
    if not operators & set(DENSE_OPERATORS):
        raise ModelError(f"{fp32_path.name} must hold {' or '.join(DENSE_OPERATORS)} to be quantized dynamically.")
    with _quantizer(fp32_path) as (quantization, prepared):
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
    return _agreement(run_logits(fp32_path, inputs), run_logits(int8_path, inputs))


def _agreement(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> Agreement:
    if expected.shape != actual.shape:
        raise ModelError(f"logits of both models must have one shape. Got {expected.shape} and {actual.shape}.")
    spread = max(float(np.std(expected, dtype=np.float64)), float(np.finfo(np.float32).tiny))
    error = np.sqrt(np.mean(np.square(actual - expected, dtype=np.float64)))
    return Agreement(
        argmax_disagreement_share=float(np.mean(expected.argmax(axis=1) != actual.argmax(axis=1))),
        relative_rmse=float(error) / spread,
        n=len(expected),
    )


class _Reader:
    """Hands out calibration batches in their order, as onnxruntime asks for them."""

    def __init__(self, batches: Batches) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


@contextmanager
def _quantizer(fp32_path: Path) -> Iterator[tuple[Any, Path]]:
    """Give `onnxruntime.quantization` and a copy of the model with folded constants and inferred shapes."""
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise MissingExtraError("quantization", package=str(error.name), extra="onnx") from None
    with tempfile.TemporaryDirectory(prefix="halve-") as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(onnx|onnxruntime)\b")
        prepared = Path(folder) / "prepared.onnx"
        try:
            # Symbolic inference takes most of the time and adds nothing that static QDQ reads.
            quant_pre_process(fp32_path, prepared, skip_symbolic_shape=True)
            yield quantization, prepared
        except (ModelError, InvalidParameterError):
            raise
        except Exception as error:  # onnxruntime raises many classes, some of them private.
            raise ModelError(f"{fp32_path.name} cannot be quantized: {type(error).__name__}: {error}") from error


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


def _check_weights(path: Path) -> set[str]:
    """Raise if a weight of a product is NaN or infinite; return the operators of the graph.

    Other constants may be infinite: an attention mask adds -inf.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise MissingExtraError("quantization", package="onnx", extra="onnx") from None
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # A missing file, or a damaged protobuf: unrelated classes.
        raise ModelError(f"{path} is not a readable ONNX file: {error}") from error
    weights = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input}
    for tensor in graph.initializer:
        if tensor.name in weights and not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise ModelError(f"weight {tensor.name!r} of {path.name} must be finite. Got NaN or infinity.")
    return {node.op_type for node in graph.node}


def _check_calibration(path: Path, calibration: Batches) -> None:
    if not calibration:
        raise InvalidParameterError("calibration", rule="at least one batch", value=0)
    names = {node.name for node in open_session(path).get_inputs()}
    for index, batch in enumerate(calibration):
        if set(batch) != names:
            rule = f"tensors named {sorted(names)}"
            raise InvalidParameterError(f"calibration[{index}]", rule=rule, value=sorted(batch))
        for name, array in batch.items():
            if len(array) == 0:
                raise InvalidParameterError(f"calibration[{index}][{name!r}]", rule="at least one row", value=0)
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                rule = "finite"
                raise InvalidParameterError(f"calibration[{index}][{name!r}]", rule=rule, value="NaN or infinity")
