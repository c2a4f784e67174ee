"""Open Inference Protocol v2, JSON form: request bytes to payloads, answers to response bytes.

Source: the data plane of the Open Inference Protocol, version 2.0. Knows nothing of HTTP.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.core import Payload
from halve.errors import InvalidParameterError
from halve.serving.gateway.chain import Answered, InputSpec

INTEGER_RANGES = {"UINT8": (0, 2**8 - 1), "INT64": (-(2**63), 2**63 - 1)}
DATATYPES = ("FP32", "FP64", "UINT8", "INT64", "BYTES")
OUTPUTS = ("label", "probabilities", "stage")
DEFAULT_OUTPUTS = frozenset({"label", "stage"})


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request: its items, what to return of them, and the id to echo."""

    payloads: list[Payload]
    outputs: frozenset[str]
    id: str | None


def parse_request(body: bytes, *, takes: InputSpec) -> InferenceRequest:
    """Read an inference request.

    Raises:
        InvalidParameterError: Naming the field, its rule and what was given.
    """
    import orjson

    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidParameterError("the request body", rule="JSON", value=str(error)) from None
    if type(data) is not dict:
        raise InvalidParameterError("the request body", rule="a JSON object", value=_kind(data))
    request_id = data.get("id")
    if request_id is not None and type(request_id) is not str:
        raise InvalidParameterError("id", rule="a string", value=_kind(request_id))
    return InferenceRequest(_items(data.get("inputs"), takes), _outputs(data.get("outputs")), request_id)


def _outputs(data: Any) -> frozenset[str]:
    if data is None:
        return DEFAULT_OUTPUTS
    if type(data) is not list or not data:
        raise InvalidParameterError("outputs", rule="a list of at least 1 output", value=_kind(data))
    names = [item.get("name") if type(item) is dict else item for item in data]
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown:
        raise InvalidParameterError("name of an output", rule=f"one of {', '.join(OUTPUTS)}", value=unknown[0])
    return frozenset(str(name) for name in names)


def _items(inputs: Any, takes: InputSpec) -> list[Payload]:
    if type(inputs) is not list or len(inputs) != 1 or type(inputs[0]) is not dict:
        value = len(inputs) if type(inputs) is list else _kind(inputs)
        raise InvalidParameterError("inputs", rule="a list of exactly 1 tensor", value=value)
    tensor = inputs[0]
    if type(tensor.get("name")) is not str:
        raise InvalidParameterError("name of the input", rule="a string", value=_kind(tensor.get("name")))
    datatype, shape = tensor.get("datatype"), _shape(tensor.get("shape"))
    if datatype not in DATATYPES:
        raise InvalidParameterError("datatype of the input", rule=f"one of {', '.join(DATATYPES)}", value=datatype)
    is_text = datatype == "BYTES"
    if takes.datatype is not None and is_text != (takes.datatype == "BYTES"):
        rule = "BYTES, since the model reads text" if takes.datatype == "BYTES" else "a number type, not text"
        raise InvalidParameterError("datatype of the input", rule=rule, value=datatype)
    if not is_text and takes.shape is not None and tuple(shape[1:]) != takes.shape:
        rule = f"[batch, {', '.join(map(str, takes.shape))}]"
        raise InvalidParameterError("shape of the input", rule=rule, value=shape)
    values = _flat(tensor.get("data"), shape)
    if is_text:
        return _texts(values, shape)
    array = _numbers(values, datatype).reshape(shape)
    return [array[index] for index in range(shape[0])]


def _shape(shape: Any) -> list[int]:
    good = type(shape) is list and shape and all(type(size) is int and size > 0 for size in shape)
    if not good:
        rule = "a list of positive integers, the batch first"
        raise InvalidParameterError("shape of the input", rule=rule, value=shape)
    return list(shape)


