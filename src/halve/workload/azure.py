"""The two Azure LLM inference traces of 2023 that come with the package: arrival times only, see `data/SOURCE.md`."""

import difflib
from importlib.resources import files

import numpy as np

from halve.core import Traffic
from halve.errors import InvalidParameterError

AZURE_TRACES = {"azure-code": "code", "azure-conv": "conv"}
"""Name of each trace, and of its array."""


def azure_trace(name: str) -> Traffic:
    """Return `azure-code` (8,819 requests) or `azure-conv` (19,366), about one hour each, resolved to 1 ms.

    The traces do not say what was asked, so nothing repeats.

    Raises:
        InvalidParameterError: If there is no such trace.
    """
    if name not in AZURE_TRACES:
        near = difflib.get_close_matches(name, AZURE_TRACES, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else ""
        raise InvalidParameterError("traffic.trace", rule=f"one of {', '.join(AZURE_TRACES)}", value=name, hint=hint)
    path = files("halve.workload").joinpath("data/azure_llm_2023.npz")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        milliseconds = np.cumsum(arrays[AZURE_TRACES[name]], dtype=np.int64)
    unique = np.arange(len(milliseconds), dtype=np.int64)
    return Traffic(
        arrival_seconds=milliseconds / 1000.0,
        content=unique,
        example=unique,
        duration_seconds=float(milliseconds[-1] / 1000.0),
        source=f"{name} (Azure LLM inference trace, November 2023)",
    )
