"""Training with quantization in the loop, down to real integers: prepare, train, convert, and check the parity."""

from halve.techniques.compression.quantization.training.convert import Converted, ConvertedLayer, convert
from halve.techniques.compression.quantization.training.parity import Parity, TensorParity, parity
from halve.techniques.compression.quantization.training.prepare import prepare
from halve.techniques.compression.quantization.training.train import Epoch, Recipe, train

__all__ = [
    "Converted",
    "ConvertedLayer",
    "Epoch",
    "Parity",
    "Recipe",
    "TensorParity",
    "convert",
    "parity",
    "prepare",
    "train",
]
