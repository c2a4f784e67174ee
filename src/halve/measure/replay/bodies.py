"""Payloads as Open Inference Protocol v2 requests, encoded before the clock starts; replies read after it stops."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halve.core import Payload
from halve.errors import MissingExtraError


def encode_bodies(payloads: Sequence[Payload], *, outputs: Sequence[str] = ("label", "stage")) -> list[bytes]:
    """Return one request body per payload, each holding that one item.

    Args:
        payloads: Tensors without batch axis (sent as FP32), or texts (sent as BYTES).
        outputs: Which outputs to ask for.
    """
    try:
        import orjson
    except ImportError:
        raise MissingExtraError("replay", package="orjson", extra="serve") from None
    wanted = [{"name": name} for name in outputs]
    bodies: list[bytes] = []
    tensor: dict[str, object]
    for payload in payloads:
        if isinstance(payload, str):
            tensor = {"name": "input", "shape": [1], "datatype": "BYTES", "data": [payload]}
        else:
            array = np.ascontiguousarray(payload, dtype=np.float32)
            tensor = {"name": "input", "shape": [1, *array.shape], "datatype": "FP32", "data": array.ravel()}
        bodies.append(orjson.dumps({"inputs": [tensor], "outputs": wanted}, option=orjson.OPT_SERIALIZE_NUMPY))
    return bodies


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply said of its one item."""

    label: int | str
    stage: str


def read_answer(body: bytes) -> Answer | None:
    """Return the answer in a reply; None if the reply holds no label. Without a stage, the stage is empty."""
    import orjson

    try:
        outputs = {output["name"]: output["data"][0] for output in orjson.loads(body)["outputs"]}
        return Answer(outputs["label"], str(outputs.get("stage", "")))
    except (ValueError, KeyError, IndexError, TypeError):
        return None
