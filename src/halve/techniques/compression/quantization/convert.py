"""One door for all kinds: a module or an fp32 ONNX file in, an ONNX file of the wanted kind out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.export import export_onnx
from halve.techniques.compression.quantization.post_training import quantize_dynamic, quantize_static

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["fp32", "int8-static", "int8-dynamic"]


def convert(
    source: object, kind: str, path: Path, *, batches: Sequence[Mapping[str, NDArray[Any]]], weight_bits: int
) -> None:
    """Write the model in one kind.

    Args:
        source: For `fp32` a torch module in evaluation mode; for INT8 the path of an fp32 ONNX file.
        kind: `fp32`, `int8-static` or `int8-dynamic`.
        path: Where the ONNX file goes.
        batches: Real inputs: the first checks an export, all of them calibrate static INT8.
        weight_bits: Of INT8 weights, 7 or 8.

    Raises:
        InvalidParameterError: If the kind is not known, or INT8 is asked of something else than a path.
        ModelError: If the model cannot be exported or quantized.
        MissingExtraError: If a library is not installed.
    """
    if kind == "fp32":
        export_onnx(cast("nn.Module", source), dict(batches[0]), path)
        return
    if not isinstance(source, Path):
        raise InvalidParameterError("source", rule=f"the path of an ONNX file for {kind}", value=source)
    if kind == "int8-static":
        quantize_static(source, path, calibration=[dict(batch) for batch in batches], weight_bits=weight_bits)
    elif kind == "int8-dynamic":
        quantize_dynamic(source, path, weight_bits=weight_bits)
    else:
        raise InvalidParameterError("kind", rule="fp32, int8-static or int8-dynamic", value=kind)