def _flat(data: Any, shape: list[int]) -> list[Any]:
    """Return row-major values of flat or nested data, checked against the shape."""
    if type(data) is not list:
        raise InvalidParameterError("data of the input", rule="a list", value=_kind(data))
    values: list[Any] = data
    depth = 0
    while values and type(values[0]) is list:
        depth += 1
        inner = shape[depth] if depth < len(shape) else -1
        if any(type(row) is not list or len(row) != inner for row in values):
            rule = f"flat, or nested exactly as its shape {shape} says"
            raise InvalidParameterError("data of the input", rule=rule, value="lists that are not")
        values = [value for row in values for value in row]
    size = math.prod(shape)
    if len(values) != size:
        rule = f"{size} values, as its shape {shape} says"
        raise InvalidParameterError("data of the input", rule=rule, value=f"{len(values)} values")
    return values


def _numbers(values: list[Any], datatype: str) -> NDArray[np.float32]:
    try:
        total = sum(values)  # refuses text, null and lists far faster than a look at every type
    except TypeError:
        odd = next(value for value in values if type(value) not in (int, float, bool))
        raise InvalidParameterError("data of the input", rule="numbers", value=odd) from None
    if datatype in INTEGER_RANGES:
        low, high = INTEGER_RANGES[datatype]
        for value in values:
            if type(value) is not int or not low <= value <= high:
                rule = f"integers from {low} to {high} for {datatype}"
                raise InvalidParameterError("data of the input", rule=rule, value=value)
    with np.errstate(over="ignore"):
        array = np.fromiter(values, dtype=np.float32, count=len(values))
    if not (math.isfinite(total) and np.isfinite(array).all()):
        raise InvalidParameterError("data of the input", rule="finite in 32 bits", value="a larger number")
    return array


def _texts(values: list[Any], shape: list[int]) -> list[Payload]:
    if math.prod(shape) != shape[0]:
        raise InvalidParameterError("shape of the input", rule="[batch] or [batch, 1] for BYTES", value=shape)
    odd = [value for value in values if type(value) is not str]
    if odd:
        raise InvalidParameterError("data of the input", rule="strings for BYTES", value=odd[0])
    return list(values)


def render_response(
    answers: Sequence[Answered], request: InferenceRequest, *, model_name: str, labels: Sequence[str]
) -> bytes:
    """Return the response body.

    Raises:
        InvalidParameterError: If probabilities are asked of an answer that has none.
    """
    import orjson

    size, outputs = len(answers), []
    if "label" in request.outputs:
        outputs.append(_label_output([answer.answer for answer in answers], labels))
    if "probabilities" in request.outputs:
        outputs.append(_probability_output(answers))
    if "stage" in request.outputs:
        stages = [answer.stage for answer in answers]
        outputs.append({"name": "stage", "datatype": "BYTES", "shape": [size], "data": stages})
    response = {"model_name": model_name, "outputs": outputs}
    if request.id is not None:
        response["id"] = request.id
    return orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)


def _label_output(answers: list[int | str], labels: Sequence[str]) -> Mapping[str, object]:
    is_text = isinstance(answers[0], str)
    output: dict[str, object] = {"name": "label", "datatype": "BYTES" if is_text else "INT64"}
    output |= {"shape": [len(answers)], "data": answers}
    if labels and not is_text:
        output["parameters"] = {"names": [labels[answer] for answer in answers if isinstance(answer, int)]}
    return output


def _probability_output(answers: Sequence[Answered]) -> Mapping[str, object]:
    rows = [answer.probabilities for answer in answers if answer.probabilities is not None]
    if len(rows) != len(answers):
        silent = next(answer.stage for answer in answers if answer.probabilities is None)
        rule = f"without probabilities, since {silent!r} gives none"
        raise InvalidParameterError("outputs", rule=rule, value="probabilities")
    table = np.stack(rows)
    return {"name": "probabilities", "datatype": "FP32", "shape": list(table.shape), "data": table.ravel()}


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
    return names.get(type(value), "a number")
