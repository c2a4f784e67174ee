"""Engines run one model: payloads in, predictions out. They know no stack, no traffic and no money."""

from typing import get_args

from halve.core import Engine, EngineName
from halve.errors import InvalidParameterError

__all__ = ["engine"]


def engine(name: EngineName) -> Engine:
    """Return the engine of that name; its library loads with the first model.

    Raises:
        InvalidParameterError: If there is no engine of that name.
    """
    if name == "onnxruntime":
        from halve.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine()
    if name == "openvino":
        from halve.engines.openvino import OpenVinoEngine

        return OpenVinoEngine()
    if name == "torch":
        from halve.engines.torch import TorchEngine

        return TorchEngine()
    if name == "openai_http":
        from halve.engines.openai_http import OpenAiHttpEngine

        return OpenAiHttpEngine()
    if name == "recorded":
        from halve.engines.recorded import RecordedEngine

        return RecordedEngine()
    raise InvalidParameterError("engine", rule=f"one of {', '.join(get_args(EngineName))}", value=name)
