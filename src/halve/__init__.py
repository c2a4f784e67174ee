"""halve: find the cheapest way to answer the same requests equally well, prove it, and serve it."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

__all__ = ["__version__", "distill", "open_run", "optimize", "profile", "prune", "quantize", "serve"]


def __getattr__(name: str) -> Any:
    # Importing halve stays instant: the assembly, and numpy with it, load on first use. Types: __init__.pyi.
    if name in __all__:
        return getattr(import_module("halve.assembly"), name)
    raise AttributeError(f"module 'halve' has no attribute {name!r}")


class _Root(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # Importing the room `halve.optimize` would put it in the place of the function that users call.
        if name not in __all__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Root
