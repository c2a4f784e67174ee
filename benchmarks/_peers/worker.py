"""The peer's side: a process that builds quantized models, answers, and times itself when asked.

It runs in the peer's own environment, so it imports nothing but NumPy. Requests are JSON lines on stdin, answers JSON
lines on what was stdout; whatever the peer prints goes to stderr. The process waits between requests without
using the processor, so many of them can be timed in turns.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray[Any, Any]]
Answer = Callable[[Batch], Any]

CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class Model:
    """A folder that holds one model under test, the same for every peer.

    `model.onnx`, `weights.safetensors` (of the torch module that `networks.build` makes from `network.json`),
    `calibration.npz`, `evaluation.npz` and `timing.npz`.
    """

    folder: Path

    @property
    def onnx(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def name(self) -> str:
        return self.folder.name

    def calibration(self) -> list[Batch]:
        return list(batches(self.folder / "calibration.npz", CALIBRATION_BATCH))

    def timing(self, rows: int) -> Batch:
        return next(batches(self.folder / "timing.npz", rows))

    def module(self) -> Any:
        """Return the torch module with the weights under test, in evaluation mode."""
        from benchmarks._peers.networks import load

        return load(self.folder)

    def torch_calibration(self) -> list[tuple[Any, ...]]:
        """Return the calibration batches as positional arguments of the module."""
        return [tensors(batch) for batch in self.calibration()]

    def digests(self) -> dict[str, str]:
        files = ("model.onnx", "weights.safetensors", "calibration.npz", "evaluation.npz")
        return {file: hashlib.sha256((self.folder / file).read_bytes()).hexdigest() for file in files}


@dataclass(frozen=True, kw_only=True)
class Built:
    """A quantized model.

    Args:
        answer: Takes one batch of named arrays, returns the logits.
        size_bytes: Of what would be deployed: the file, or the integers and scales a module holds.
        note: What a reader must know, else empty.
        content: The ONNX file, of tools that make one.
    """

    answer: Answer
    size_bytes: int
    note: str = ""
    content: bytes | None = None


Methods = Mapping[str, Callable[[Model], Built]]


@dataclass
class Server:
    """The methods of one peer, and the models it has built."""

    methods: Methods
    built: dict[str, tuple[Model, Built]] = field(default_factory=dict)

    def build(self, *, model: str, method: str, keep: str | None = None) -> dict[str, Any]:
        folder = Model(Path(model))
        start = time.perf_counter()
        made = self.methods[method](folder)
        seconds = time.perf_counter() - start
        self.built[method] = (folder, made)
        if keep is not None and made.content is not None:
            Path(keep).write_bytes(made.content)
        return {"seconds": seconds, "size_bytes": made.size_bytes, "note": made.note, "sha256": folder.digests()}

    def answer(self, *, method: str, inputs: str, rows: int, to: str) -> dict[str, Any]:
        _, made = self.built[method]
        logits = np.concatenate([array(made.answer(batch)) for batch in batches(Path(inputs), rows)])
        np.save(to, logits)
        return {"shape": list(logits.shape)}

    def time(self, *, method: str, rows: int, runs: int) -> dict[str, Any]:
        model, made = self.built[method]
        batch = model.timing(rows)
        made.answer(batch)  # The caches belong to whoever ran before.
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            made.answer(batch)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}


def batches(file: Path, rows: int) -> Iterator[Batch]:
    """Yield so many rows at a time; columns that an `attention_mask` leaves out of the whole batch are cut off."""
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    count = len(next(iter(arrays.values())))
    for start in range(0, count, rows):
        batch = {name: values[start : start + rows] for name, values in arrays.items()}
        if "attention_mask" in batch:
            longest = int(batch["attention_mask"].sum(axis=1).max())
            batch = {name: np.ascontiguousarray(values[:, :longest]) for name, values in batch.items()}
        yield batch


def tensors(batch: Batch) -> tuple[Any, ...]:
    """Return the arrays as torch tensors, in order."""
    import torch

    return tuple(torch.from_numpy(values) for values in batch.values())


def array(logits: Any) -> np.ndarray[Any, Any]:
    """Return logits of any library as a NumPy array, float32."""
    found = logits.detach().numpy() if hasattr(logits, "detach") else logits
    return np.asarray(found, dtype=np.float32)


def torch_answer(module: Any, *, inference_mode: bool = True) -> Answer:
    """Return a function that runs a torch module on a batch, without gradients; some tools fail in inference mode."""
    import torch

    without_gradients = torch.inference_mode if inference_mode else torch.no_grad

    def answer(batch: Batch) -> Any:
        with without_gradients():
            return module(*tensors(batch))

    return answer


def serve(methods: Methods) -> None:
    """Answer requests until stdin ends."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    server = Server(methods)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(server, request.pop("do"))(**request)
        except Exception as error:  # Whatever a peer raises is a finding, to be reported.
            import traceback

            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]}
        channel.write(json.dumps(reply) + "\n")
        channel.flush()
