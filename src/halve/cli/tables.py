"""Results of single techniques as tables of at most 80 columns, readable without colour."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from halve.units import format_bytes, format_percent, format_seconds

if TYPE_CHECKING:
    from halve.assembly import QuantizedModel
    from halve.techniques.compression.quantization import LayerRecord

NAME_WIDTH = 22


def print_quantized(made: "QuantizedModel", *, console: Console) -> None:
    """Print what was made, how far it is from fp32, how fast it is here, and why each layer is as it is."""
    for line in (*_summary(made), *_layers(made.manifest.layers), *_reasons(made.manifest.layers)):
        console.print(line, soft_wrap=True, highlight=False)


def _summary(made: "QuantizedModel") -> Iterator[Text]:
    manifest = made.manifest
    yield Text(f"{made.model.name}  {manifest.recipe}", "bold")
    agreement = manifest.agreement
    yield Text(
        f"answers differ from fp32's on {format_percent(agreement.argmax_disagreement_share, digits=2)} of "
        f"{agreement.n} inputs; relative RMSE {agreement.relative_rmse:.2g}"
    )
    if manifest.seconds is not None and manifest.fp32_seconds is not None:
        yield Text(f"{format_seconds(manifest.seconds)} a batch, {format_seconds(manifest.fp32_seconds)} in fp32")
    yield Text(f"{format_bytes(manifest.size_bytes)}, {format_bytes(manifest.fp32_size_bytes)} in fp32")
    yield Text(manifest.host_note)
    yield Text(f"written to {made.folder}")


def _layers(layers: "tuple[LayerRecord, ...]") -> Iterator[Text]:
    yield Text("")
    yield Text(f"{'layer':<{NAME_WIDTH}}{'operator':<10}{'bits':>6}{'error':>9}{'fp32':>11}{'int8':>11}", "bold")
    for layer in layers:
        error = "" if layer.error is None else f"{layer.error:.2g}"
        fp32 = "" if layer.fp32_seconds is None else format_seconds(layer.fp32_seconds)
        int8 = "" if layer.int8_seconds is None else format_seconds(layer.int8_seconds)
        yield Text(
            f"{_cut(layer.name):<{NAME_WIDTH}}{layer.operator:<10}{_bits(layer):>6}{error:>9}{fp32:>11}{int8:>11}"
        )


def _bits(layer: "LayerRecord") -> str:
    if layer.decision == "fp32":
        return "fp32"
    activation = "32" if layer.activation_bits is None else str(layer.activation_bits)
    return f"W{layer.bits}A{activation}"


def _reasons(layers: "tuple[LayerRecord, ...]") -> Iterator[Text]:
    """Say why, once per reason: most layers share theirs."""
    named: dict[str, list[str]] = {}
    for layer in layers:
        named.setdefault(layer.reason, []).append(layer.name)
    yield Text("")
    for reason, names in named.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield Text(f"{_cut(names[0])}{more}: {reason}", "dim")


def _cut(name: str) -> str:
    return name if len(name) < NAME_WIDTH else f"{name[: NAME_WIDTH - 4]}..."
