"""Names in a config become objects here; the only room that knows everybody."""

from halve.assembly.api import RunFolder, open_run, optimize, profile
from halve.assembly.config import Config
from halve.assembly.quantizing import QuantizedModel, quantize
from halve.assembly.serving import make_chain, serve

__all__ = [
    "Config",
    "QuantizedModel",
    "RunFolder",
    "make_chain",
    "open_run",
    "optimize",
    "profile",
    "quantize",
    "serve",
]
