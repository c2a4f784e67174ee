"""The deployed runtime, ONNX Runtime on one thread of the CPU: what a model costs here, alone and beside others."""

import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from halve.errors import MissingExtraError, ModelError
from halve.techniques.compression.pruning.structured.groups import Inputs, first_rows, tensors

if TYPE_CHECKING:
    from torch import nn

Timer = Callable[[Mapping[str, Callable[[], object]]], Mapping[str, Sequence[float]]]
"""Takes actions by name and returns the seconds of each, one per round. A recorded one makes a run repeatable."""

SecondsOf = Callable[[Mapping[str, "nn.Module"]], Mapping[str, float]]
"""Returns the seconds of one call of each named module, in the runtime that will serve it."""

OPSET = 18
FEWEST_ROUNDS, MOST_ROUNDS = 9, 101

SAMPLE_SECONDS = 2e-4
"""An action is repeated until a round of it takes so long: far above the clock's step."""


def open_session(content: bytes) -> Any:
    """Return a single-threaded `onnxruntime.InferenceSession` on the CPU.

    Raises:
        ModelError: If onnxruntime cannot load the model.
        MissingExtraError: If onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("pruning by measured latency", package="onnxruntime", extra="onnx") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no public base class.
        raise ModelError(f"onnxruntime cannot load the model: {' '.join(str(error).split())}") from error


def interleaved_seconds(
    actions: Mapping[str, Callable[[], object]],
    *,
    budget_seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of one call of each action, one per round; each round starts with another action.

    Args:
        actions: By name, at least one.
        budget_seconds: Rounds are run until it is used up, but between `FEWEST_ROUNDS` and `MOST_ROUNDS`.
        clock: Seconds, never going back.
    """
    names, repeats = list(actions), {name: _repeats(actions[name], clock) for name in actions}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    end = clock() + budget_seconds
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and clock() >= end:
            break
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            for _ in range(repeats[name]):
                actions[name]()
            seconds[name].append((clock() - start) / repeats[name])
    return seconds


def exported(module: "nn.Module", inputs: Inputs) -> bytes:
    """Return the module as ONNX, batch axis free (and the token axis of 2-D integer inputs).

    Raises:
        ModelError: If torch cannot export it.
        MissingExtraError: If onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("ONNX export", package=str(error.name), extra="onnx,torch") from None
    import torch

    rows = first_rows(inputs, 2)  # torch takes an axis of length 1 for a constant.
    axes = tuple(
        {0: "batch", 1: "tokens"} if array.ndim == 2 and array.dtype.kind == "i" else {0: "batch"}
        for array in rows.values()
    )
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                tuple(tensors(rows)),
                dynamo=True,
                dynamic_shapes=axes,
                input_names=list(rows),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # torch.onnx and torch.export raise many classes, some of them private.
        raise ModelError(f"torch cannot export {type(module).__name__}: {error}") from error
    if program is None:
        raise ModelError(f"torch cannot export {type(module).__name__}: it returned no program.")
    content: bytes = program.model_proto.SerializeToString(deterministic=True)
    return content


def seconds_in_onnxruntime(inputs: Inputs, *, batch_size: int = 1, timer: Timer | None = None) -> SecondsOf:
    """Return a function that exports modules and measures one call of each in ONNX Runtime, in turn.

    Seconds are the first module's median times the median ratio to it, round by round.

    Args:
        inputs: Real inputs, at least one row.
        batch_size: Rows of a call, at least 1.
        timer: Measures; `interleaved_seconds` by default.
    """
    batch, measure = first_rows(inputs, batch_size), timer or interleaved_seconds

    def seconds_of(modules: Mapping[str, "nn.Module"]) -> dict[str, float]:
        actions = {
            name: partial(open_session(exported(module, inputs)).run, None, dict(batch))
            for name, module in modules.items()
        }
        found = {name: np.asarray(seconds, float) for name, seconds in measure(actions).items()}
        first = found[next(iter(modules))]
        # By ratios within rounds: what disturbs the machine disturbs all of a round.
        return {name: float(np.median(first) * np.median(found[name] / first)) for name in modules}

    return seconds_of


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter says about its own insides; why it failed is in what it raises."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")  # "torchvision is not installed"
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _repeats(action: Callable[[], object], clock: Callable[[], float]) -> int:
    """Warm an action up; return how many calls make up a sample."""
    action()
    start = clock()
    action()
    return int(np.clip(np.ceil(SAMPLE_SECONDS / max(clock() - start, 1e-9)), 1, 100))
