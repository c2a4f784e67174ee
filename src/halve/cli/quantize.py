"""`halve quantize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from halve.cli.options import Command, debug_option, json_option, print_json

if TYPE_CHECKING:
    from halve.assembly import QuantizedModel

EXAMPLES = (
    "halve quantize model.onnx --calibration inputs.npz --payload images -o model-int8",
    "halve quantize model:network --calibration train.npz --label y --bits 4 --activation-bits 4 --qat 5 -o w4a4",
)
METHODS = ("auto", "static", "dynamic", "weight-only")


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("model")
@click.option("--calibration", required=True, metavar="DATA", help="JSONL, CSV, Parquet, NPZ, or module:function.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write; must not exist.")
@click.option("--bits", type=int, default=8, show_default=True, help="Of weights, 2 to 8.")
@click.option("--activation-bits", type=int, default=8, show_default=True, help="Of activations, 2 to 8.")
@click.option("--method", type=click.Choice(METHODS), default="auto", show_default=True, help="What to try.")
@click.option(
    "--qat",
    "qat_epochs",
    type=click.IntRange(min=0),
    default=0,
    metavar="EPOCHS",
    help="Train on, with quantization in the loop.",
)
@click.option("--learning-rate", type=float, default=0.01, show_default=True, help="Of that training.")
@click.option("--payload", default="payload", show_default=True, help="Column of DATA that holds the inputs.")
@click.option("--label", default=None, help="Column of DATA that holds class indices, for --qat.")
@click.option("--tokenizer", default=None, help="tokenizer.json, or module:function, if the inputs are texts.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Cut longer texts.")
@click.option("--error-budget", type=float, default=None, help="Largest relative RMSE of the logits.")
@click.option("--accept-slower", is_flag=True, help="Keep an artifact that is no faster than fp32 here.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@json_option
@debug_option
def command(model: str, calibration: str, out: Path, as_json: bool, **options: Any) -> None:
    """Write MODEL (an ONNX file, or module:function) in integers for this host, and say why per layer.

    With 8 bits it is faster; with fewer it is smaller, and needs --qat to stay right.
    """
    from halve.assembly import quantize
    from halve.cli.progress import progress

    made = quantize(model, calibration=calibration, out=out, progress=progress(), **options)
    if as_json:
        print_json({"schema": "halve.quantize/1", "folder": str(made.folder), "manifest": made.manifest.to_document()})
        return
    _print(made)


def _print(made: "QuantizedModel") -> None:
    from rich.console import Console

    from halve.cli.tables import print_quantized

    print_quantized(made, console=Console())
