"""Names in a config become objects here; the only room that knows everybody."""

from halve.assembly.api import RunFolder, open_run, optimize, profile
from halve.assembly.config import Config
from halve.assembly.distilling import distill
from halve.assembly.made import MadeModel
from halve.assembly.pruning import prune
from halve.assembly.quantizing import QuantizedModel, quantize
from halve.assembly.serving import make_chain, serve

__all__ = [
    "Config",
    "MadeModel",
    "QuantizedModel",
    "RunFolder",
    "distill",
    "make_chain",
    "open_run",
    "optimize",
    "profile",
    "prune",
    "quantize",
    "serve",
]
